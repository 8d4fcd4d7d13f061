"""The locked folder of a final training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ladder_search.disk.folders import unwritable
from ladder_search.disk.lock import LOCK, LOCK_FILES, hold, let_go
from ladder_search.errors import StudyFolderError

PROGRESS = "progress"
"""Subfolder of an unfinished training."""


@contextmanager
def held(folder: Path, *, timeout: float = 0.0, brief: bool = False) -> Iterator[None]:
    """Create and lock the folder of final trainings, waiting up to ``timeout`` seconds; remove it on exit if it is
    unused.

    ``brief`` means that nothing is trained meanwhile: a lock file that did not exist before is removed. Raise
    ``StudyFolderError`` if another process holds the folder, or it cannot be written.
    """
    was_there = (folder / LOCK).exists()
    try:
        lock = hold(folder, timeout=timeout)
    except BlockingIOError as error:
        raise StudyFolderError(
            f"one final training at a time may use a folder and {folder} is in use; wait for it or choose another."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        if not brief:
            with suppress(OSError):
                (folder / PROGRESS).rmdir()
        let_go(lock, unused=_is_unused(folder) or (brief and not was_there))


def _is_unused(folder: Path) -> bool:
    """Return whether the folder contains nothing but lock files."""
    try:
        return set(os.listdir(folder)) <= LOCK_FILES
    except OSError:
        return False
