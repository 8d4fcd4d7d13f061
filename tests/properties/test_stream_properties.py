"""Properties that every batch stream has."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.data.streams import BatchStream

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

rows = st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True).map(np.array)
sizes = st.integers(1, 70)
seeds = st.integers(0, 2**64 - 1)
tags = st.integers(0, 2**32 - 1)


@given(rows, sizes, seeds, tags, st.integers(0, 10**9))
@settings(max_examples=100, deadline=None)
def test_each_pass_takes_each_row_at_most_once_and_all_that_fit(
    indices: np.ndarray, batch_size: int, seed: int, tag: int, number: int
) -> None:
    stream = BatchStream(indices, batch_size, seed=seed, tag=tag)
    found = stream.batches(number * stream.batches_per_pass, stream.batches_per_pass).ravel().tolist()
    assert len(found) == len(set(found)) == len(indices) // stream.batch_size * stream.batch_size
    assert set(found) <= set(indices.tolist())
    if len(indices) % stream.batch_size == 0:
        assert sorted(found) == sorted(indices.tolist()), "a whole pass is a permutation"


@given(rows, sizes, seeds, tags, st.lists(st.integers(0, 200), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_random_access_equals_sequential_access(
    indices: np.ndarray, batch_size: int, seed: int, tag: int, numbers: list[int]
) -> None:
    def stream() -> BatchStream:
        return BatchStream(indices, batch_size, seed=seed, tag=tag)

    sequential = stream()
    all_batches = np.stack([sequential.batch(number) for number in range(max(numbers) + 1)])
    jumping = stream()
    for number in numbers:
        assert np.array_equal(jumping.batch(number), all_batches[number])
        assert np.array_equal(stream().batch(number), all_batches[number])
    assert np.array_equal(stream().batches(0, len(all_batches)), all_batches)


@given(rows, sizes, seeds, tags, st.integers(0, 100), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_intervals_of_any_length_join_up(
    indices: np.ndarray, batch_size: int, seed: int, tag: int, start: int, first: int, second: int
) -> None:
    stream = BatchStream(indices, batch_size, seed=seed, tag=tag)
    joined = np.concatenate([stream.batches(start, first), stream.batches(start + first, second)])
    assert np.array_equal(joined, stream.batches(start, first + second))
