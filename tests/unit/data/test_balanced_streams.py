"""Balanced batches: equal numbers of each class, all rows in turn, a pure function of seed and batch."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.data.streams import BalancedStream

CLASSES = np.repeat([0, 1, 2], [50, 7, 2])
ROWS = np.arange(1000, 1059)


def stream(batch: int, seed: int = 5) -> BalancedStream:
    return BalancedStream(ROWS, CLASSES, batch, seed=seed)


@pytest.mark.parametrize("batch", [2, 7, 12])
def test_each_batch_has_equal_numbers_of_each_class(batch: int) -> None:
    counts = [np.bincount(CLASSES[rows - 1000], minlength=3) for rows in stream(batch).batches(0, 60)]
    assert all(each.max() - each.min() <= 1 for each in counts)
    assert np.ptp(np.sum(counts, axis=0)) <= 1


def test_each_class_passes_through_all_its_rows_in_orders_of_their_own() -> None:
    rows = stream(12).batches(0, 40).ravel()
    for number, size in enumerate([50, 7, 2]):
        own = rows[CLASSES[rows - 1000] == number]
        passes = own[: len(own) // size * size].reshape(-1, size)
        assert all(sorted(each) == sorted(passes[0]) for each in passes) and len(set(passes[0])) == size
        assert size == 2 or len({tuple(each) for each in passes}) == len(passes)


def test_batches_do_not_depend_on_earlier_ones() -> None:
    whole = stream(7).batches(0, 100)
    for start, count in ((0, 1), (3, 40), (99, 1), (17, 0)):
        assert np.array_equal(stream(7).batches(start, count), whole[start : start + count])
    assert not np.array_equal(stream(7, seed=6).batches(0, 100), whole)
