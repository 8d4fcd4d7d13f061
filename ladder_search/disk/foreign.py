"""Safe reading of files of unknown origin: regular files of limited size, and valid JSON."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

DEPTH_LIMIT = 50
"""Maximum depth of lists and objects, which need less than 10; deeper ones may exhaust Python's stack."""


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of the regular file ``path``, of at most ``limit`` bytes; raise ``OSError`` if it is missing,
    unreadable, longer, or not a regular file (a pipe would block)."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path.name)
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes are more than the {limit} it may have", path.name)
        with open(handle, "rb", closefd=False) as file:
            return file.read(status.st_size)  # read(limit) would allocate the limit
    finally:
        os.close(handle)


def parse_json(content: bytes) -> Any:
    """Parse JSON; raise ``ValueError`` if it is invalid, too deeply nested, or contains lone surrogates."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"it must be nested at most {DEPTH_LIMIT} levels deep") from None
    check_depth(value)
    if b"\\ud" in content.lower():  # json accepts lone surrogates
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json(path: Path, limit: int) -> Any:
    """Return the JSON content of a file; raise ``OSError`` or ``ValueError`` as ``read_file`` and ``parse_json`` do."""
    return parse_json(read_file(path, limit))


def check_depth(value: Any) -> None:
    """Raise ``ValueError`` if plain lists and mappings are nested too deeply."""
    here = [value]
    for _ in range(DEPTH_LIMIT):
        inner = [item.values() if isinstance(item, dict) else item for item in here if isinstance(item, (dict, list))]
        here = [item for items in inner for item in items]
        if not here:
            return
    raise ValueError(f"it must be nested at most {DEPTH_LIMIT} levels deep")
