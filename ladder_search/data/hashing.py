"""SplitMix64, the hash behind all random numbers that need no generator.

The state grows by GAMMA, and each state is mixed into a word by three rounds of "xor with itself shifted right,
multiply" (Steele, Lea and Flood 2014): integer arithmetic, exact on every device.
"""

from __future__ import annotations

from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
SHIFTS = (30, 27, 31)
MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 1)

_MASK = (1 << 64) - 1


def mixed(seed: int, path: tuple[int, ...]) -> int:
    """Return the 64-bit word for ``path`` under ``seed``: each part is added to the state, which is then mixed."""
    state = seed & _MASK
    for part in path:
        state = (state + GAMMA * ((part & _MASK) + 1)) & _MASK
        for shift, mixer in zip(SHIFTS, MIXERS, strict=True):
            state = ((state ^ (state >> shift)) * mixer) & _MASK
    return state


def finalise(z: Tensor) -> Tensor:
    """Mix states into words: int64 -> int64, 64 bits as a signed number."""
    for shift, mixer in zip(SHIFTS, MIXERS, strict=True):
        # `>>` of a signed number copies its sign bit; the mask removes the copies.
        z = z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))
        if mixer != 1:
            z = z * signed(mixer)
    return z


def signed(word: int) -> int:
    """Return a 64-bit word as a signed number, for tensors."""
    return word - 2**64 if word >= 2**63 else word
