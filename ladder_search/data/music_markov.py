"""The Markov model of music, a baseline: the probability of each note given its own last value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.music import KEYS, Piece

SMOOTHING = 0.5
"""Added to the count of every outcome, so that notes missing from the training pieces have a finite cost."""


def markov(pieces: Sequence[Piece]) -> Tensor:
    """Return the logits of each note given its own last value, 0 or 1, in ``pieces``: float64 (2, 88)."""
    on, off = np.zeros((2, KEYS), np.int64), np.zeros((2, KEYS), np.int64)
    for piece in pieces:
        before, now = piece[:-1].astype(bool), piece[1:].astype(bool)
        for value, mask in enumerate((~before, before)):
            on[value] += (mask & now).sum(0)
            off[value] += (mask & ~now).sum(0)
    return smoothed_logits(on, off)


def smoothed_logits(on: NDArray[np.int64], off: NDArray[np.int64]) -> Tensor:
    """Return log(p / (1 - p)) of counted outcomes."""
    return torch.from_numpy(np.log(on + SMOOTHING) - np.log(off + SMOOTHING))
