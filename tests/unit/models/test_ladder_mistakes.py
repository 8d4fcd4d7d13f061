"""Twenty mistakes, each made by some re-implementation of the ladder network, and for each a test that it would fail.

The numbers are those of the list in ``tests/golden/plant_mistakes.py``, which plants every mistake and watches its test
fail. Expected values are worked out by hand in NumPy, mostly with a combinator made constant: then ``z_hat = c``, and a
layer's denoising cost has a closed form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.batchnorm import batch_normalise
from ladder_search.nn.combinators import find_combinator
from ladder_search.nn.maps import MaxPool
from ladder_search.nn.protocol import Batch

N_LAB, N_UNL = 6, 11


WIDTHS = (5, 4, 3)


# --- a small network and what it costs --------------------------------------------------------------------------------


def network(widths: tuple[int, ...] = WIDTHS, **changes: Any) -> Ladder:
    """A network in double precision whose beta and gamma are all different, so that none can be forgotten."""
    zeros = (0.0,) * len(widths)
    config = LadderConfig(**{"widths": widths, "noise_std": zeros, "lambda_": zeros} | changes)
    generator = torch.Generator().manual_seed(3)
    model = Ladder(config, generator=generator).double()
    with torch.no_grad():
        for value in (*model.beta, model.gamma):
            value.add_(torch.rand(value.shape, generator=generator, dtype=torch.float64))
    return model


def set_combinator(model: Ladder, layer: int, **rows: float) -> None:
    """Set rows a1..a10 of a layer's combinator by name, all others to 0: a5 alone makes ``z_hat`` that constant."""
    with torch.no_grad():
        model.g[str(layer)].a.zero_()
        for name, value in rows.items():
            model.g[str(layer)].a[int(name[1:]) - 1] = value


def rows_of(model: Ladder, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random((N_LAB + N_UNL, model.config.widths[0])))
    y = torch.from_numpy(rng.integers(0, model.config.widths[-1], N_LAB))
    return Batch(x[:N_LAB], y, x[N_LAB:])


def terms_of(
    model: Ladder,
    batch: Batch,
    *,
    sigma: Sequence[float] | None = None,
    lambda_: Sequence[float] | None = None,
    seed: int = 1,
) -> dict[str, torch.Tensor]:
    """Cost terms of one step; no noise and lambda 1 everywhere unless told otherwise."""
    layers = len(model.config.widths)
    hyper = {"noise_std": sigma or [0.0] * layers, "lambda_": lambda_ or [1.0] * layers}
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in hyper.items()}
    _, terms = model.cost(batch, noise_of(model, seed), tensors)
    return dict(zip(model.term_names, terms, strict=True))


def noise_of(model: Ladder, seed: int = 1) -> torch.Tensor:
    size = model.noise_size(N_LAB, N_UNL)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normalised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-10)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def constant_cost_of_layer_1(weights: np.ndarray, x_unlabelled: np.ndarray, c: float) -> Any:
    """Mean over rows and units of (z - (c - m)/s)^2 with z = (z_pre - m)/s: m, s of the clean unlabelled rows.

    That is the mean over units of (variance + (m - c)^2) / (variance + epsilon). Complex weights are welcome.
    """
    z_pre = x_unlabelled @ weights.T
    mean = z_pre.mean(axis=0)
    variance = ((z_pre - mean) ** 2).mean(axis=0)
    return ((variance + (mean - c) ** 2) / (variance + 1e-10)).mean()


# --- the twenty -------------------------------------------------------------------------------------------------------


def test_01_z_hat_is_divided_by_the_root_of_the_variance() -> None:
    model, c = network(), 0.7
    batch = rows_of(model)
    set_combinator(model, 1, a5=c)
    expected = constant_cost_of_layer_1(numbers(model.W[0]), numbers(batch.x_unlabelled), c)
    assert terms_of(model, batch)["cost_denoising_1"].item() == pytest.approx(expected, rel=1e-10)


def test_02_z_hat_is_normalised_by_the_clean_paths_statistics() -> None:
    model, c = network(), 0.7
    batch = rows_of(model)
    set_combinator(model, 1, a5=c)
    expected = constant_cost_of_layer_1(numbers(model.W[0]), numbers(batch.x_unlabelled), c)
    found = terms_of(model, batch, sigma=[2.0, 2.0, 2.0])  # the corrupted path's statistics are far away
    assert found["cost_denoising_1"].item() == pytest.approx(expected, rel=1e-10)


