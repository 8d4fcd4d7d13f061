"""The pages of a store: a taken port, and a server that ends with the command, its workers included."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from ladder_search.commands import ui
from ladder_search.errors import LadderSearchError, ResourceError, SettingError, StudyFolderError
from ladder_search.signals import Interruption, listening

SERVER = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()  # a worker
open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
time.sleep(60)
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _arguments(folder: Path, port: int | None = None, tracking: str | None = None) -> argparse.Namespace:
    (folder / "mlflow.db").touch()
    return argparse.Namespace(root=folder, tracking=tracking, port=_free_port() if port is None else port)


def _run(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int, *more: str) -> int:
    """Serve from a process with a worker, and send a signal when both are there; return the exit code."""
    place = folder / "processes"
    place.mkdir()
    command = [sys.executable, "-c", SERVER, str(place), *more]
    monkeypatch.setattr(ui.address, "ui_command", lambda *_: command)

    def send() -> None:
        end = time.monotonic() + 30
        while len(list(place.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with listening():
            return ui.run(_arguments(folder))
    finally:
        thread.join()
        processes = [int(path.name) for path in place.iterdir()]
        assert len(processes) == 2
        end = time.monotonic() + 10  # a busy kernel takes its time
        while any(map(_lives, processes)):
            assert time.monotonic() < end, "it stays behind"
            time.sleep(0.02)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
def test_nothing_stays_after_a_signal(
    number: signal.Signals, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ui, "_END_S", 0.5)
    with pytest.raises(Interruption) as interruption:
        _run(monkeypatch, tmp_path, number, kind)
    assert interruption.value.number == number


def test_ctrl_c_is_the_usual_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ui, "_END_S", 0.5)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs with SIGINT ignored
    try:
        assert _run(monkeypatch, tmp_path, signal.SIGINT) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_server_that_ends_by_itself_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ui.address, "ui_command", lambda *_: [sys.executable, "-c", ""])
    with pytest.raises(ResourceError, match="ended with code 0"):
        ui.run(_arguments(tmp_path))


def test_a_taken_port_is_refused_and_the_remedy_has_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "my results"
    root.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"{port} on 127.0.0.1 is not") as refusal:
            ui.run(_arguments(root, port))
    (remedy,) = re.findall(r"`([^`]+)`", str(refusal.value))
    words = shlex.split(remedy)
    assert words[-5:-1] == ["ui", "--root", str(root), "--port"] and int(words[-1]) != port

    def serve(command: list[str], **_: object) -> None:
        raise FileNotFoundError(command[-3])

    monkeypatch.setattr(ui.subprocess, "Popen", serve)
    with pytest.raises(FileNotFoundError, match=words[-1]):
        ui.run(_arguments(root, int(words[-1])))


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_what_is_no_port_is_refused(port: int, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="between 1 and 65535"):
        ui.run(_arguments(tmp_path, port))


def test_a_password_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(LadderSearchError) as refusal:
        ui.run(_arguments(tmp_path, 0, "postgresql://ann:secret@db/runs"))
    assert "secret" not in str(refusal.value) and "--tracking postgresql://ann@db/runs" in str(refusal.value)


def test_a_store_that_does_not_exist(tmp_path: Path) -> None:
    arguments = _arguments(tmp_path)
    (tmp_path / "mlflow.db").unlink()
    with pytest.raises(StudyFolderError, match=f"search.py STUDY --root {tmp_path}"):
        ui.run(arguments)
