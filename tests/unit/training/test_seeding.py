"""Randomness as a function of (seed, purpose, step): golden values, independence, a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ladder_search.training.seeding import INITIAL_WEIGHTS, NOISE, NoiseSource, derive, generator

CPU = torch.device("cpu")


def draw(seed: int, step: int, size: int = 1000, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    out = torch.empty(size, dtype=dtype)
    NoiseSource(seed, CPU).fill(out, step)
    return out


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


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    source = NoiseSource(3, CPU)
    out = torch.empty(1000)
    drawn = {}
    for step in (4, 0, 7, 4):
        source.fill(out, step)
        if step in drawn:
            assert torch.equal(out, drawn[step])
        drawn[step] = out.clone()
    assert torch.equal(drawn[7], draw(3, 7))
    assert not torch.equal(drawn[0], drawn[4])
    assert not torch.equal(draw(3, 0), draw(4, 0))


def test_where_the_numbers_land_does_not_matter() -> None:
    table = torch.zeros(5, 1003)  # rows that start at odd addresses
    for row in table:
        NoiseSource(3, CPU).fill(row, 2)
        assert torch.equal(row, draw(3, 2, 1003))


def test_the_draws_are_standard_normal() -> None:
    x = draw(1, 1, 200_000, torch.float64)
    assert x.mean().item() == pytest.approx(0.0, abs=4 / 200_000**0.5)
    assert x.var().item() == pytest.approx(1.0, abs=4 * (2 / 200_000) ** 0.5)
    both = torch.stack([x, draw(1, 2, 200_000, torch.float64)])
    assert torch.corrcoef(both)[0, 1].item() == pytest.approx(0.0, abs=4 / 200_000**0.5)


def test_no_global_stream_is_read_or_moved() -> None:
    before = torch.get_rng_state()
    first = draw(1, 0)
    torch.rand(3, generator=generator(1, INITIAL_WEIGHTS))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        assert torch.equal(draw(1, 0), first)


def test_a_fresh_process_draws_the_same() -> None:
    code = (
        "import torch; from ladder_search.training.seeding import NoiseSource, generator; x = torch.empty(20); "
        "NoiseSource(9, torch.device('cpu')).fill(x, 4); y = torch.randn(5, generator=generator(9, 1)); "
        "print(*x.tolist(), *y.tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    expected = [*draw(9, 4, 20).tolist(), *torch.randn(5, generator=generator(9, INITIAL_WEIGHTS)).tolist()]
    assert list(map(float, answer.stdout.split())) == expected
