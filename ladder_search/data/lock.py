"""A folder that one process at a time may use, by the lock on a file in it; it is free when that process has ended."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

LOCK = "lock"
"""Name of that file."""


def hold(folder: Path) -> int:
    """Make the folder and hold it; return the handle for ``let_go``.

    Raises:
        BlockingIOError: another process holds the folder, or gave it up at this moment.
        OSError: the folder cannot be made or written, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_seen(folder / LOCK, handle):
            raise BlockingIOError(f"the lock of {folder} was removed")
    except OSError:
        os.close(handle)
        raise
    return handle


def let_go(folder: Path, handle: int, *, unused: bool) -> None:
    """Let others hold the folder.

    Args:
        handle: what ``hold`` returned.
        unused: nothing was begun in the folder, so the lock's file goes, and the folder where nothing else is in it.
    """
    if unused:
        with suppress(OSError):  # something else is in it
            (folder / LOCK).unlink()
            folder.rmdir()
    os.close(handle)


def _is_seen(path: Path, handle: int) -> bool:
    """Whether others still find the file at ``path``: one that was let go as unused is there no longer."""
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
