"""Detection of features that a folder's file system lacks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ladder_search.disk.files import sync_folder
from ladder_search.disk.lock import Lock

LOCKS, LINKS, SYNC = "file locks", "symbolic links", "fsync of folders"
CONSEQUENCES = {
    LOCKS: "a file replaces each lock; delete it by hand after a machine was lost",
    LINKS: "no part of a search needs them",
    SYNC: "a power cut may destroy the files of the last seconds",
}


def lacking(folder: Path) -> list[str]:
    """Return the keys of ``CONSEQUENCES`` that the file system of ``folder`` lacks. Raises ``OSError``."""
    with tempfile.TemporaryDirectory(prefix=".ladder-search-", dir=folder) as name:
        place = Path(name)
        lock = Lock(place / "lock")
        lock.acquire()
        lock.release()
        missing = [LOCKS] if lock.is_soft else []
        try:
            os.symlink("lock", place / "link")
        except OSError:
            missing.append(LINKS)
        return missing if sync_folder(place) else [*missing, SYNC]
