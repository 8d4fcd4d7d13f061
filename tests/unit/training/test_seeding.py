"""Randomness as a function of (seed, purpose, step): golden values, independence, a fresh process."""

from __future__ import annotations

import subprocess
import sys

import torch

from ladder_search.training.seeding import INITIAL_WEIGHTS, NOISE, derive, derive_range, generator


def splitmix(seed: int, *path: int) -> int:
    """SplitMix64's finaliser written a second time, with Python's unbounded integers."""
    state = seed % 2**64
    for part in path:
        state = (state + 0x9E3779B97F4A7C15 * (part % 2**64 + 1)) % 2**64
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) % 2**64
        state = state ^ state >> 31
    return state // 2


def test_derived_seeds_stay_what_they_are() -> None:
    # Changing them changes every published run.
    assert derive(1, INITIAL_WEIGHTS) == GOLDEN[0]
    assert derive(2**63 + 5, NOISE, 90_000) == GOLDEN[1]
    for seed, *path in ((0,), (0, 0), (7, 2, 3), (2**64 - 1, 2**40)):
        assert derive(seed, *path) == splitmix(seed, *path)


GOLDEN = (6878622605533214259, 356539479112394424)


def test_no_two_streams_share_a_seed() -> None:
    paths = [(seed, NOISE, step) for seed in range(30) for step in range(200)]
    paths += [(seed, INITIAL_WEIGHTS) for seed in range(30)]
    assert len({derive(*path) for path in paths}) == len(paths)


def test_a_range_of_seeds_is_each_of_them() -> None:
    for seed, start in ((0, 0), (7, 90_000), (2**64 - 1, 2**40)):
        expected = [splitmix(seed, NOISE, step) for step in range(start, start + 5)]
        assert derive_range(seed, NOISE, start=start, count=5).tolist() == expected


def test_no_global_stream_is_read_or_moved() -> None:
    before = torch.get_rng_state()
    first = torch.rand(3, generator=generator(1, INITIAL_WEIGHTS))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        assert torch.equal(torch.rand(3, generator=generator(1, INITIAL_WEIGHTS)), first)


def test_a_fresh_process_draws_the_same() -> None:
    code = (
        "import torch; from ladder_search.training.seeding import generator; "
        "print(*torch.randn(5, generator=generator(9, 1)).tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    expected = torch.randn(5, generator=generator(9, INITIAL_WEIGHTS)).tolist()
    assert list(map(float, answer.stdout.split())) == expected
