"""Adjusted mutual information: scikit-learn's values to 1e-12, its special cases, and the trap of its default."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from torch.func import vmap

from ladder_search.nn.ami import agreement

Labels = NDArray[np.int64]
NORMALISERS: tuple[Literal["max", "arithmetic"], ...] = ("max", "arithmetic")


def reference(labels: Labels, groups: Labels, normaliser: str) -> list[float]:
    """scikit-learn's value of each image, over its scored pixels."""
    return [
        adjusted_mutual_info_score(row[row >= 0], group[row >= 0], average_method=normaliser)
        for row, group in zip(labels, groups, strict=True)
    ]


def value(labels: Labels, groups: Labels, normaliser: Literal["max", "arithmetic"] = "max") -> NDArray[np.float64]:
    both = agreement(torch.tensor(labels), torch.tensor(groups), n_labels=4, n_groups=5)
    values: NDArray[np.float64] = getattr(both, normaliser).numpy()
    assert values.dtype == np.float64
    return values


def random_pairs(images: int, pixels: int, seed: int) -> tuple[Labels, Labels]:
    """Pairs from independent to almost equal, with 1..4 segments, 1..5 groups and any share of unscored pixels."""
    draws = np.random.default_rng(seed)
    segments, parts = draws.integers(1, 5, (images, 1)), draws.integers(1, 6, (images, 1))
    labels = draws.integers(0, 4, (images, pixels)) % segments
    related = draws.random((images, pixels)) < draws.random((images, 1))
    groups = np.where(related, labels, draws.integers(0, 5, (images, pixels))) % parts
    labels[draws.random((images, pixels)) < draws.random((images, 1))] = -1
    return labels, groups


@pytest.mark.parametrize(("images", "pixels"), [(4000, 40), (3000, 256), (2000, 400), (1000, 784)])
def test_ten_thousand_random_pairs(images: int, pixels: int) -> None:
    labels, groups = random_pairs(images, pixels, seed=pixels)
    for normaliser in NORMALISERS:
        assert value(labels, groups, normaliser) == pytest.approx(reference(labels, groups, normaliser), abs=1e-12)


def test_large_frames() -> None:
    """The expectation omits improbable terms: those of 4,096 pixels are seven times as many as are summed."""
    labels, groups = random_pairs(30, 4096, seed=1)
    labels[:10, 100:], groups[:10, 90:] = 0, 1  # very unequal parts
    labels[10:12, 5:] = 1
    for normaliser in NORMALISERS:
        assert value(labels, groups, normaliser) == pytest.approx(reference(labels, groups, normaliser), abs=1e-12)


def test_every_pair_of_partitions_of_four_pixels() -> None:
    """Includes one segment, one group, no scored pixel, and segments that are absent."""
    parts = list(itertools.product(range(-1, 3), repeat=4))
    pairs = [(a, b) for a in parts for b in itertools.product(range(3), repeat=4)]
    labels, groups = (np.array(each) for each in zip(*pairs, strict=True))
    chosen = np.random.default_rng(0).choice(len(pairs), 3000, replace=False)
    labels, groups = labels[chosen], groups[chosen]
    for normaliser in NORMALISERS:
        assert value(labels, groups, normaliser) == pytest.approx(reference(labels, groups, normaliser), abs=1e-12)


def test_special_cases() -> None:
    cases = {
        "one segment, one group": ([0, 0, 0], [2, 2, 2], 1.0),
        "one segment, two groups": ([0, 0, 0], [2, 1, 2], 0.0),
        "two segments, one group": ([0, 1, 1], [2, 2, 2], 0.0),
        "no pixel is scored": ([-1, -1, -1], [0, 1, 2], 1.0),
        "one pixel is scored": ([-1, 3, -1], [0, 1, 2], 1.0),
        "groups of unscored pixels are ignored": ([0, 0, -1], [1, 1, 2], 1.0),
        "equal partitions": ([0, 0, 1], [3, 3, 0], 1.0),
    }
    for name, (labels, groups, expected) in cases.items():
        for normaliser in NORMALISERS:
            found = float(value(np.array([labels]), np.array([groups]), normaliser)[0])
            assert found == pytest.approx(expected, abs=1e-12), name


def expected_information(total: int, a: list[int], b: list[int]) -> float:
    """The mean mutual information over all partitions with sizes a and b, from exact binomial coefficients."""
    expected = 0.0
    for i, j in itertools.product(a, b):
        for n in range(max(1, i + j - total), min(i, j) + 1):
            probability = math.comb(j, n) * math.comb(total - j, i - n) / math.comb(total, i)
            expected += n / total * math.log(total * n / (i * j)) * probability
    return expected


def test_values_by_hand() -> None:
    """Four objects of 25 pixels and two groups of two objects each: the groups give ln 2 of ln 4 nats."""
    objects = np.repeat([0, 1, 2, 3], 25)[None]
    chance = expected_information(100, [25] * 4, [50] * 2)
    largest = (math.log(2) - chance) / (math.log(4) - chance)
    mean = (math.log(2) - chance) / ((math.log(4) + math.log(2)) / 2 - chance)
    assert 0.01 < chance < 0.03 and mean - largest > 0.15
    for labels, groups in ((objects, objects // 2), (objects // 2, objects)):
        assert value(labels, groups, "max")[0] == pytest.approx(largest, abs=1e-12)
        assert value(labels, groups, "arithmetic")[0] == pytest.approx(mean, abs=1e-12)


def test_the_trap_of_the_default_normaliser() -> None:
    """scikit-learn's default has changed from 'max', that of the papers, to 'arithmetic', which gives more."""
    labels, groups = random_pairs(500, 100, seed=3)
    largest, mean = value(labels, groups, "max"), value(labels, groups, "arithmetic")
    informed = largest > 0
    assert (mean[informed] >= largest[informed] - 1e-12).all() and (mean[informed] > largest[informed] + 0.05).any()
    default = [adjusted_mutual_info_score(a[a >= 0], b[a >= 0]) for a, b in zip(labels, groups, strict=True)]
    assert mean == pytest.approx(default, abs=1e-12)


def test_any_leading_shape_and_members_of_a_pack() -> None:
    labels, groups = (torch.tensor(each) for each in random_pairs(24, 50, seed=4))
    flat = agreement(labels, groups, n_labels=4, n_groups=5)

    def members(labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        return torch.stack(agreement(labels, groups, n_labels=4, n_groups=5))

    video = members(labels.view(2, 3, 4, 50), groups.view(2, 3, 4, 50))
    assert torch.equal(video.flatten(1), torch.stack(flat))
    stacked = vmap(members)(labels.view(2, 12, 50), groups.view(2, 12, 50))
    assert torch.equal(stacked.transpose(0, 1).flatten(1), torch.stack(flat))


@pytest.mark.gpu
def test_a_device_gives_the_same_values() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    labels, groups = (torch.tensor(each) for each in random_pairs(500, 784, seed=5))
    here = torch.stack(agreement(labels, groups, n_labels=4, n_groups=5))
    there = torch.stack(agreement(labels.cuda(), groups.cuda(), n_labels=4, n_groups=5))
    assert there.cpu().numpy() == pytest.approx(here.numpy(), abs=1e-12)
