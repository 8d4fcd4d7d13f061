"""Atomic writing of folders."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ladder_search.disk.files import sync_file, sync_folder
from ladder_search.errors import StudyFolderError


def write_folder(folder: Path, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Write a folder atomically: readers see no folder, or the old one, until it is complete.

    The files are written to ``.<name>.<random>.tmp``, which is renamed, or removed after an error or interrupt.

    Args:
        files: name -> content.
        replace: replace a folder that contains only files of these names.

    Raises ``StudyFolderError`` if ``folder`` exists or cannot be written.
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
    with suppress(OSError):  # the folder is complete; only a power failure could still undo that
        sync_folder(folder.parent)


def unwritable(folder: Path, error: OSError) -> StudyFolderError:
    reason = error.strerror or str(error)
    return StudyFolderError(
        f"{folder} must be writable and its disk have space, found: {reason}; nothing was written, make room or choose "
        "another place."
    )


def taken(folder: Path) -> StudyFolderError:
    return StudyFolderError(f"an existing folder is never overwritten, and {folder} exists; choose another place.")


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
