"""Batch streams: sizes, independence of seeds and tags, every order, messages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ladder_search.data.permutation import permutations
from ladder_search.data.streams import LABELLED, UNLABELLED, BatchStream
from ladder_search.errors import SettingError

ROWS = np.arange(100, 130)


def stream(rows: np.ndarray = ROWS, batch_size: int = 10, seed: int = 1, tag: int = UNLABELLED) -> BatchStream:
    return BatchStream(rows, batch_size, seed=seed, tag=tag)


@pytest.mark.parametrize(
    ("n", "asked", "batch_size", "per_pass"), [(60000, 100, 100, 600), (50, 100, 50, 1), (25, 10, 10, 2), (1, 1, 1, 1)]
)
def test_sizes(n: int, asked: int, batch_size: int, per_pass: int) -> None:
    found = stream(np.arange(n), asked)
    assert (found.batch_size, found.batches_per_pass) == (batch_size, per_pass)
    assert found.batch(0).shape == (batch_size,) and found.batch(0).dtype == np.int64
    assert found.batches(5, 3).shape == (3, batch_size)
    assert found.batches(5, 0).shape == (0, batch_size)


def test_a_batch_is_cut_from_the_order_of_its_pass() -> None:
    order = permutations(30, seed=1, tag=UNLABELLED, first=4)[0]
    assert stream().batch(4 * 3 + 1).tolist() == (100 + order[10:20]).tolist()


def test_a_stream_stays_what_it_is() -> None:
    # Made with NumPy 2.4; any NumPy must give the same, or resumed runs see other batches.
    assert stream(np.arange(10), 5, seed=3, tag=LABELLED).batches(0, 3).tolist() == GOLDEN


GOLDEN = [[8, 7, 3, 5, 1], [2, 4, 6, 9, 0], [7, 2, 4, 1, 5]]


def test_seeds_and_tags_give_unrelated_streams() -> None:
    streams = [
        stream(seed=s, tag=t).batches(0, 3).tobytes() for s in (0, 1, 2**32, 2**33) for t in (LABELLED, UNLABELLED)
    ]
    assert len(set(streams)) == len(streams)


def test_every_order_turns_up_equally_often() -> None:
    found = permutations(4, seed=5, tag=1, count=24_000)
    counts = [int((found == order).all(axis=1).sum()) for order in itertools.permutations(range(4))]
    assert sum(counts) == 24_000
    # 24 orders, expected 1000 each; chi-squared with 23 degrees of freedom exceeds 49.7 once in a thousand.
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 49.7


def test_batches_are_the_callers_own() -> None:
    found = stream()
    first = found.batches(0, 2)
    first[:] = -1
    rows = ROWS.copy()
    other = stream(rows)
    rows[:] = -1
    assert found.batches(0, 2).tolist() == stream().batches(0, 2).tolist() == other.batches(0, 2).tolist()


def test_a_seed_that_breaks_its_rule() -> None:
    with pytest.raises(SettingError, match="a seed must be a whole number from 0"):
        stream(seed=-1)
