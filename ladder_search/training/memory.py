"""Memory of a training process: detection of out-of-memory errors, and reuse of freed blocks."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress

import torch

_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|ALLOC_FAILED|size calculation overflowed")
LARGE_BLOCK = 1 << 25
"""Largest size in bytes whose freed blocks glibc learns to keep; larger blocks are requested from the system anew."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt, from malloc.h

_AMOUNT = re.compile(r"(?:ried|nable) to allocate ([\d.]+ [A-Za-z]+)")


def out_of_memory(error: Exception) -> str | None:
    """Return a short message with the amount that could not be allocated; None for any other error."""
    text = str(error)
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _NO_MEMORY.search(text):
        return None
    amount = _AMOUNT.search(text)
    return f"out of memory: {amount[1] if amount else 'the required amount'} could not be allocated"


def keep_large_blocks() -> None:
    """Let this process reuse freed memory of any size on Linux; do nothing on other systems.

    By default a block above 32 MiB is new each time, and its pages are cleared on first access. A step of Conv-Small
    on 100+100 MNIST rows then takes 0.73 s of a core instead of 0.44 s (``benchmarks/step.py``).
    """
    with suppress(OSError, AttributeError, TypeError):
        c = ctypes.CDLL(None)
        c.mallopt(_MMAP_MAX, 0)
        c.mallopt(_TRIM_THRESHOLD, -1)