def test_03_layer_0_is_not_normalised() -> None:
    model = network()
    batch = rows_of(model)
    x = numbers(batch.x_unlabelled)
    for c in (0.0, 0.7):
        set_combinator(model, 0, a5=c)
        expected = ((x - c) ** 2).mean()
        assert terms_of(model, batch)["cost_denoising_0"].item() == pytest.approx(expected, rel=1e-12)
    # Nor is its lateral signal: with v = 1 and mu = 0 it comes back as it is, noise and all.
    set_combinator(model, 0, a10=1.0)
    sigma = 0.3
    n = numbers(noise_of(model))[N_LAB * 5 : (N_LAB + N_UNL) * 5]
    found = terms_of(model, batch, sigma=[sigma, 0.0, 0.0])["cost_denoising_0"].item()
    assert found == pytest.approx(((sigma * n) ** 2).mean(), rel=1e-12)


def test_04_labelled_and_unlabelled_rows_have_statistics_of_their_own() -> None:
    model = network()
    batch, others = rows_of(model), rows_of(model, seed=9)
    sigma = [0.3, 0.3, 0.3]
    before = terms_of(model, batch, sigma=sigma)
    company = terms_of(model, dataclasses.replace(batch, x_unlabelled=5 * others.x_unlabelled), sigma=sigma)
    assert company["cost_supervised"].item() == pytest.approx(before["cost_supervised"].item(), rel=1e-12)
    top = terms_of(model, Batch(5 * others.x_labelled, others.y, batch.x_unlabelled), sigma=sigma)
    for layer in range(3):
        name = f"cost_denoising_{layer}"
        assert top[name].item() == pytest.approx(before[name].item(), rel=1e-12)


def test_04_training_uses_and_keeps_no_running_statistics() -> None:
    model = network()
    batch, sigma = rows_of(model), [0.3, 0.3, 0.3]
    before = terms_of(model, batch, sigma=sigma)
    generator = torch.Generator().manual_seed(5)
    for name, value in model.named_buffers():
        value.copy_(torch.rand(value.shape, generator=generator) + (1.0 if "variance" in name else 0.0))
    kept = {name: value.clone() for name, value in model.named_buffers()}
    for seed in range(3):
        terms_of(model, rows_of(model, seed=seed), sigma=sigma)
    after = terms_of(model, batch, sigma=sigma)
    assert {name: value.item() for name, value in after.items()} == {n: v.item() for n, v in before.items()}
    assert all(torch.equal(value, kept[name]) for name, value in model.named_buffers())


def test_05_targets_and_statistics_carry_gradients() -> None:
    model, c = network(), 0.7
    batch = rows_of(model)
    set_combinator(model, 1, a5=c)
    (found,) = torch.autograd.grad(terms_of(model, batch)["cost_denoising_1"], model.W[0])
    weights, x = numbers(model.W[0]), numbers(batch.x_unlabelled)
    expected = np.empty_like(weights)
    for place in np.ndindex(weights.shape):  # derivative by a complex step: exact to rounding
        shifted = weights.astype(complex)
        shifted[place] += 1e-30j
        expected[place] = constant_cost_of_layer_1(shifted, x, c).imag / 1e-30
    assert np.abs(expected).min() > 1e-6
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_05_gradients_are_the_slopes_of_the_costs() -> None:
    # Detaching changes no cost, only its gradient; so the slope, taken from costs alone, gives it away. (Above, a
    # constant z_hat hides a detached target: batch normalisation takes its gradient out.)
    model, sigma = network(), [0.3, 0.3, 0.3]
    batch = rows_of(model)
    for layer in range(3):
        set_combinator(model, layer, a4=0.4, a5=0.3, a9=0.2, a10=0.5)
    generator = torch.Generator().manual_seed(11)
    for weight in model.W:
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        start = weight.detach().clone()
        for name in ("cost_denoising_0", "cost_denoising_1", "cost_denoising_2"):
            (gradient,) = torch.autograd.grad(terms_of(model, batch, sigma=sigma)[name], weight)
            costs = []
            for h in (-1e-6, 1e-6):
                with torch.no_grad():
                    weight.copy_(start + h * direction)
                    costs.append(terms_of(model, batch, sigma=sigma)[name].item())
            with torch.no_grad():
                weight.copy_(start)
            slope = (costs[1] - costs[0]) / 2e-6
            assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_06_the_softmax_is_applied_once() -> None:
    model = network((3, 3), decoder="none")
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    x = torch.eye(3, dtype=torch.float64)[y]
    with torch.no_grad():
        model.W[0].copy_(torch.eye(3))
        model.beta[0].zero_()
        model.gamma.fill_(50.0)
    sure = terms_of(model, Batch(x, y, x[:0]))["cost_supervised"].item()
    assert 0.0 <= sure < 1e-12  # a second softmax would leave ln(e + 2) - 1 = 0.55; with ten classes 1.461
    with torch.no_grad():
        model.gamma.fill_(0.5)
    z = normalised(numbers(x))
    expected = -np.log(softmax(0.5 * z)[np.arange(6), numbers(y)]).mean()
    assert terms_of(model, Batch(x, y, x[:0]))["cost_supervised"].item() == pytest.approx(expected, rel=1e-10)


