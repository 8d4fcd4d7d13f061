"""Dropout from given draws: how many are kept, which, and what becomes of the mean."""

from __future__ import annotations

import pytest
import torch

from ladder_search.nn.dropout import dropped


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.95])
def test_a_share_is_zero_and_the_rest_is_larger(rate: float) -> None:
    n = 200_000
    normals = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = dropped(torch.full((n,), 3.0, dtype=torch.float64), normals, torch.tensor(rate, dtype=torch.float64))
    kept = found != 0.0
    assert abs(kept.double().mean() - (1.0 - rate)) < 4 * (rate * (1.0 - rate) / n) ** 0.5 + 1e-12
    assert torch.equal(found[kept].unique(), torch.tensor([3.0 / (1.0 - rate)], dtype=torch.float64))
    if rate > 0.0:
        assert normals[kept].max() < normals[~kept].min()  # a larger rate drops more of the same ones


def test_the_rate_may_be_each_members_own() -> None:
    x, normals = torch.ones(2, 1000), torch.randn(2, 1000, generator=torch.Generator().manual_seed(2))
    rates = torch.tensor([0.0, 0.9])
    found = torch.func.vmap(dropped)(x, normals, rates)
    assert torch.equal(found[0], x[0])
    assert torch.equal(found[1], dropped(x[1], normals[1], rates[1])) and (found[1] == 0.0).sum() > 800
