"""Batch streams: which rows make up batch b is a pure function of (seed, tag, b), never of what was drawn before.

A member of a pack that joins late, moves to another process or trains alone therefore sees the same batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.permutation import check_seed, permutations
from ladder_search.errors import SettingError

LABELLED = 1
"""Tag of the stream of labelled batches (0 is the tag of splits)."""

UNLABELLED = 2
"""Tag of the stream of unlabelled batches; another tag, so that the two streams of one seed are unrelated."""


class BatchStream:
    """The endless stream of batches of one member: pass after pass over the same rows, each in its own order.

    Shown, with five rows and batches of two: ``stream.batches_per_pass`` is 2 (the last row of each pass is left out),
    ``stream.batch(0)`` and ``stream.batch(1)`` are the first pass, ``stream.batch(2)`` starts the second. Calling
    them in another order gives the same rows.
    """

    def __init__(self, indices: NDArray[np.integer], batch_size: int, *, seed: int, tag: int) -> None:
        """Make the stream over ``indices``.

        Args:
            indices: whole numbers [n], n >= 1: the rows of the training set to draw from.
            batch_size: rows in a batch; when there are fewer rows, a batch is all of them (50 labels, batch 100 -> 50).
            seed: 0 .. 2**64-1, the member's data seed.
            tag: ``LABELLED`` or ``UNLABELLED``, or a number of the caller's own (0 .. 2**32-1).

        Raises:
            SettingError: no rows, a batch size below 1, or a seed out of range.
        """
        check_seed(seed)
        if indices.ndim != 1 or len(indices) == 0:
            raise SettingError(
                f"a batch stream needs rows to draw from, got indices of shape {indices.shape}; give [n], n >= 1."
            )
        if batch_size < 1:
            raise SettingError(f"batch_size must be at least 1, got {batch_size!r}; choose for example 100.")
        self._indices = indices.astype(np.int64)
        self._seed = seed
        self._tag = tag
        self.batch_size = min(batch_size, len(indices))
        self.batches_per_pass = len(indices) // self.batch_size
        self._current = -1  # the pass that _rows holds
        self._rows = np.empty((0, self.batch_size), np.int64)

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the rows of batch ``number`` >= 0: int64 [batch_size]."""
        row: NDArray[np.int64] = self.batches(number, 1)[0]
        return row

    def batches(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the rows of batches ``start .. start+count-1``: int64 [count, batch_size], a copy of one's own."""
        assert start >= 0 and count >= 0, (start, count)
        first, offset = divmod(start, self.batches_per_pass)
        n_passes = -(-(offset + count) // self.batches_per_pass)
        rows = self._pass(first) if n_passes <= 1 else self._passes(first, n_passes)
        return rows[offset : offset + count].copy()

    def _pass(self, number: int) -> NDArray[np.int64]:
        # A short interval asks for the same pass again and again: keep it.
        if number != self._current:
            self._rows = self._passes(number, 1)
            self._current = number
        return self._rows

    def _passes(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the batches of ``count`` passes, one after the other: int64 [count * batches_per_pass, batch_size]."""
        order = permutations(len(self._indices), seed=self._seed, tag=self._tag, first=first, count=count)
        used = order[:, : self.batches_per_pass * self.batch_size]
        rows: NDArray[np.int64] = self._indices[used].reshape(-1, self.batch_size)
        return rows