def test_07_combinators_start_with_a2_and_a7_one_and_the_rest_zero() -> None:
    assert LadderConfig().combinator == "gauss"
    model = network()
    for layer, g in model.g.items():
        expected = np.zeros((10, WIDTHS[int(layer)]))
        expected[[1, 6]] = 1.0
        np.testing.assert_array_equal(numbers(g.a), expected)
    batch = rows_of(model)
    found = terms_of(model, batch, sigma=[0.3, 0.3, 0.3])
    x = numbers(batch.x_unlabelled)
    # So z_hat = 0, whatever comes in.
    assert found["cost_denoising_0"].item() == pytest.approx((x**2).mean(), rel=1e-12)
    assert found["cost_denoising_1"].item() == pytest.approx(
        constant_cost_of_layer_1(numbers(model.W[0]), x, 0.0), rel=1e-10
    )
    std = 0.5
    others = [find_combinator("gauss")(4, std, torch.Generator().manual_seed(seed)).a for seed in (1, 2)]
    assert torch.equal(*others)


def test_08_the_decoders_top_sees_normalised_probabilities() -> None:
    model, sigma = network((5, 3)), 0.4
    batch = rows_of(model)
    set_combinator(model, 1, a4=1.0)  # z_hat = u
    noise = numbers(noise_of(model))[(N_LAB + N_UNL) * 5 :].reshape(-1, 3)[N_LAB:]
    z_pre = numbers(batch.x_unlabelled) @ numbers(model.W[0]).T
    z = normalised(z_pre)
    p = softmax(numbers(model.gamma) * (z + sigma * noise + numbers(model.beta[0])))
    estimate = (normalised(p) - z_pre.mean(axis=0)) / np.sqrt(z_pre.var(axis=0) + 1e-10)
    found = terms_of(model, batch, sigma=[0.0, sigma])["cost_denoising_1"].item()
    assert found == pytest.approx(((z - estimate) ** 2).mean(), rel=1e-10)


def test_08_u_is_normalised_at_every_layer() -> None:
    model = network()
    batch, sigma = rows_of(model), [0.3, 0.3, 0.3]
    set_combinator(model, 2, a10=1.0)  # z_hat = z_tilde: something to carry down
    for layer in (1, 0):
        set_combinator(model, layer, a4=1.0)  # z_hat = u
    before = terms_of(model, batch, sigma=sigma)
    with torch.no_grad():
        for v in model.V.values():
            v.mul_(30.0)
    after = terms_of(model, batch, sigma=sigma)
    for layer in (0, 1):  # normalising takes away what a factor on V has put in
        name = f"cost_denoising_{layer}"
        assert after[name].item() == pytest.approx(before[name].item(), rel=1e-6)


def test_09_epsilon_is_1e_10() -> None:
    x = np.array([[2e-5], [-2e-5], [0.0]])
    found = numbers(batch_normalise(torch.from_numpy(x)))
    np.testing.assert_allclose(found, x / np.sqrt(8e-10 / 3 + 1e-10), rtol=1e-12)
    # In the decoder, whose u hardly varies in the first steps:
    model = network((3, 2))
    batch = rows_of(model)
    set_combinator(model, 1, a10=1e-5)  # z_hat = 1e-5 * z_tilde
    set_combinator(model, 0, a4=1.0)  # z_hat = u
    z_hat = 1e-5 * normalised(numbers(batch.x_unlabelled) @ numbers(model.W[0]).T)
    u = normalised(z_hat @ numbers(model.V["0"]).T)
    expected = ((numbers(batch.x_unlabelled) - u) ** 2).mean()
    assert terms_of(model, batch)["cost_denoising_0"].item() == pytest.approx(expected, rel=1e-9)


