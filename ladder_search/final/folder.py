"""The locked folder of a final training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ladder_search.disk.folders import unwritable
from ladder_search.disk.lock import LOCK_FILES, hold, let_go
from ladder_search.errors import StudyFolderError

PROGRESS = "progress"
"""Subfolder of an unfinished training."""


@contextmanager
def held(folder: Path, *, timeout: float = 0.0) -> Iterator[None]:
    """Create and lock the folder of final trainings, waiting up to ``timeout`` seconds; remove it on exit if it is
    unused. Raise ``StudyFolderError`` if another process holds the folder, or it cannot be written.
    """
    try:
        lock = hold(folder, timeout=timeout)
    except BlockingIOError as error:
        raise StudyFolderError(
            f"one final training at a time may use a folder and {folder} is in use; wait for it or choose another."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    unused = False
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / PROGRESS).rmdir()
        with suppress(OSError):
            unused = set(os.listdir(folder)) <= LOCK_FILES
        let_go(lock, unused=unused)
