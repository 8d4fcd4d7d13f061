"""Batches of music as tables of indices: pieces of like length side by side, or windows that carry a state on.

Legend: a *segment* is a stretch of one piece that one row of a batch goes through; ``width`` the steps of a batch.

Nothing here holds notes but ``flat``: a corpus is one array, and a batch is rows of it. In front of every piece stands
a step of silence, as the input from which a model predicts the first step; input t is step t - 1.

Shown, for pieces of 5, 2 and 3 steps, two rows and windows of three:

    row 0   piece 0, steps 0..2   piece 0, steps 3..4 (continues)   -
    row 1   piece 1, steps 0..1   piece 2, steps 0..2               -

Whatever is drawn is a pure function of (seed, pass), as in ``data.streams``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.music import KEYS, Piece
from ladder_search.data.permutation import permutations
from ladder_search.errors import SettingError

MUSIC_ORDER = 3
"""Tag of the order of pieces, beside those of ``data.streams``."""
BATCH_ORDER = 4
"""Tag of the order of batches."""

SILENCE = 0
"""Row of the flat corpus that has no notes."""
IDLE = -1
"""In place of a piece, where a row has nothing left to do."""


class FlatCorpus(NamedTuple):
    """All pieces in one array."""

    notes: NDArray[np.uint8]  # [1 + steps, 88]; row SILENCE is empty
    first: NDArray[np.int64]  # [pieces]: the row of each piece's first step
    lengths: NDArray[np.int64]  # [pieces]


class Segments(NamedTuple):
    """What the rows of a batch, or of a run of batches, go through: all [rows] or [windows, rows]."""

    piece: NDArray[np.int64]  # IDLE: nothing
    start: NDArray[np.int64]  # first step
    length: NDArray[np.int64]  # steps, 0..width
    continues: NDArray[np.bool_]  # the row goes on where it stopped in the window before: its state is kept


class Steps(NamedTuple):
    """Rows of ``FlatCorpus.notes`` for a batch: all [..., rows, width]."""

    inputs: NDArray[np.int64]  # the step before each target, SILENCE before a piece's first
    targets: NDArray[np.int64]  # the steps to predict, SILENCE behind a segment's end
    present: NDArray[np.bool_]  # there is such a step: what a model may learn statistics from
    scored: NDArray[np.bool_]  # it counts; all that are present, or all but first steps


def flat(pieces: Sequence[Piece]) -> FlatCorpus:
    """Return the pieces, one after the other, behind a step of silence."""
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    notes = np.concatenate([np.zeros((1, KEYS), np.uint8), *pieces])
    return FlatCorpus(notes=notes, first=1 + np.cumsum(lengths) - lengths, lengths=lengths)


def buckets(lengths: NDArray[np.int64], rows: int, *, seed: int, number: int) -> list[NDArray[np.int64]]:
    """Return the batches of pass ``number``: every piece once, pieces of like length together.

    Pieces are sorted by length, equal ones in an order of the pass; neighbours make a batch, and batches come in an
    order of the pass. The longest pieces may be in a smaller batch.

    Args:
        lengths: of the pieces, [n].
        rows: pieces in a batch.
        seed: 0 .. 2**64-1.
        number: of the pass, from 0.

    Raises:
        SettingError: fewer than one row, no pieces, or a seed out of range.
    """
    _check(lengths, rows=rows)
    order = order_of_pass(len(lengths), seed=seed, number=number)
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = [order[begin : begin + rows] for begin in range(0, len(order), rows)]
    return [batches[i] for i in permutations(len(batches), seed=seed, tag=BATCH_ORDER, first=number)[0]]


def whole(pieces: NDArray[np.int64], lengths: NDArray[np.int64]) -> Segments:
    """Return the segments of a batch of whole pieces; its width is that of the longest."""
    n = len(pieces)
    return Segments(piece=pieces, start=np.zeros(n, np.int64), length=lengths[pieces], continues=np.zeros(n, np.bool_))


def order_of_pass(n: int, *, seed: int, number: int) -> NDArray[np.int64]:
    """Return the order in which pass ``number`` goes through ``n`` pieces: int64 [n]."""
    order: NDArray[np.int64] = permutations(n, seed=seed, tag=MUSIC_ORDER, first=number)[0]
    return order


def windows(lengths: NDArray[np.int64], order: NDArray[np.int64], *, rows: int, width: int) -> Segments:
    """Return all windows of a pass, truncated backpropagation's: int64 and bool [windows, rows].

    A row works through one piece, window after window, and then takes the next of ``order`` that no row has begun; at
    the end of a pass rows that find none are idle. Every step of every piece is in one segment.

    Args:
        lengths: of the pieces, [n].
        order: pieces in the order in which they are begun, each once.
        rows: of a batch.
        width: steps of a window, over which gradients flow.

    Raises:
        SettingError: fewer than one row or step, or no pieces.
    """
    _check(lengths, rows=rows, width=width)
    piece = np.full(rows, IDLE, np.int64)
    done = np.zeros(rows, np.int64)  # steps of the row's piece that lie in earlier windows
    begun = 0
    found: list[Segments] = []
    while True:
        over = (piece == IDLE) | (done >= lengths[piece])
        fresh = order[begun : begun + int(over.sum())]
        begun += len(fresh)
        piece[over] = np.concatenate([fresh, np.full(int(over.sum()) - len(fresh), IDLE, np.int64)])
        done[over] = 0
        if (piece == IDLE).all():
            break
        length = np.where(piece == IDLE, 0, np.minimum(lengths[piece] - done, width))
        found.append(Segments(piece=piece.copy(), start=done.copy(), length=length, continues=~over))
        done = done + length
    return Segments(*(np.stack(column) for column in zip(*found, strict=True)))


def steps(corpus: FlatCorpus, segments: Segments, width: int, *, score_first: bool = True) -> Steps:
    """Return the rows of the flat corpus that segments go through.

    Args:
        segments: [rows] or [windows, rows], no longer than ``width``.
        width: steps of the batch.
        score_first: whether a piece's first step, which is predicted from silence, counts.

    Raises:
        SettingError: a segment is longer than the batch.
    """
    if segments.length.max(initial=0) > width:
        raise SettingError(
            f"segments must have at most the width of their batch, {width}, got {segments.length.max()}; take whole "
            "pieces at the width of the longest."
        )
    step = segments.start[..., None] + np.arange(width)
    present = np.arange(width) < segments.length[..., None]
    place = corpus.first[segments.piece][..., None] + step  # an idle row's has no meaning, and is not present
    return Steps(
        inputs=np.where(present & (step > 0), place - 1, SILENCE),
        targets=np.where(present, place, SILENCE),
        present=present,
        scored=present if score_first else present & (step > 0),
    )


def _check(lengths: NDArray[np.int64], *, rows: int, width: int = 1) -> None:
    if len(lengths) == 0 or lengths.min() < 1:
        raise SettingError(
            f"pieces must have at least one step each, got lengths {lengths[:5].tolist()}; drop the empty."
        )
    for name, value in (("rows", rows), ("width", width)):
        if value < 1:
            raise SettingError(f"batches of music need {name} of at least 1, got {value}; choose for example 16.")
