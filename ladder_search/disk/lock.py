"""The lock of the project: one process at a time, and free again when that process has ended, however it ends.

The kernel keeps it, as ``flock`` on a file. Some mounts of NFS, Lustre and SMB have no such locks. There a second file,
``.NAME.held``, is the lock: it names the process and its machine, and a process of the same machine removes it once
that process is gone. After a machine was lost, the file has to be removed by hand.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import SoftFileLock

LOCK = "lock"
"""Name of the lock's file in a folder that is held as a whole."""
LOCK_FILES = frozenset({LOCK, f".{LOCK}.held"})
"""All files of that lock."""

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
_POLL_SECONDS = 0.05
_SOFT_SECONDS = 1.0
"""How long one attempt takes where a file is the lock: a dead process's file is removed first, then the lock taken."""


class Lock:
    """An exclusive lock on the file ``path``.

    States::

        lock = Lock(path)   -> nothing is touched
        lock.acquire()      -> True: it is ours; False: another process has it
        lock.release()      -> free; the file stays, or is removed
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_soft = False
        """Whether, for want of the kernel's locks, a file is the lock."""
        self._handle: int | None = None
        self._soft: SoftFileLock | None = None

    def acquire(self, timeout: float | None = 0.0) -> bool:
        """Take the lock and return whether it is ours; wait for it at most ``timeout`` seconds, None: without limit.

        Raises:
            OSError: the file cannot be made or written.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._handle is None:
            if self._attempt():
                break
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self, *, remove: bool = False) -> None:
        """Let others have the lock; ``remove`` its file first, so that whoever waits for that one looks again."""
        if self._handle is None:
            return
        with suppress(OSError):  # a file that stays is as it was before
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
        """Return the process id of the holder, or of one that was killed, or ``?``."""
        try:
            return self.path.read_text(encoding="ascii").strip() or "?"
        except (OSError, ValueError):
            return "?"

    @property
    def note(self) -> str:
        """One sentence where a file is the lock, else nothing."""
        if not self.is_soft:
            return ""
        return (
            f"{self.path.parent} is on a file system without file locks; the file {_held(self.path).name} takes their "
            "place, and is to be deleted by hand if a machine that used the folder was lost."
        )

    def _attempt(self) -> bool:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            taken = self._take(handle) and self._is_seen(handle)
            if taken:
                self._handle = handle
                with suppress(OSError):  # a full disk may refuse the number, the lock holds all the same
                    os.ftruncate(handle, 0)
                    os.write(handle, str(os.getpid()).encode())
            return taken
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
        from filelock import SoftFileLock, Timeout  # here, because few file systems need it

        self.is_soft = True
        soft = SoftFileLock(_held(self.path), thread_local=False)
        try:
            soft.acquire(timeout=_SOFT_SECONDS)
        except Timeout:
            return False
        self._soft = soft
        return True

    def _is_seen(self, handle: int) -> bool:
        """Whether others still find the file: one that was removed holds nothing, as they would make another."""
        try:
            return self.path.stat().st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            return False


def _held(path: Path) -> Path:
    return path.with_name(f".{path.name}.held")


def hold(folder: Path, *, timeout: float = 0.0) -> Lock:
    """Make the folder and hold it as a whole; return the lock for ``let_go``.

    Args:
        timeout: seconds to wait for another process.

    Raises:
        BlockingIOError: another process holds the folder, or gave it up at this moment.
        OSError: the folder cannot be made or written; then one that was made for it is removed again.
    """
    is_new = not folder.exists()
    lock, deadline = Lock(folder / LOCK), time.monotonic() + timeout
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if lock.acquire():
                return lock
        except FileNotFoundError:
            pass  # whoever had the folder has just removed it, as nothing was begun in it
        except OSError:
            if is_new:
                with suppress(OSError):
                    folder.rmdir()
            raise
        if time.monotonic() >= deadline:
            raise BlockingIOError(f"{folder} is held by process {lock.holder()}")
        time.sleep(_POLL_SECONDS)


def let_go(lock: Lock, *, unused: bool) -> None:
    """Let others hold the folder.

    Args:
        lock: what ``hold`` returned.
        unused: nothing was begun in the folder, so the lock's files go, and the folder where nothing else is in it.
    """
    lock.release(remove=unused)
    if unused:
        with suppress(OSError):  # something else is in it
            lock.path.parent.rmdir()
