"""Write a folder whole or not at all, or hold it while others may want to write there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ladder_search.disk.files import sync_file, sync_folder
from ladder_search.disk.lock import LOCK, LOCK_FILES, hold, let_go
from ladder_search.errors import StudyFolderError

PROGRESS = "progress"
"""In the folder of a final training: what is not finished."""


def write_folder(folder: Path, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Put a folder with these files at ``folder``; readers see no folder (or the old one) until it is whole.

    The files go into ``.<name>.<random>.tmp`` beside it, which is then renamed; it is removed when anything fails, an
    interrupt included.

    Args:
        files: name -> content.
        replace: take the place of a folder there that holds nothing but files of these names.

    Raises:
        StudyFolderError: something is there already, or the place cannot be written, or the disk is full.
    """
    folder = folder.absolute()
    _check_free(folder, frozenset(files), replace)
    mark = secrets.token_hex(6)
    temporary, old = folder.parent / f".{folder.name}.{mark}.tmp", folder.parent / f".{folder.name}.{mark}.old"
    try:
        try:
            temporary.mkdir(parents=True)
            for name, content in files.items():
                _write(temporary / name, content)
            sync_folder(temporary)
            _put_in_place(temporary, folder, old)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise taken(folder) from error
        raise unwritable(folder, error) from error
    shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):  # the folder is whole and in place; only a power cut could still undo that
        sync_folder(folder.parent)


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


def unwritable(folder: Path, error: OSError) -> StudyFolderError:
    """Return the error for a folder that could not be written; the message says that nothing was left behind."""
    reason = error.strerror or str(error)
    return StudyFolderError(
        f"{folder} must be writable and its disk have space, found: {reason}; nothing was written, make room or choose "
        "another place."
    )


def taken(folder: Path) -> StudyFolderError:
    """Return the error for a place where something is already."""
    return StudyFolderError(
        f"an existing folder is never overwritten and {folder} exists; choose another place, or force it."
    )


def _check_free(folder: Path, names: frozenset[str], replace: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not replace:
        raise taken(folder)
    if folder.is_symlink() or not folder.is_dir():
        raise StudyFolderError(f"only a folder is replaced and {folder} is none; choose another place or delete it.")
    try:
        strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in names)
    except OSError as error:
        raise unwritable(folder, error) from error
    if strange:
        raise StudyFolderError(
            f"only a folder of the same kind is replaced and {folder} also holds {strange[0]!r}; choose another place "
            "or delete it."
        )


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        sync_file(file.fileno())


def _put_in_place(temporary: Path, folder: Path, old: Path) -> None:
    if not folder.exists():
        os.rename(temporary, folder)
        return
    os.rename(folder, old)
    try:
        os.rename(temporary, folder)
    except BaseException:
        os.rename(old, folder)
        raise
