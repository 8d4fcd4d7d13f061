"""Temporary folder for the sockets, logs and spilled objects of a private Ray."""

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
"""Variables that Ray reads, in this order."""
_PREFIX = "ray-"
_LOCK = "search.lock"
_LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Longest name of a socket below the folder; the kernel limits the whole path to 107 bytes."""
_ENOUGH_BYTES = 4 << 20
"""Required space: the logs of a short search."""
_LEFT_SECONDS = 30.0
"""Age after which a folder whose lock is free counts as left by a killed search."""


@contextmanager
def ray_folder(notify: Callable[[str], None]) -> Iterator[Path]:
    """Make Ray store its files in a new folder while active, and remove it afterwards.

    Ray's default ``/tmp/ray`` belongs to the first user of a machine. The folder is created in the first of
    ``RAY_TMPDIR``, ``TMPDIR``, ``/tmp``, ``/var/tmp`` and ``/dev/shm`` that can hold Ray's sockets and logs.

    ``notify`` receives a line if the folder that a variable names is unusable. Raises ``ResourceError`` if all are.
    """
    folder = _make(notify)
    lock = Lock(folder / _LOCK)
    lock.acquire()
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)  # read by this process and those that Ray starts
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
            # Python's error for a path that is too long for a socket has no number.
            reasons.append((variable, place, error.strerror or "its path is too long for Ray's sockets"))
            continue
        for variable, unused, reason in reasons:
            if variable:
                notify(f"{variable} names {unused}, where Ray cannot keep its files ({reason}); they are in {parent}.")
        _remove_leftovers(parent)
        return folder
    places = "; ".join(f"{f'{variable}=' * bool(variable)}{place}: {reason}" for variable, place, reason in reasons)
    raise ResourceError(
        f"Ray needs a folder with a short path and {_ENOUGH_BYTES >> 20} MB of room, and there is none ({places}); "
        "free some space or set RAY_TMPDIR to such a folder."
    )


def _try(folder: Path) -> None:
    (folder / "room").write_bytes(bytes(_ENOUGH_BYTES))
    (folder / "room").unlink()
    name = folder / ("s" * len(_LONGEST_SOCKET))
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.bind(str(name))
    name.unlink()


def _remove(folder: Path) -> None:
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _remove_leftovers(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            status = lock.parent.stat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _LEFT_SECONDS:
                continue
            owner = Lock(lock)
            if owner.acquire():
                shutil.rmtree(lock.parent, ignore_errors=True)
                owner.release()
