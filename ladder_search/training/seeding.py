"""Randomness as a function: every draw of a member derives from its seed, the draw's purpose and the step.

A member therefore draws the same numbers alone, in a pack, after a checkpoint and on another machine.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ladder_search.data.hashing import GAMMA, MIXERS, SHIFTS, mixed

# Purposes of draws; part of the derived seed, so that no two purposes share a stream.
INITIAL_WEIGHTS = 1
NOISE = 2
DISTURBANCE = 3
PROBE = 4


def derive(seed: int, *path: int) -> int:
    """Return a 63-bit seed for ``path`` below ``seed``, mixed with SplitMix64's finaliser."""
    return mixed(seed, path) >> 1


def derive_range(seed: int, *path: int, start: int, count: int) -> NDArray[np.int64]:
    """Return ``derive(seed, *path, start + i)`` for i = 0 .. count-1: int64 [count]."""
    parts = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = parts * np.uint64(GAMMA) + np.uint64(mixed(seed, path))
    for shift, mixer in zip(SHIFTS, MIXERS, strict=True):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(mixer)
    return (z >> np.uint64(1)).astype(np.int64)


def generator(seed: int, *path: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *path))
