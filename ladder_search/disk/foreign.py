"""Read files that anyone may have written: no pipe or device, of a limited size, JSON without surprises."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

DEPTH_LIMIT = 50
"""Of nested lists and objects; ours have below 10, and what walks through more may exhaust Python's stack."""


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of the regular file ``path``, of at most ``limit`` bytes.

    Raises:
        OSError: it is absent, unreadable, longer, or no regular file (a pipe would wait for ever).
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path.name)
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"{found.st_size} bytes are more than the {limit} it may have", path.name)
        with open(handle, "rb", closefd=False) as file:
            return file.read(found.st_size)  # not the limit, for which room would be made
    finally:
        os.close(handle)


def parse_json(content: bytes) -> Any:
    """Return what JSON text holds.

    Raises:
        ValueError: it is no JSON, nested too deeply, or holds text that no file or terminal can show.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"it must be nested at most {DEPTH_LIMIT} levels deep") from None
    check_depth(found)
    if b"\\ud" in content.lower():  # half of a character, which json lets through
        json.dumps(found, ensure_ascii=False).encode()
    return found


def read_json(path: Path, limit: int) -> Any:
    """Return what the regular file ``path``, of at most ``limit`` bytes, holds as JSON.

    Raises:
        OSError, ValueError: see ``read_file`` and ``parse_json``.
    """
    return parse_json(read_file(path, limit))


def check_depth(value: Any) -> None:
    """Raise ``ValueError`` where plain lists and mappings are nested too deeply."""
    here = [value]
    for _ in range(DEPTH_LIMIT):
        inner = [item.values() if isinstance(item, dict) else item for item in here if isinstance(item, (dict, list))]
        here = [item for items in inner for item in items]
        if not here:
            return
    raise ValueError(f"it must be nested at most {DEPTH_LIMIT} levels deep")
