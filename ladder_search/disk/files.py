"""Atomic writing of files and lines. The umask determines the modes of new files."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors of ``fsync`` on file systems without it (some of FUSE)."""
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}
"""Errors of the ``fsync`` of a folder, or of opening it, on file systems without it (exFAT, SMB)."""


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object], *, sync: bool = True) -> None:
    """Write a file atomically: readers see the old file or the new one.

    The temporary file ``.<name>.<random>.tmp`` is removed after an error or interrupt.

    Args:
        content: the bytes, or a function that writes them into an open file.
        sync: wait until the data is on disk.

    Raises ``OSError`` if the folder cannot be created or written, or the disk is full.
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
    """Remove temporary files of killed writers of ``path``. Only safe while no other writer is active."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> bool:
    """Make the names in a folder durable; return False if the file system does not support that. Raises ``OSError``."""
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
    """Wait until a file's data is on disk, if the file system supports that. Raises ``OSError``."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def copy_content(source: Path, target: Path) -> None:
    """Copy a file, or a folder into a possibly existing one, without modes and times, which some disks cannot set."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        copy_content(path, target / path.name)


def append_line(path: Path, line: bytes, *, wait: bool = False) -> None:
    """Append to a file atomically; ``wait`` until the data is on disk. Raises ``OSError``."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size, written = os.fstat(handle).st_size, 0
        try:
            while written < len(line):
                written += os.write(handle, line[written:])
            if wait:
                sync_file(handle)
        except OSError:
            os.ftruncate(handle, size)  # works on a full disk
            raise
    finally:
        os.close(handle)
