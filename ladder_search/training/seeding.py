"""Randomness as a function: every draw of a member derives from (its seed, what the draw is for, the step).

Nothing here reads or moves a global stream, so a member draws the same numbers alone, in a pack, after a checkpoint
and on another machine of the same device kind.
"""

from __future__ import annotations

import torch
from torch import Tensor

# What a draw is for; part of the derived seed, so that no two purposes share a stream.
INITIAL_WEIGHTS = 1
NOISE = 2

_MASK = (1 << 64) - 1


def derive(seed: int, *path: int) -> int:
    """Return a 63-bit seed for ``path`` below ``seed``; SplitMix64's finaliser mixes each part in."""
    state = seed & _MASK
    for part in path:
        state = (state + 0x9E3779B97F4A7C15 * ((part & _MASK) + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def generator(seed: int, *path: int) -> torch.Generator:
    """Return a CPU generator that stands at the start of the stream (seed, path)."""
    return torch.Generator().manual_seed(derive(seed, *path))


class NoiseSource:
    """Standard normal draws of one member, step by step: the draws of a step depend on (seed, step) alone."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._generator = torch.Generator(device=device)

    def fill(self, out: Tensor, step: int) -> None:
        """Fill ``out``, a contiguous vector, with the draws of ``step``."""
        self._generator.manual_seed(derive(self._seed, NOISE, step))
        out.normal_(generator=self._generator)
