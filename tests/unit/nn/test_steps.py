"""Norms of steps that stand one after the other: whose statistics, which rows, what is stored."""

from __future__ import annotations

import torch

from ladder_search.nn.steps import BatchNorm, Found, LayerNorm, Steps, as_maps, averages, in_turn


def maps(steps: int = 3, rows: int = 4) -> torch.Tensor:
    """(steps * rows, 2, 3, 5), every step of another mean and spread."""
    draws = torch.Generator().manual_seed(1)
    z = torch.randn(steps, rows, 2, 3, 5, generator=draws, dtype=torch.float64)
    return (z * torch.arange(1, steps + 1).view(-1, 1, 1, 1, 1) + torch.arange(5)).flatten(0, 1)


def test_inputs_become_maps_step_after_step() -> None:
    x = torch.arange(2 * 3 * 2 * 4 * 5).view(2, 3, 2, 4, 5)  # rows, steps, channels, height, width
    found = as_maps(x, (2, 4, 5))
    assert found.shape == (6, 4, 5, 2)
    assert torch.equal(found[1 * 2 + 1, :, :, 1], x[1, 1, 1])  # row 1 of step 1
    assert torch.equal(in_turn(x)[4], x[0, 2])


def test_every_step_has_statistics_of_its_own() -> None:
    z, norm = maps(), BatchNorm(5).double()
    found = norm(z, Steps(4)).view(3, -1, 5)
    torch.testing.assert_close(found.mean(1), torch.zeros(3, 5, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.var(1, correction=0), torch.ones(3, 5, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm(z[4:8], Steps(4)), norm(z, Steps(4))[4:8])


def test_a_layer_norm_looks_at_one_row_alone() -> None:
    z, norm = maps(), LayerNorm(5).double()
    found = norm(z, Steps(4))
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(12, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(found[:1], norm(z[:1], Steps(1)))


def test_statistics_are_those_of_rows_that_are_present() -> None:
    z, norm = maps(), BatchNorm(5).double()
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    found = norm(z, Steps(4, present.flatten()))
    torch.testing.assert_close(found[:4], norm(z[:4], Steps(4)))
    torch.testing.assert_close(found[[4, 6]], norm(z[[4, 6]], Steps(2)))
    torch.testing.assert_close(found[8:], z[8:], rtol=1e-5, atol=0)  # where nobody is, nothing is divided by nothing
    torch.testing.assert_close(norm(z[4:8], Steps(4, present.flatten()).at(1)), found[4:8])
    torch.testing.assert_close(norm(z[:8], Steps(4, present.flatten()).until(2)), found[:8])


def test_absent_rows_have_no_part_in_gradients() -> None:
    z, norm = maps().requires_grad_(), BatchNorm(5).double()
    present = torch.tensor([1, 0, 1, 1] * 3, dtype=torch.bool)
    found = norm(z, Steps(4, present))
    (gradient,) = torch.autograd.grad((found[present] ** 3).sum(), z)
    assert not gradient[~present].any()
    assert gradient[present].any()


def test_stored_statistics_are_averages_that_count_rows() -> None:
    z, norm, found = maps(), BatchNorm(5).double(), Found()
    network = torch.nn.Sequential(norm)
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    norm(z, Steps(4, present.flatten(), found=found))
    values = averages(network, found)
    first, second = z[:4].flatten(0, 2), z[[4, 6]].flatten(0, 2)
    torch.testing.assert_close(values["0.mean"], (4 * first.mean(0) + 2 * second.mean(0)) / 6)
    both = (4 * first.var(0, correction=0) + 2 * second.var(0, correction=0)) / 6
    torch.testing.assert_close(values["0.variance"], both)

    network.load_state_dict(values, strict=False)
    with torch.no_grad():
        norm.scale.fill_(2.0)
        norm.shift.fill_(1.0)
    expected = 2 * (z - values["0.mean"]) / (values["0.variance"] + 1e-5).sqrt() + 1
    torch.testing.assert_close(norm(z, Steps(4, stored=True)), expected)
