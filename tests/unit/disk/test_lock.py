"""A folder is held by one process at a time, whatever becomes of the one that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder_search.disk.lock import LOCK, Lock, hold, let_go

ROOT = Path(__file__).resolve().parents[3]


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "for it"
    lock = hold(folder)
    opened = _open_files()
    with pytest.raises(BlockingIOError):
        hold(folder)
    assert _open_files() == opened
    let_go(lock, unused=False)
    assert _open_files() == opened - 1
    let_go(hold(folder), unused=False)
    assert os.listdir(folder) == [LOCK] and (folder / LOCK).read_bytes() == b""  # a refused search changes nothing


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from ladder_search.disk.lock import hold\n"
    script += "lock = hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(100)"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            hold(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()
    let_go(hold(tmp_path), unused=False)


def test_an_unused_folder_goes_with_its_lock(tmp_path: Path) -> None:
    let_go(hold(tmp_path / "new"), unused=True)
    assert list(tmp_path.iterdir()) == []


def test_folders_above_an_unused_one_go_too_if_they_are_new(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    let_go(hold(tmp_path / "there" / "results" / "new"), unused=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    (tmp_path / "there" / "results").mkdir()
    let_go(hold(tmp_path / "there" / "results" / "new"), unused=True)
    assert [path.name for path in (tmp_path / "there").rglob("*")] == ["results"]


def test_folders_above_one_that_is_used_stay(tmp_path: Path) -> None:
    lock = hold(tmp_path / "results" / "new")
    (tmp_path / "results" / "other").mkdir()
    let_go(lock, unused=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "other"]


def test_of_an_unused_folder_with_something_else_in_it_the_lock_goes(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    let_go(hold(tmp_path), unused=True)
    assert os.listdir(tmp_path) == ["notes.txt"] and (tmp_path / "notes.txt").read_text() == "keep"


def test_a_folder_that_somebody_else_removed_is_let_go(tmp_path: Path) -> None:
    lock = hold(tmp_path / "s")
    (tmp_path / "s" / LOCK).unlink()
    (tmp_path / "s").rmdir()
    let_go(lock, unused=True)
    assert list(tmp_path.iterdir()) == []


def _removed(path: Path) -> None:
    path.unlink()


def _made_anew(path: Path) -> None:
    path.rename(path.with_name("old"))  # and keeps its number, which a new file could be given
    path.touch()


@pytest.mark.parametrize("meanwhile", [_removed, _made_anew])
def test_a_lock_that_was_removed_before_it_was_taken_holds_nothing(
    meanwhile: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes would hold the folder otherwise: this one by the old file, the next one by a new one."""
    flock = fcntl.flock

    def late(handle: int, how: int) -> None:
        meanwhile(tmp_path / LOCK)
        flock(handle, how)

    opened = _open_files()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        with pytest.raises(BlockingIOError):
            hold(tmp_path)
    assert _open_files() == opened
    let_go(hold(tmp_path), unused=False)


def test_a_place_that_cannot_be_written_is_not_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        hold(tmp_path / "file" / "s")


def test_a_disk_that_refuses_the_lock_is_not_in_use_and_keeps_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(handle: int, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    opened = _open_files()
    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error") as refused:
        hold(tmp_path / "s")
    assert not isinstance(refused.value, BlockingIOError)
    assert _open_files() == opened


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", none)


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_file_is_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    lock = hold(folder)
    opened = _open_files()
    assert lock.is_soft and lock.note.startswith(
        f"{folder} is on a file system without file locks; the file .lock.held"
    )
    with pytest.raises(BlockingIOError, match=f"held by process {os.getpid()}"):
        hold(folder)
    assert _open_files() == opened
    let_go(lock, unused=False)
    assert os.listdir(folder) == [LOCK]
    let_go(hold(folder), unused=True)
    assert os.listdir(tmp_path) == []


def test_without_locks_that_of_a_killed_process_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    script = "import errno, fcntl, sys, time; from pathlib import Path; from ladder_search.disk.lock import hold\n"
    script += "def none(handle, how): raise OSError(errno.ENOLCK, '')\n"
    script += "fcntl.flock = none; lock = hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(100)"
    monkeypatch.setattr(fcntl, "flock", none)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"held by process {other.pid}"):
            hold(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (tmp_path / ".lock.held").exists()
    let_go(hold(tmp_path), unused=False)
    assert os.listdir(tmp_path) == [LOCK]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / LOCK), Lock(tmp_path / LOCK)
    assert first.acquire() and first.acquire()  # it is ours already
    assert not second.acquire() and not second.acquire(timeout=0.1)
    assert second.holder() == str(os.getpid())
    waiting = threading.Thread(target=second.acquire, kwargs={"timeout": None})
    waiting.start()
    first.release(remove=True)  # the one that waits holds the file that others find
    waiting.join(10)
    assert not first.acquire()
    second.release()
    second.release()
    assert first.acquire()
    first.release()
