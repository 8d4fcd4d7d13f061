"""The negative log-likelihood of music, as papers count it, and two marginal models that a network must beat.

A model gives each of the 88 notes of a step a probability of its own. The nats of a step are summed over the notes, the
steps of all pieces are summed, and the sum is divided by the number of steps. (The mean of the pieces' own means is
another number: 11.39 for the notes' frequencies on Piano-midi.de, where this convention gives the published 11.05.)

Whether a piece's first step counts is a choice of the caller. The notes' frequencies are scored on every step, as
Boulanger-Lewandowski et al. 2012 do. The code of Bai et al. 2018 predicts steps 2..T from steps 1..T-1 and leaves the
first out; so does the Markov model, which knows nothing before it. That makes 0.01 to 0.03 nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.data.music import KEYS, Piece
from ladder_search.data.music_markov import markov, smoothed_logits


def step_nats(logits: Tensor, notes: Tensor) -> Tensor:
    """Return what each step costs, summed over its notes.

    Args:
        logits: log(p / (1 - p)) of every note, (..., 88).
        notes: 0 or 1, of a type that converts to that of ``logits``, (..., 88).

    Returns:
        Nats, (...). Without information (every logit 0) a step costs 88 ln 2 = 61.0.
    """
    return functional.binary_cross_entropy_with_logits(logits, notes.to(logits.dtype), reduction="none").sum(-1)


def scored(logits: Tensor, notes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of nats over the steps of ``mask`` and their number, for sums over batches.

    The corpus's NLL is the sum of the first over the sum of the second. Steps outside the mask add nothing.

    Args:
        logits, notes: (..., 88).
        mask: bool (...), True where a step counts.
    """
    nats = torch.where(mask, step_nats(logits, notes).double(), 0.0)
    return nats.sum(), mask.sum()


def pooled_nll(pieces: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the NLL per step, pooled over pieces.

    Args:
        pieces: logits and notes of each piece's scored steps, (T, 88) both.
    """
    total, steps = 0.0, 0
    for logits, notes in pieces:
        nats = step_nats(logits, notes)
        total += float(nats.double().sum())
        steps += nats.numel()
    return total / steps


def unigram(pieces: Sequence[Piece]) -> Tensor:
    """Return the logits of the notes' own frequencies in ``pieces``: float64 (88,)."""
    on = sum((piece.sum(0, dtype=np.int64) for piece in pieces), np.zeros(KEYS, np.int64))
    return smoothed_logits(on, sum(map(len, pieces)) - on)


def unigram_nll(train: Sequence[Piece], pieces: Sequence[Piece]) -> float:
    """Return the NLL of ``pieces`` by the frequencies of ``train``, on every step."""
    logits = unigram(train)
    return pooled_nll((logits.expand(len(piece), KEYS), _tensor(piece)) for piece in pieces)


def markov_nll(train: Sequence[Piece], pieces: Sequence[Piece]) -> float:
    """Return the NLL of ``pieces`` by the Markov model of ``train``, on every step but each piece's first."""
    logits = markov(train)
    rolls = (_tensor(piece) for piece in pieces)
    return pooled_nll((torch.where(roll[:-1] > 0, logits[1], logits[0]), roll[1:]) for roll in rolls)


def _tensor(piece: Piece) -> Tensor:
    return torch.from_numpy(piece.copy())  # torch warns of memory that it must not write
