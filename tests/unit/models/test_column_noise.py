"""Noise on one layer of one column of a progressive network: where it goes, against plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig

WIDTHS = (4, 5, 6, 3)
Array = NDArray[np.float64]


@pytest.fixture
def network() -> Progressive:
    """Every parameter and statistic at random; adapters are one product, alpha is 1."""
    draws = torch.Generator().manual_seed(1)
    zeros = (0.0,) * 4
    source = Ladder(LadderConfig(widths=WIDTHS, noise_std=zeros, lambda_=zeros, decoder="none"), generator=draws)
    config = ProgressiveConfig(widths=WIDTHS, adapter="linear", alpha="absent", alpha_init=(1.0, 1.0))
    network = Progressive(config, generator=draws, sources=[source]).double().requires_grad_(False)
    for value in (*network.parameters(), *network.buffers()):
        value.copy_(0.2 + torch.rand(value.shape, generator=draws, dtype=torch.float64))
        if value.dim() > 1:
            value.copy_(torch.randn(value.shape, generator=draws, dtype=torch.float64))
    return network


def by_hand(network: Progressive, x: Array, noise: Mapping[tuple[int, int], Array]) -> tuple[list[Array], Array]:
    """The source's activations and the target's logits; what a layer hands on carries its noise."""
    state = {name: value.numpy() for name, value in network.state_dict().items()}

    def layer(z: Array, number: int, column: str) -> Array:
        mean, variance = state[f"{column}mean_{number}"], state[f"{column}variance_{number}"]
        shifted = (z - mean) / np.sqrt(variance + 1e-10) + state[f"{column}beta.{number - 1}"]
        return state[f"{column}gamma"] * shifted if number == 3 else np.maximum(shifted, 0.0)

    source, target = [x + noise.get((0, 0), 0.0)], [x + noise.get((1, 0), 0.0)]
    for number in (1, 2, 3):
        z = source[-1] @ state[f"sources.0.W.{number - 1}"].T
        source.append(layer(z, number, "sources.0.") + noise.get((0, number), 0.0))
    for number in (1, 2, 3):
        z = target[-1] @ state[f"W.{number - 1}"].T
        if number > 1:
            z = z + source[number - 1] @ state[f"U.{number}"].T
        target.append(layer(z, number, "") + noise.get((1, number), 0.0))
    return source, target[-1]


@pytest.mark.parametrize("place", [None, (0, 1), (0, 2), (1, 1), (1, 2)])
def test_noise_goes_up_its_own_column_and_through_the_laterals(
    network: Progressive, place: tuple[int, int] | None
) -> None:
    rng = np.random.default_rng(2)
    x = rng.random((7, 4))
    noise = {place: rng.normal(size=(7, WIDTHS[place[1]]))} if place else {}
    added = {where: torch.from_numpy(values) for where, values in noise.items()}
    source, logits = by_hand(network, x, noise)
    given = torch.from_numpy(x)
    np.testing.assert_allclose(network.features(given, noise=added)[-1].numpy(), logits, rtol=1e-10)
    for found, expected in zip(network.source_features(given, noise=added)[0], source, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    if place:
        assert not np.allclose(logits, by_hand(network, x, {})[1])


def test_noise_of_one_row_is_for_all(network: Progressive) -> None:
    x = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.1], dtype=torch.float64)
    for column in (0, 1):
        whole = network.features(x, noise={(column, 1): one.expand(5, 5)})[-1]
        assert torch.equal(network.features(x, noise={(column, 1): one})[-1], whole)
