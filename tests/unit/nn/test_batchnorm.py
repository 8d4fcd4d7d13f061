"""Batch normalisation of groups of rows against NumPy, group by group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder_search.nn.batchnorm import EPSILON, batch_normalise, batch_statistics, normalise, normalise_groups

RNG = np.random.default_rng(0)


def by_hand(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-10)


@pytest.mark.parametrize("rows", [(5,), (6, 6), (4, 4, 4), (3, 7), (5, 8, 8), (2, 2, 9)], ids=str)
def test_every_group_is_normalised_by_its_own_rows(rows: tuple[int, ...]) -> None:
    groups = [RNG.normal(3.0 * i, 1.0 + i, (n, 4)) for i, n in enumerate(rows)]
    z, mean, scale = normalise_groups(torch.from_numpy(np.concatenate(groups)), rows)
    np.testing.assert_allclose(z, np.concatenate([by_hand(group) for group in groups]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, groups[-1].mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(scale, 1.0 / np.sqrt(groups[-1].var(axis=0) + 1e-10), rtol=1e-13)


def test_equal_and_unequal_groups_agree_on_the_same_rows() -> None:
    # Two ways through the code: the group sizes decide which is taken, and must not show in the numbers.
    x = torch.from_numpy(RNG.normal(1.0, 2.0, (10, 3))).requires_grad_()
    equal = normalise_groups(x, (5, 5))
    longer = normalise_groups(torch.cat([x, x[5:7]]), (5, 5, 2))[0][:10]
    torch.testing.assert_close(equal[0], longer, rtol=1e-13, atol=1e-13)
    weights = torch.arange(30, dtype=torch.float64).reshape(10, 3)
    gradients = [torch.autograd.grad((weights * z).sum(), x)[0] for z in (equal[0], longer)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_the_statistics_carry_gradients() -> None:
    x = torch.from_numpy(RNG.normal(0.0, 1.0, (6, 2)))
    assert torch.autograd.gradcheck(lambda x: normalise_groups(x, (3, 3)), (x.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda x: normalise_groups(x, (2, 4)), (x,))


def test_the_variance_is_biased_and_survives_a_large_mean() -> None:
    x = torch.tensor([[1e6 + 1.0], [1e6 + 2.0], [1e6 + 3.0]], dtype=torch.float32)
    mean, variance = batch_statistics(x)
    assert mean.item() == 1e6 + 2.0
    assert variance.item() == pytest.approx(2 / 3, rel=1e-6)


def test_epsilon_is_1e_10_and_stands_under_the_root() -> None:
    assert EPSILON == 1e-10
    x = np.array([[1e-5], [-1e-5]])  # variance 1e-10, as large as epsilon
    np.testing.assert_allclose(batch_normalise(torch.from_numpy(x)), x / np.sqrt(2e-10), rtol=1e-13)
    constant = batch_normalise(torch.full((4, 2), 0.25))
    assert torch.equal(constant, torch.zeros(4, 2))


def test_given_statistics_are_used_as_they_are() -> None:
    z = normalise(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0, 1.0]), torch.tensor([4.0, 9.0]))
    torch.testing.assert_close(z, torch.tensor([[1.0, 0.0]]))