def test_11_lambda_multiplies_the_mean_over_units() -> None:
    for width in (5, 50):
        model = network((width, 4, 3))
        batch = rows_of(model)
        x = numbers(batch.x_unlabelled)
        found = terms_of(model, batch, lambda_=[1000.0, 10.0, 0.1])
        assert found["cost_denoising_0"].item() == pytest.approx(1000.0 * (x**2).mean(), rel=1e-12)
        expected = 10.0 * constant_cost_of_layer_1(numbers(model.W[0]), x, 0.0)
        assert found["cost_denoising_1"].item() == pytest.approx(expected, rel=1e-10)


def test_12_w_and_v_have_no_bias() -> None:
    shapes = {name: tuple(value.shape) for name, value in network().named_parameters()}
    assert shapes == {
        "W.0": (4, 5),
        "W.1": (3, 4),
        "V.0": (5, 4),
        "V.1": (4, 3),
        "beta.0": (4,),
        "beta.1": (3,),
        "gamma": (3,),
        **{f"g.{layer}.a": (10, n) for layer, n in enumerate(WIDTHS)},
    }


def test_13_noise_comes_after_batch_normalisation_and_at_the_top_too() -> None:
    model = network()
    batch = rows_of(model)
    sizes = np.cumsum([(N_LAB + N_UNL) * n for n in WIDTHS])
    flat = np.split(numbers(noise_of(model)), sizes[:-1])
    noise = [layer.reshape(N_LAB + N_UNL, -1)[:N_LAB] for layer in flat]
    w1, w2, b1, b2 = (numbers(value) for value in (*model.W, *model.beta))
    for sigma in ([0.0, 0.0, 0.6], [0.0, 0.5, 0.0], [0.4, 0.5, 0.6]):
        h = numbers(batch.x_labelled) + sigma[0] * noise[0]
        h = np.maximum(normalised(h @ w1.T) + sigma[1] * noise[1] + b1, 0.0)
        logits = numbers(model.gamma) * (normalised(h @ w2.T) + sigma[2] * noise[2] + b2)
        expected = -np.log(softmax(logits)[np.arange(N_LAB), numbers(batch.y)]).mean()
        found = terms_of(model, batch, sigma=sigma)["cost_supervised"].item()
        assert found == pytest.approx(expected, rel=1e-10), sigma


def test_19_gamma_multiplies_the_sum_of_z_and_beta() -> None:
    model = network((5, 3), decoder="none")
    batch = rows_of(model)
    z = normalised(numbers(batch.x_labelled) @ numbers(model.W[0]).T)
    p = softmax(numbers(model.gamma) * (z + numbers(model.beta[0])))
    expected = -np.log(p[np.arange(N_LAB), numbers(batch.y)]).mean()
    assert terms_of(model, batch)["cost_supervised"].item() == pytest.approx(expected, rel=1e-10)
    # The order matters here: the other one gives another number.
    wrong = softmax(numbers(model.gamma) * z + numbers(model.beta[0]))
    assert abs(-np.log(wrong[np.arange(N_LAB), numbers(batch.y)]).mean() - expected) > 1e-3


def test_20_pooling_keeps_partial_windows() -> None:
    """Conv-Large on CIFAR-10: 34 -> 17 after the first pool, 15 -> 8 (not 7) after the second."""
    h = torch.arange(15.0 * 15).reshape(1, 15, 15, 1)
    pooled = MaxPool(2).up(h, None).permute(0, 3, 1, 2)
    assert pooled.shape == (1, 1, 8, 8)
    assert MaxPool(2).up(torch.zeros(2, 34, 34, 3), None).shape == (2, 17, 17, 3)
    # The last row and column are windows of their own, cut by the border.
    assert pooled[0, 0, 7, 7] == 224.0
    assert pooled[0, 0, 0].tolist() == [16.0, 18.0, 20.0, 22.0, 24.0, 26.0, 28.0, 29.0]
