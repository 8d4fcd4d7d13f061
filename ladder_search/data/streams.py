"""Batch streams: the rows of batch b are a pure function of (seed, tag, b), independent of earlier batches.

A pack member that joins late, moves to another process or trains alone therefore receives the same batches.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.permutation import check_seed, permutations

LABELLED = 1
"""Tag of the stream of labelled batches (0 is the tag of splits)."""

UNLABELLED = 2
"""Tag of the stream of unlabelled batches; a different tag makes the two streams of a seed unrelated."""


BALANCED = 2**16
"""First tag of the streams of balanced batches, one per class."""


class BatchStream:
    """The endless stream of batches of one member: passes over the same rows, each in its own order.

    Example with five rows and batches of two: ``stream.batches_per_pass`` is 2 (the last row of each pass is skipped),
    ``stream.batch(0)`` and ``stream.batch(1)`` are the first pass, ``stream.batch(2)`` starts the second.
    """

    def __init__(self, indices: NDArray[np.integer], batch_size: int, *, seed: int, tag: int) -> None:
        """Initialise the stream; raise ``SettingError`` if the seed is out of range.

        Args:
            indices: rows of the training set to draw from, integers [n], n >= 1.
            batch_size: rows of a batch; all rows if there are fewer (50 labels, batch 100 -> 50).
            seed: data seed of the member, 0 .. 2**64-1.
            tag: ``LABELLED``, ``UNLABELLED`` or another number (0 .. 2**32-1).
        """
        check_seed(seed)
        assert indices.ndim == 1 and len(indices) and batch_size >= 1, (indices.shape, batch_size)
        self._indices = indices.astype(np.int64)
        self._seed = seed
        self._tag = tag
        self.batch_size = min(batch_size, len(indices))
        self.batches_per_pass = len(indices) // self.batch_size
        self._current = -1  # the pass in _rows
        self._rows = np.empty((0, self.batch_size), np.int64)

    @property
    def constant(self) -> bool:
        """Whether every batch has the same rows."""
        return self.batch_size == len(self._indices)

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the rows of batch ``number`` >= 0: int64 [batch_size]."""
        row: NDArray[np.int64] = self.batches(number, 1)[0]
        return row

    def batches(self, start: int, count: int) -> NDArray[np.int64]:
        """Return a copy of the rows of batches ``start .. start+count-1``: int64 [count, batch_size]."""
        assert start >= 0 and count >= 0, (start, count)
        first, offset = divmod(start, self.batches_per_pass)
        n_passes = -(-(offset + count) // self.batches_per_pass)
        rows = self._pass(first) if n_passes <= 1 else self._passes(first, n_passes)
        return rows[offset : offset + count].copy()

    def _pass(self, number: int) -> NDArray[np.int64]:
        # Short intervals need the same pass repeatedly, so it is kept.
        if number != self._current:
            self._rows = self._passes(number, 1)
            self._current = number
        return self._rows

    def _passes(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the concatenated batches of ``count`` passes: int64 [count * batches_per_pass, batch_size]."""
        order = permutations(len(self._indices), seed=self._seed, tag=self._tag, first=first, count=count)
        used = order[:, : self.batches_per_pass * self.batch_size]
        rows: NDArray[np.int64] = self._indices[used].reshape(-1, self.batch_size)
        return rows


class Batches(Protocol):
    """A stream of batches of rows."""

    batch_size: int

    @property
    def constant(self) -> bool:
        """Whether every batch has the same rows."""
        ...

    def batches(self, start: int, count: int) -> NDArray[np.int64]: ...


class BalancedStream:
    """The endless stream of batches in which each class has the same number of rows, up to one.

    Places of batches are numbered through; place p is of class p modulo the number of classes, so that the rows left
    over after the division of a batch go to each class in turn. Each class passes through its own rows, each pass in
    an order of its own.
    """

    def __init__(
        self, indices: NDArray[np.integer], classes: NDArray[np.integer], batch_size: int, *, seed: int
    ) -> None:
        """Initialise the stream; raise ``SettingError`` if the seed is out of range.

        Args:
            indices: labelled rows, [n].
            classes: their classes, [n].
            batch_size: rows of a batch.
            seed: data seed of the member, 0 .. 2**64-1.
        """
        check_seed(seed)
        assert len(indices) == len(classes) and len(indices) and batch_size >= 1, (len(indices), batch_size)
        self._seed, self.batch_size = seed, batch_size
        self._rows = [(int(c), indices[classes == c].astype(np.int64)) for c in np.unique(classes)]

    @property
    def constant(self) -> bool:
        return False

    def batches(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the rows of batches ``start .. start+count-1``: int64 [count, batch_size]."""
        assert start >= 0 and count >= 0, (start, count)
        places = np.arange(start * self.batch_size, (start + count) * self.batch_size)
        found = np.empty(len(places), np.int64)
        n_classes = len(self._rows)
        for number, (name, rows) in enumerate(self._rows):
            own = places % n_classes == number
            passes, within = np.divmod(places[own] // n_classes, len(rows))
            if not len(passes):
                continue
            first, last = int(passes[0]), int(passes[-1])
            order = permutations(len(rows), seed=self._seed, tag=BALANCED + name, first=first, count=last - first + 1)
            found[own] = rows[order[passes - first, within]]
        return found.reshape(count, self.batch_size)
