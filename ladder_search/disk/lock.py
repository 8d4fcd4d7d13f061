"""A lock for one process at a time, released whenever that process ends.

It is a ``flock`` on a file. On mounts of NFS, Lustre and SMB without such locks, a second file ``.NAME.held`` is the
lock: it contains process and machine, and processes of the same machine remove it once that process is gone. If the
machine is lost, the file must be removed manually.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported only where a file system has no locks
    from filelock import SoftFileLock

LOCK = "lock"
LOCK_FILES = frozenset({LOCK, f".{LOCK}.held"})

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
_POLL_SECONDS = 0.05
_SOFT_SECONDS = 1.0
"""Duration of one attempt with a lock file: that of a dead process is removed first, then the lock is taken."""


class Lock:
    """An exclusive lock on the file ``path``, which ``acquire`` creates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_soft = False
        """Whether a file is the lock, because the file system has no ``flock``."""
        self.created: list[Path] = []
        """Folders that ``hold`` has created, the innermost first."""
        self._handle: int | None = None
        self._soft: SoftFileLock | None = None

    def acquire(self, timeout: float | None = 0.0) -> bool:
        """Acquire the lock within ``timeout`` seconds (None: without limit); return whether it is held. Raise
        ``OSError`` if the file cannot be created or written."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._handle is None:
            if self._attempt():
                break
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; with ``remove``, delete its file first, so that waiting processes notice."""
        if self._handle is None:
            return
        with suppress(OSError):  # the file may keep its old content
            os.ftruncate(self._handle, 0)
        if remove:
            with suppress(OSError):
                self.path.unlink()
        if self._soft is not None:
            with suppress(OSError):
                self._soft.release()
            self._soft = None
        os.close(self._handle)
        self._handle = None

    def holder(self) -> str:
        """Return the process id of the last holder, or ``?``."""
        try:
            return self.path.read_text(encoding="ascii").strip() or "?"
        except (OSError, ValueError):
            return "?"

    @property
    def note(self) -> str:
        """A sentence if a file is the lock, otherwise empty."""
        if not self.is_soft:
            return ""
        return (
            f"{self.path.parent} is on a file system without file locks; the file {_held(self.path).name} takes their "
            "place, and is to be deleted by hand if a machine that used the folder was lost."
        )

    def _attempt(self) -> bool:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            locked = self._take(handle) and self._is_seen(handle)
            if locked:
                self._handle = handle
                with suppress(OSError):  # a full disk may refuse the number, but the lock holds
                    os.ftruncate(handle, 0)
                    os.write(handle, str(os.getpid()).encode())
            return locked
        finally:
            if self._handle is None:
                os.close(handle)
                if self._soft is not None:
                    self._soft.release()
                    self._soft = None

    def _take(self, handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return False
            if error.errno not in _NO_LOCKS:
                raise
            return self._take_softly()
        return True

    def _take_softly(self) -> bool:
        from filelock import SoftFileLock, Timeout  # few file systems need it

        self.is_soft = True
        soft = SoftFileLock(_held(self.path), thread_local=False)
        try:
            soft.acquire(timeout=_SOFT_SECONDS)
        except Timeout:
            return False
        self._soft = soft
        return True

    def _is_seen(self, handle: int) -> bool:
        """Whether the path still refers to the file; a lock on a removed file is void."""
        try:
            return self.path.stat().st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            return False


def _held(path: Path) -> Path:
    return path.with_name(f".{path.name}.held")


def hold(folder: Path, *, timeout: float = 0.0) -> Lock:
    """Create the folder and lock it; return the lock for ``let_go``.

    Raises:
        BlockingIOError: another process holds the folder after ``timeout`` seconds, or has just released it.
        OSError: the folder cannot be created or written; new ones are removed again.
    """
    lock, deadline = Lock(folder / LOCK), time.monotonic() + timeout
    lock.created = [place for place in (folder, *folder.parents) if not place.exists()]
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has just removed the unused folder
                if lock.acquire():
                    return lock
        except OSError:
            _remove_empty(lock.created)
            raise
        if time.monotonic() >= deadline:
            raise BlockingIOError(f"{folder} is held by process {lock.holder()}")
        time.sleep(_POLL_SECONDS)


def let_go(lock: Lock, *, unused: bool) -> None:
    """Release the lock of a folder.

    ``unused``: also remove the lock files, the folder, and those above it that ``hold`` has created, if they are empty.
    """
    lock.release(remove=unused)
    if unused:
        _remove_empty([lock.path.parent, *lock.created[1:]])


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    with suppress(OSError):  # the first one with contents ends it
        for folder in folders:
            folder.rmdir()
