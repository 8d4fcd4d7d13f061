"""Noise: SplitMix64's published words, Box and Muller by NumPy, the normal law, independence, one result everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from ladder_search.training import noise
from ladder_search.training.compiling import compiler_found
from ladder_search.training.noise import counters, fill_normals, noise_keys, normals
from ladder_search.training.seeding import NOISE, derive

pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler

CPU = torch.device("cpu")

# The first outputs of the reference implementation of SplitMix64 (Vigna) for two seeds.
WORDS = {
    1234567: (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431),
    0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC),
}


def by_hand(words: tuple[int, ...]) -> np.ndarray:
    """Two normal draws of each word, in double precision: all cosines, then all sines."""
    first = np.array([(word >> 40) + 1 for word in words]) / 2.0**24
    second = np.array([word >> 8 & 0xFFFFFF for word in words]) / 2.0**24
    radius = np.sqrt(-2.0 * np.log(first))
    return np.concatenate([radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)])


def filled(keys: Tensor, size: int) -> Tensor:
    out = torch.empty(len(keys), size)
    for row, key in zip(out, keys.tolist(), strict=True):
        fill_normals(row, key)
    return out


SHORT, LONG = (8, 7), (200_001, 2_002, 1_999, 64)
"""Numbers of draws; of the long ones with and without a rest beside whole vectors."""


@cache
def programs(*sizes: int) -> Callable[..., list[Tensor]]:
    """One program with the draws of all sizes, in loops of their own: a compiler takes little longer than for one."""
    return torch.compile(
        lambda keys, *words: [normals(keys, each, size) for each, size in zip(words, sizes, strict=True)], dynamic=False
    )


def compiled(keys: Tensor, size: int) -> Tensor:
    sizes = SHORT if size in SHORT else LONG
    return programs(*sizes)(keys, *(counters(each, CPU) for each in sizes))[sizes.index(size)]


def vmapped(keys: Tensor, size: int) -> Tensor:
    return vmap(lambda key: normals(key.unsqueeze(0), counters(size, CPU), size)[0])(keys)


def eager(keys: Tensor, size: int) -> Tensor:
    return normals(keys, counters(size, keys.device), size)


needs_compiler = pytest.mark.skipif(not compiler_found(), reason="no C++ compiler, or torch in a folder with a space")
WAYS = [filled, eager, vmapped, pytest.param(compiled, marks=needs_compiler)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SHORT)
def test_draws_are_box_and_muller_of_splitmixs_words(size: int, way: Callable[[Tensor, int], Tensor]) -> None:
    found = way(torch.tensor(list(WORDS)), size)
    for row, words in zip(found, WORDS.values(), strict=True):
        np.testing.assert_allclose(row, by_hand(words)[:size], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", [eager, pytest.param(compiled, marks=needs_compiler)])
@pytest.mark.parametrize("size", LONG)
def test_every_program_draws_the_same(way: Callable[[Tensor, int], Tensor], size: int) -> None:
    keys = torch.from_numpy(noise_keys(3, 7, 3))
    torch.testing.assert_close(way(keys, size), filled(keys, size), rtol=0.0, atol=1e-6)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = filled(torch.tensor([3]), 2_001)
    monkeypatch.setattr(noise, "_WORDS_AT_ONCE", 300)  # 1,001 words: the last piece is shorter
    torch.testing.assert_close(filled(torch.tensor([3]), 2_001), expected, rtol=0.0, atol=1e-6)


def test_the_two_ends_of_the_uniform_numbers_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first uniform number lies in (0, 1], the second in [0, 1): a word of zeros is the largest draw.
    for word, radius in ((0, 5.768108), (2**64 - 1, 0.0)):
        monkeypatch.setattr(noise, "finalise", lambda z, word=word: torch.full_like(z, noise.signed(word)))
        found = eager(torch.tensor([5]), 2)[0]
        assert torch.hypot(found[0], found[1]).item() == pytest.approx(radius, abs=1e-6)


def test_double_precision_takes_the_numbers_of_single_precision() -> None:
    single, double = torch.empty(1001), torch.empty(1001, dtype=torch.float64)
    fill_normals(single, 42), fill_normals(double, 42)
    assert torch.equal(single.double(), double)


def test_a_key_is_the_seed_derived_for_noise_and_step() -> None:
    for seed in (0, 7, 2**63 - 1, 2**64 - 1):
        assert noise_keys(seed, 5, 3).tolist() == [derive(seed, NOISE, step) for step in (5, 6, 7)]


def test_the_draws_are_standard_normal() -> None:
    x = filled(torch.from_numpy(noise_keys(1, 0, 4)), 100_000).double().flatten()
    n = len(x)
    assert x.mean().item() == pytest.approx(0.0, abs=4 / n**0.5)
    assert x.var().item() == pytest.approx(1.0, abs=4 * (2 / n) ** 0.5)
    assert (x**3).mean().item() == pytest.approx(0.0, abs=4 * (15 / n) ** 0.5)
    assert (x**4).mean().item() == pytest.approx(3.0, abs=4 * (96 / n) ** 0.5)
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-3


def test_steps_members_and_seeds_are_independent() -> None:
    keys = [*noise_keys(1, 0, 8), *noise_keys(2, 0, 8), *noise_keys(2**40 + 1, 100, 8)]
    draws = filled(torch.tensor(np.array(keys)), 20_000).double()
    halves = torch.cat([draws[:, :10_000], draws[:, 10_000:]])  # cosines and sines of a word, too
    for found in (torch.corrcoef(halves), torch.corrcoef(halves.square())):
        off = found[~torch.eye(len(found), dtype=torch.bool)]
        assert off.abs().max().item() < 5 / 10_000**0.5
    neighbours = torch.stack([draws[:, :-1].flatten(), draws[:, 1:].flatten()])
    assert torch.corrcoef(neighbours)[0, 1].item() == pytest.approx(0.0, abs=4 / neighbours.shape[1] ** 0.5)


def test_a_fresh_process_draws_the_same() -> None:
    code = (
        "import torch; from ladder_search.training.noise import fill_normals; x = torch.empty(20); "
        "fill_normals(x, 9); print(*x.tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert list(map(float, answer.stdout.split())) == filled(torch.tensor([9]), 20)[0].tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same() -> None:
    keys = torch.from_numpy(noise_keys(3, 7, 3))
    torch.testing.assert_close(eager(keys.cuda(), 20_001).cpu(), filled(keys, 20_001), rtol=0.0, atol=2e-6)
