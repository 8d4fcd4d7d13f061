"""Write a file, or a line of one, whole or not at all. The umask decides the modes of new files."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What ``fsync`` fails with where a file system has none (some of FUSE)."""
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}
"""What the ``fsync`` of a folder, or opening it for one, fails with where a file system has none (exFAT, SMB)."""


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object], *, sync: bool = True) -> None:
    """Write a file, whole or not at all; readers see the old file or the new one.

    The temporary file is ``.<name>.<random>.tmp``, which an error or an interrupt removes.

    Args:
        content: the bytes, or a function that writes them into an open file.
        sync: wait until the disk has them.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            if sync:
                file.flush()
                sync_file(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of ``path`` left behind when they were killed. Only while no other writer can be at work."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> bool:
    """Let the names in a folder survive a power cut; return False where the file system cannot do that.

    Raises:
        OSError: the disk refuses.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        return False
    return True


def sync_file(handle: int) -> None:
    """Wait until the disk has what was written to a file; a file system that cannot wait is no error.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def copy_content(source: Path, target: Path) -> None:
    """Copy a file, or a folder into one that may exist, without permissions and times, which some disks refuse to set.

    Raises:
        OSError: the disk refuses the content.
    """
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        copy_content(path, target / path.name)


def append_line(path: Path, line: bytes, *, wait: bool = False) -> None:
    """Append to a file, whole or not at all; ``wait`` until the disk has it.

    Raises:
        OSError: the disk refuses.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size, written = os.fstat(handle).st_size, 0
        try:
            while written < len(line):
                written += os.write(handle, line[written:])
            if wait:
                sync_file(handle)
        except OSError:
            os.ftruncate(handle, size)  # shrinking works on a full disk
            raise
    finally:
        os.close(handle)
