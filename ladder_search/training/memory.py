"""Memory of a process that trains: how its lack is told, and how its pages are kept."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress

import torch

_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|ALLOC_FAILED|size calculation overflowed")
LARGE_BLOCK = 1 << 25
"""Bytes from which glibc asks the system for a block, however often it is needed; below, it learns to keep them."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt, from malloc.h

_AMOUNT = re.compile(r"(?:ried|nable) to allocate ([\d.]+ [A-Za-z]+)")


def out_of_memory(error: Exception) -> str | None:
    """Return in a few words what could not be allocated; None: the error is another one."""
    text = str(error)
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _NO_MEMORY.search(text):
        return None
    amount = _AMOUNT.search(text)
    return f"out of memory: {amount[1] if amount else 'what it needs'} could not be allocated"


def keep_large_blocks() -> None:
    """Let this process keep freed memory of any size for its next request, on Linux; elsewhere nothing happens.

    A block above 32 MiB is otherwise a fresh one every time, and each of its pages is cleared when it is first touched.
    A step of the Conv-Small network on 100+100 MNIST rows takes 0.73 s of a core then, and 0.44 s so:
    ``benchmarks/step.py``.
    """
    with suppress(OSError, AttributeError, TypeError):
        c = ctypes.CDLL(None)
        c.mallopt(_MMAP_MAX, 0)
        c.mallopt(_TRIM_THRESHOLD, -1)
