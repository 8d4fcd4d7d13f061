"""Batches of music as index tables: endless windows for training, pieces of similar length for evaluation.

A *segment* is a stretch of one piece in one row of a batch of ``width`` steps; gradients flow over one batch. A row
carries its state to the next segment if that continues the piece. Input t is step t - 1; silence precedes every piece.

Example, for pieces of 5, 2 and 3 steps in this order, two rows and windows of three steps::

    row 0   piece 0, steps 0..2   piece 0, steps 3..4 (continues)   piece 0, steps 0..2   ...
    row 1   piece 1, steps 0..1   piece 2, steps 0..2               piece 1, steps 0..1   ...

The order of pieces is a pure function of (seed, pass), as in ``data.streams``.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.music import SILENCE, FlatCorpus
from ladder_search.data.permutation import check_seed, permutations

MUSIC_ORDER = 3
"""Tag of the order of pieces, distinct from those of ``data.streams``."""


class Segments(NamedTuple):
    """Segments of a batch or of several batches: all [rows] or [windows, rows]."""

    piece: NDArray[np.int64]
    start: NDArray[np.int64]  # first step
    length: NDArray[np.int64]  # steps, 1..width
    continues: NDArray[np.bool_]  # the row continues its piece and keeps its state


class _Pass(NamedTuple):
    """Schedule of the pieces of a pass; all [pieces]."""

    piece: NDArray[np.int64]
    begin: NDArray[np.int64]  # window with the first step of the piece
    row: NDArray[np.int64]


class Steps(NamedTuple):
    """Rows of ``FlatCorpus.notes`` for a batch: all [..., rows, width]."""

    inputs: NDArray[np.int64]  # step before each target, SILENCE before the first step of a piece
    targets: NDArray[np.int64]  # steps to predict, SILENCE after the end of a segment
    present: NDArray[np.bool_]  # whether the step exists, and may enter statistics
    scored: NDArray[np.bool_]  # whether the step is scored: all present steps, or all but first steps


class WindowStream:
    """The endless stream of windows of one member for truncated backpropagation; every row of every batch is in use.

    Pass p plays all pieces in the order ``order_of_pass`` of p and follows pass p - 1 without a gap. A row plays a
    piece window after window, then takes the next unplayed piece; among rows that are free at once the first one
    chooses first. Rows therefore enter a pass a few windows apart.

    ``stream.windows(5000, 100)`` returns batches 5000..5099 regardless of earlier calls. Later batches continue from
    there, at about one second for 100,000 windows of 16 rows; earlier batches restart the stream.
    """

    def __init__(self, lengths: NDArray[np.int64], *, rows: int, width: int, seed: int) -> None:
        """Initialise the stream of pieces with these ``lengths``, [n], in batches of ``rows`` rows and ``width`` steps,
        over which gradients flow; ``seed`` is the data seed of the member, 0 .. 2**64-1. Raise ``SettingError`` if
        the seed is out of range."""
        assert len(lengths) and lengths.min() >= 1 and rows >= 1 and width >= 1, (lengths[:5], rows, width)
        check_seed(seed)
        self._lengths, self._rows, self._width, self._seed = lengths.astype(np.int64), rows, width, seed
        self._needed = -(-self._lengths // width)  # windows of each piece
        self.steps_per_pass = -(-int(self._needed.sum()) // rows)
        """Batches of an epoch: the average number of batches of a pass, rounded up."""
        self._restart()

    def _restart(self) -> None:
        self._number: int = 0  # number of the next pass
        self._kept_from: int = 0
        self._passes: list[_Pass] = []  # passes before _number with a piece in window _kept_from or later
        # Heap of the times at which rows become free, as one number: window * rows + row.
        self._free: list[int] = list(range(self._rows))

    def windows(self, start: int, count: int) -> Segments:
        """Return the segments of batches ``start .. start+count-1``: int64 and bool [count, rows]."""
        assert start >= 0 and count >= 0, (start, count)
        if start < self._kept_from:
            self._restart()
        self._kept_from = start
        self._passes = [one for one in self._passes if self._reaches(one, start)]
        while self._free[0] // self._rows < start + max(count, 1):
            next_pass = self._next_pass()
            if self._reaches(next_pass, start):
                self._passes.append(next_pass)
        return self._segments(start, count)

    def _next_pass(self) -> _Pass:
        order = order_of_pass(len(self._lengths), seed=self._seed, number=self._number)
        self._number += 1
        free, slots = self._free, []
        for busy in (self._needed[order] * self._rows).tolist():
            slots.append(free[0])
            heapq.heapreplace(free, free[0] + busy)
        begin, row = np.divmod(np.array(slots, np.int64), self._rows)
        return _Pass(piece=order, begin=begin, row=row)

    def _reaches(self, found: _Pass, window: int) -> bool:
        return bool((found.begin + self._needed[found.piece]).max() > window)

    def _segments(self, start: int, count: int) -> Segments:
        passes = _Pass(*(np.concatenate(column) for column in zip(*self._passes, strict=True)))
        needed = self._needed[passes.piece]
        piece, begin, row = (np.repeat(column, needed) for column in passes)
        number = np.arange(len(piece)) - np.repeat(np.cumsum(needed) - needed, needed)  # number in its piece
        place = (begin - start + number) * self._rows + row
        inside = (place >= 0) & (place < count * self._rows)
        piece, number, place = piece[inside], number[inside], place[inside]
        first = number * self._width
        length = np.minimum(self._lengths[piece] - first, self._width)
        in_order = np.argsort(place).reshape(count, self._rows)  # every place occurs once
        return Segments(
            piece=piece[in_order], start=first[in_order], length=length[in_order], continues=number[in_order] > 0
        )


def order_of_pass(n: int, *, seed: int, number: int) -> NDArray[np.int64]:
    """Return the order of ``n`` pieces in pass ``number``: int64 [n]."""
    order: NDArray[np.int64] = permutations(n, seed=seed, tag=MUSIC_ORDER, first=number)[0]
    return order


def evaluation_batches(lengths: NDArray[np.int64], steps_at_once: int) -> list[NDArray[np.int64]]:
    """Return batches (see ``whole``) that contain every piece once, grouped by length, shortest first.

    ``steps_at_once`` bounds rows times longest piece of a batch; a longer piece is a batch by itself.
    """
    assert len(lengths) and steps_at_once >= 1, (len(lengths), steps_at_once)
    order = np.argsort(lengths, kind="stable")
    batches, begin = [], 0
    for end in range(1, len(order)):
        if (end + 1 - begin) * lengths[order[end]] > steps_at_once:
            batches.append(order[begin:end])
            begin = end
    return [*batches, order[begin:]]


def whole(pieces: NDArray[np.int64], lengths: NDArray[np.int64]) -> Segments:
    """Return the segments of a batch of whole pieces; the width is the length of the longest."""
    n = len(pieces)
    return Segments(piece=pieces, start=np.zeros(n, np.int64), length=lengths[pieces], continues=np.zeros(n, np.bool_))


def steps(corpus: FlatCorpus, segments: Segments, width: int, *, score_first: bool = True) -> Steps:
    """Return the rows of the flat corpus for segments, [rows] or [windows, rows], in batches of ``width`` steps.

    ``score_first`` scores the first step of a piece, predicted from silence.
    """
    assert segments.length.max(initial=0) <= width, (segments.length.max(), width)
    step = segments.start[..., None] + np.arange(width)
    present = np.arange(width) < segments.length[..., None]
    place = corpus.first[segments.piece][..., None] + step
    return Steps(
        inputs=np.where(present & (step > 0), place - 1, SILENCE),
        targets=np.where(present, place, SILENCE),
        present=present,
        scored=present if score_first else present & (step > 0),
    )
