"""The folder of a private Ray: where it is made, what is said when it is not where a variable says, and its end."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ladder_search.disk.lock import Lock
from ladder_search.driver import ray_folder as module
from ladder_search.driver.ray_folder import ray_folder
from ladder_search.errors import ResourceError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in module.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, which pytest's own have not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="l") as place:
        yield Path(place)


def test_it_is_private_short_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    with ray_folder(print) as folder:
        assert folder.parent == Path("/tmp") and os.environ["RAY_TMPDIR"] == str(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "ray" / "session").mkdir(parents=True)
        (folder / "ray" / "session" / "log").write_text("x")
    assert not folder.exists() and "RAY_TMPDIR" not in os.environ
    assert capsys.readouterr().out == ""


def test_it_is_where_a_variable_says(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(reversed(module.VARIABLES)):
        place = short / str(number)
        place.mkdir()
        monkeypatch.setenv(name, str(place))
        with ray_folder(print) as folder:
            assert folder.parent == place
        assert os.environ[name] == str(place)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_place_that_cannot_be_used_is_named_and_another_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    file = tmp_path / "file"
    file.touch()
    for place, reason in (
        (long, "too long for Ray's sockets"),
        (file, "Not a directory"),
        (tmp_path / "nothing", "No such file or directory"),
        (Path("/proc/self"), "No such file or directory"),  # nobody can write there
    ):
        monkeypatch.setenv(name, str(place))
        notes = list[str]()
        with ray_folder(notes.append) as folder:
            assert folder.parent == Path("/tmp")
        (note,) = notes
        assert note.startswith(f"{name} names {place}, where Ray cannot keep its files (") and reason in note
        assert note.endswith("they are in /tmp.")
        assert os.environ[name] == str(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x" * 60] and list(long.iterdir()) == []


def test_a_full_disk_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._try

    def full(folder: Path) -> None:
        if folder.parent == Path("/tmp"):
            raise OSError(28, "No space left on device")
        real(folder)

    monkeypatch.setattr(module, "_try", full)
    with ray_folder(print) as folder:
        assert folder.parent in (Path("/var/tmp"), Path("/dev/shm"))


def test_without_a_place_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(module, "_try", full)
    before = set(Path("/tmp").glob("ray-*"))
    with pytest.raises(ResourceError) as caught, ray_folder(print):
        pass
    told = str(caught.value)
    assert f"TMPDIR={tmp_path}/nowhere: No such file or directory; /tmp: No space left on device" in told
    assert told.endswith("free some space or set RAY_TMPDIR to such a folder.")
    assert set(Path("/tmp").glob("ray-*")) <= before


def test_what_a_killed_search_left_is_removed_and_nothing_else(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    old = time.time() - 2 * module._LEFT_SECONDS
    for name in ("ray-left", "ray-runs", "ray-new", "ray-foreign", "other"):
        (short / name).mkdir()
        if name != "ray-foreign":
            (short / name / "search.lock").touch()
        if name != "ray-new":
            os.utime(short / name, (old, old))
    running = Lock(short / "ray-runs" / "search.lock")
    assert running.acquire()
    with ray_folder(print) as folder:
        there = {path.name for path in short.iterdir()}
        assert there == {"ray-foreign", "ray-new", "ray-runs", "other", folder.name}
    running.release()
