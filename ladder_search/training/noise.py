"""Gaussian noise as a pure function of (seed, step, index), without generator or state, equal on all devices.

Each (seed, step) has a key. SplitMix64, started at the key, yields 64-bit words; the Box-Muller transform turns the two
24-bit uniform numbers of a word into two normal ones. The hash is exact; logarithm, sine and cosine may differ by a
rounding between devices and programs. ``normals`` can be fused into the step by the compiler; ``fill_normals`` works in
place on a CPU, three times as fast as ``normals`` there.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.hashing import GAMMA, MIXERS, SHIFTS, finalise, signed
from ladder_search.training.seeding import NOISE, derive_range

_UNIFORM_BITS = 24  # exact in float32; the largest draw is sqrt(2 * 24 * ln 2) = 5.77
_UNIT = 2.0**-_UNIFORM_BITS
_LOW_BITS = (1 << _UNIFORM_BITS) - 1
# Large enough to amortise the overhead of a call, small enough for all buffers to stay in a core's cache.
_WORDS_AT_ONCE = 1 << 15


def noise_keys(seed: int, start: int, steps: int) -> NDArray[np.int64]:
    """Return the keys of steps ``start .. start+steps-1`` of the member with ``seed``: int64 [steps]."""
    return derive_range(seed, NOISE, start=start, count=steps)


def counters(size: int, device: torch.device) -> Tensor:
    """Return the increments of SplitMix64 for the words of ``size`` draws: int64 (words,).

    They are stored rather than computed in the program: a C++ compiler may assume that multiples of a large signed
    number do not overflow, and then shorten loops or run past their end.
    """
    return torch.arange(1, -(-size // 2) + 1, device=device) * signed(GAMMA)


def normals(keys: Tensor, counters: Tensor, size: int) -> Tensor:
    """Return ``size`` draws per key: int64 (K,) -> float32 (K, size); ``counters`` are those of ``size``."""
    z = finalise(keys.unsqueeze(-1) + counters)
    radius = (-2.0 * torch.log((((z >> 40) & _LOW_BITS) + 1).float() * _UNIT)).sqrt()
    angle = ((z >> 8) & _LOW_BITS).float() * (2.0 * math.pi * _UNIT)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[:, :size]


def fill_normals(out: Tensor, key: int) -> None:
    """Fill ``out``, a vector on the CPU, with the draws of ``key``; float64 vectors get the float32 numbers."""
    half = -(-len(out) // 2)
    if not half:
        return
    count = min(half, _WORDS_AT_ONCE)
    steps, words, part, floats = _scratch(count, threading.get_ident())
    for begin in range(0, half, count):
        n = min(count, half - begin)
        z, t = words[:n], part[:n]
        radius, angle, product = floats[:, :n]
        np.add(steps[:n], np.uint64((key + begin * GAMMA) % 2**64), out=z)
        for shift, mixer in zip(SHIFTS, MIXERS, strict=True):
            np.bitwise_xor(z, np.right_shift(z, np.uint64(shift), out=t), out=z)
            if mixer != 1:
                np.multiply(z, np.uint64(mixer), out=z)
        radius.copy_(torch.from_numpy(np.right_shift(z, np.uint64(40), out=t).view(np.int64)))
        np.bitwise_and(np.right_shift(z, np.uint64(8), out=t), np.uint64(_LOW_BITS), out=t)
        angle.copy_(torch.from_numpy(t.view(np.int64)))
        radius.add_(1.0).mul_(_UNIT).log_().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi * _UNIT)
        torch.mul(torch.cos(angle, out=product), radius, out=out[begin : begin + n])
        second = out[half + begin : half + begin + n]  # one shorter at the end of an odd size
        torch.mul(torch.sin(angle, out=product)[: len(second)], radius[: len(second)], out=second)


@lru_cache(maxsize=8)
def _scratch(count: int, thread: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], Tensor]:
    """Return multiples of gamma and a thread's workspace, cached: new memory would be paged in at every step."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
    words, part = np.empty((2, count), np.uint64)
    return steps, words, part, torch.empty((3, count))
