"""Poor consoles: an ASCII locale without columns, and a terminal that closes; and the commands that a search prints."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ALONE, LIMIT, ROOT, TINY, Ended, environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

POOR = {
    "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "COLUMNS": "0",
    "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "PYTHONWARNDEFAULTENCODING": "1",
}  # fmt: skip
STRANGE = "it's a (root) of ~results"


@pytest.fixture(scope="module")
def poor(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A search whose console can show little, into a root whose name a shell would take apart."""
    folder = tmp_path_factory.mktemp("poor")
    arguments = ("--trials", "2", "--epochs", "2", "--root", str(folder / STRANGE), *ALONE)
    ended: Ended = start("digits-100", *arguments, folder=folder, new_store=True, **POOR).ended()
    return ended


def _commands(text: str) -> dict[str, str]:
    return {line[:15].strip(): line[16:] for line in text.splitlines() if "ladder-search " in line[16:]}


def _statuses(root: Path) -> set[str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        return {status for (status,) in database.execute("SELECT status FROM runs")}


def _study(ended: Ended) -> Path:
    (study,) = (path.parent for path in ended.folder.glob("*/*/study.json"))
    return study


def test_a_poor_console_changes_nothing_but_letters(poor: Ended) -> None:
    assert poor.code == 0, str(poor)
    assert "\x1b" not in poor.out and "\r" not in poor.out and poor.out.isascii()
    for key in ("t0000", "t0001"):
        assert re.search(rf"^{key} .* COMPLETE ", poor.out, re.MULTILINE), "a line for each trial"
    assert max(len(line) for line in poor.out.splitlines() if line[:1] in ("|", "+")) <= 80
    study = _study(poor)
    assert not (study / "running").exists() and _statuses(study.parent) == {"FINISHED"}
    assert "–" in (study / "leaderboard.md").read_text(encoding="utf-8")
    assert list((study / "pictures").glob("*.png"))
    warned = [line for line in poor.err.splitlines() if "EncodingWarning" in line and "site-packages" not in line]
    assert warned == []


def test_what_is_printed_runs_as_it_is_printed(poor: Ended) -> None:
    """The export, the training, the pages, whose port is taken, and what that refusal proposes."""
    commands = _commands(poor.out)
    assert list(commands) == ["look at it", "keep the best", "train the best"], poor.out
    shell = {"cwd": poor.folder, "env": environment(**POOR), "capture_output": True, "encoding": "utf-8"}
    exported = subprocess.run(["bash", "-c", commands["keep the best"]], timeout=LIMIT, **shell)
    assert exported.returncode == 0, exported.stderr
    bundle = shlex.split(commands["train the best"])[2]
    assert (poor.folder / bundle / "MANIFEST.json").is_file()
    trained = subprocess.run(["bash", "-c", commands["train the best"]], timeout=LIMIT, **shell)
    assert trained.returncode == 0, trained.stderr
    assert "over 10 seeds" in trained.stdout and "+/-" in trained.stdout and trained.stdout.isascii()
    assert not (poor.folder / "results").exists(), "it logs to the store of the search"
    with closing(sqlite3.connect(_study(poor).parent / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs WHERE name LIKE 'final %'").fetchone() == (1,)

    with socket.socket() as taken:  # by this test, unless somebody else has it
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 5000))
            taken.listen()
        except OSError:
            pass
        refused = subprocess.run(["bash", "-c", commands["look at it"]], timeout=LIMIT, **shell)
    assert refused.returncode == 2 and refused.stdout == "", refused.stdout + refused.stderr
    (remedy,) = re.findall(r"`([^`]+)`", refused.stderr)
    port = int(remedy.split()[-1])
    with subprocess.Popen(
        ["bash", "-c", f"exec {remedy}"], cwd=poor.folder, env=environment(**POOR), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as pages:  # fmt: skip
        end = time.monotonic() + LIMIT
        while _closed(port):
            assert pages.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        pages.terminate()
        assert pages.wait(30) == 128 + signal.SIGTERM
    assert _closed(port)
    with pytest.raises(ProcessLookupError):  # nothing of its session is left
        os.killpg(pages.pid, 0)


def _closed(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


class Terminal:
    """A command as the foreground of a terminal of its own."""

    def __init__(self, *command: str, folder: Path) -> None:
        self.pid, self._controller = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(command[0], list(command), environment(TERM="xterm"))

    def read_until(self, text: str) -> None:
        seen = b""
        end = time.monotonic() + LIMIT
        while text.encode() not in seen:
            assert time.monotonic() < end, seen
            seen += os.read(self._controller, 1 << 16)

    def close(self) -> int:
        """Close the terminal, so that the kernel sends SIGHUP, and return the exit code of the command."""
        os.close(self._controller)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def hung_up(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A search whose terminal closes while its trials run."""
    folder = tmp_path_factory.mktemp("hung-up")
    search = [str(ROOT / "search.py"), "digits-100", "--trials", "4", "--epochs", "20000", "--compile", "off", *TINY]
    terminal = Terminal(sys.executable, *search, folder=folder)
    terminal.read_until("epoch 1")
    yield terminal.close(), folder


def test_a_terminal_that_closes_ends_a_search_in_good_order(hung_up: tuple[int, Path]) -> None:
    code, folder = hung_up
    assert code == 1
    (study,) = (path.parent for path in folder.glob("results/*/study.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (study / "trials").glob("*.json")]
    assert records and {record["state"] for record in records} == {"PRUNED"}
    for record in records:
        member = json.loads((study / record["checkpoint"] / "member-0" / "member.json").read_text(encoding="utf-8"))
        assert member["step"] == 10 * record["epochs"][-1]["epoch"]
    assert (study / "leaderboard.md").read_text(encoding="utf-8") and list((study / "pictures").glob("*.png"))
    assert "RUNNING" not in _statuses(study.parent)


def test_a_terminal_that_closes_ends_a_training_with_a_checkpoint(tmp_path: Path) -> None:
    train = ["-m", "ladder_search.cli", "train", "digits-100", "--seeds", "2", "--epochs", "200", "-o", "final"]
    terminal = Terminal(sys.executable, *train, folder=tmp_path)
    terminal.read_until("epoch 3/")
    assert terminal.close() == 128 + signal.SIGHUP
    progress = json.loads((tmp_path / "final" / "progress" / "progress.json").read_text(encoding="utf-8"))
    assert progress["epoch"] >= 3
    assert (tmp_path / "final" / "progress" / f"epoch-{progress['epoch']:04d}" / "seed-1001").is_dir()
