"""The folder of a final training, held while one process writes there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ladder_search.disk.folders import unwritable
from ladder_search.disk.lock import LOCK, LOCK_FILES, hold, let_go
from ladder_search.errors import StudyFolderError

PROGRESS = "progress"
"""In the folder of a final training: what is not finished."""


@contextmanager
def held(folder: Path, *, timeout: float = 0.0, brief: bool = False) -> Iterator[None]:
    """Make the folder of a final training, or of several, and hold it; one in which nothing was begun is removed again.

    Args:
        timeout: seconds to wait for another process.
        brief: nothing is trained there, so that a lock's file goes where there was none before.

    Raises:
        StudyFolderError: another process holds it, or it cannot be written.
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
    """Whether not even the first file could be written."""
    try:
        return set(os.listdir(folder)) <= LOCK_FILES
    except OSError:
        return False
