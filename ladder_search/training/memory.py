"""Lack of memory, which every library reports in words of its own."""

from __future__ import annotations

import re

import torch

_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|ALLOC_FAILED|size calculation overflowed")
_AMOUNT = re.compile(r"(?:ried|nable) to allocate ([\d.]+ [A-Za-z]+)")


def out_of_memory(error: Exception) -> str | None:
    """Return in a few words what could not be allocated; None: the error is another one."""
    text = str(error)
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _NO_MEMORY.search(text):
        return None
    amount = _AMOUNT.search(text)
    return f"out of memory: {amount[1] if amount else 'what it needs'} could not be allocated"
