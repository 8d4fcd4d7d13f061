"""The folder that holds the sockets, logs and spilled objects of a private Ray: short, of one search, and removed."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ladder_search.disk.lock import Lock
from ladder_search.errors import ResourceError

VARIABLES = ("RAY_TMPDIR", "TMPDIR")
"""Variables that Ray takes its folder from, in this order."""
_PREFIX = "ray-"
_LOCK = "search.lock"
_LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest name that Ray gives a socket below the folder; the kernel allows 107 bytes for the whole path."""
_ENOUGH_BYTES = 4 << 20
"""What the folder must have room for: the logs of a short search."""
_LEFT_SECONDS = 30.0
"""After that time a folder without a process that holds its lock is one that a killed search has left."""


@contextmanager
def ray_folder(notify: Callable[[str], None]) -> Iterator[Path]:
    """Let a Ray that starts meanwhile keep its files in a folder of its own, which is removed at the end.

    ``/tmp/ray``, Ray's own choice, is shared by all users of a machine, and belongs to the first of them. The folder is
    made in the first place of ``RAY_TMPDIR``, ``TMPDIR``, ``/tmp``, ``/var/tmp`` and ``/dev/shm`` where Ray's sockets
    and logs can be.

    Args:
        notify: takes a line where the folder that a variable names could not be used.

    Raises:
        ResourceError: there is no such place.
    """
    folder = _make(notify)
    lock = Lock(folder / _LOCK)
    lock.acquire()
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)  # read by this process and by all that Ray starts
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop("RAY_TMPDIR", None)
        else:
            os.environ["RAY_TMPDIR"] = before
        _remove(folder)
        lock.release()


def _make(notify: Callable[[str], None]) -> Path:
    named = [(variable, os.environ[variable]) for variable in VARIABLES if os.environ.get(variable)]
    reasons = []
    for variable, place in [*named, ("", "/tmp"), ("", "/var/tmp"), ("", "/dev/shm")]:
        parent = Path(place).absolute()
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        except OSError as error:
            reasons.append((variable, place, error.strerror or str(error)))
            continue
        try:
            _try(folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            # Python refuses a path that is too long for a socket without a number.
            reasons.append((variable, place, error.strerror or "its path is too long for Ray's sockets"))
            continue
        for variable, unused, reason in reasons:
            if variable:
                notify(f"{variable} names {unused}, where Ray cannot keep its files ({reason}); they are in {parent}.")
        _remove_leftovers(parent)
        return folder
    told = "; ".join(f"{f'{variable}=' * bool(variable)}{place}: {reason}" for variable, place, reason in reasons)
    raise ResourceError(
        f"Ray needs a folder with a short path and {_ENOUGH_BYTES >> 20} MB of room, and there is none ({told}); "
        "free some space or set RAY_TMPDIR to such a folder."
    )


def _try(folder: Path) -> None:
    """Raise ``OSError`` unless Ray's sockets and logs can be in the folder."""
    (folder / "room").write_bytes(bytes(_ENOUGH_BYTES))
    (folder / "room").unlink()
    name = folder / ("s" * len(_LONGEST_SOCKET))
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.bind(str(name))
    name.unlink()


def _remove(folder: Path) -> None:
    """Remove the folder; Ray's processes may write into it for a moment after they were told to end."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders that killed searches of this user have left."""
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            left = lock.parent.stat()
            if left.st_uid != os.getuid() or time.time() - left.st_mtime < _LEFT_SECONDS:
                continue
            held = Lock(lock)
            if held.acquire():
                shutil.rmtree(lock.parent, ignore_errors=True)
                held.release()
