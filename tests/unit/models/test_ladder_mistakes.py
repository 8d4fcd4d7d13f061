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

from ladder_search.data import datasets
from ladder_search.data.splits import make_split
from ladder_search.data.streams import LABELLED, BatchStream
from ladder_search.metrics import LEARNING_RATE, TEST_ERROR
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.batchnorm import batch_normalise
from ladder_search.nn.combinators import find_combinator
from ladder_search.nn.pooling import max_pool
from ladder_search.nn.protocol import Batch
from ladder_search.studies import STUDIES
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import DataConfig, TrialSpec

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


# --- packs on the digits ----------------------------------------------------------------------------------------------

SMALL = {"widths": (64, 12, 10), "noise_std": (0.3,) * 3, "lambda_": (1.0, 1.0, 1.0)}


def build(config: LadderConfig, generator: torch.Generator) -> Ladder:
    return Ladder(config, generator=generator)


def digits_pack(
    *, model: dict[str, Any] | None = None, n_labelled: int | None = 40, seed: int = 1, **training: Any
) -> tuple[Pack, MemberSpec]:
    digits = datasets.load("digits")
    spec = MemberSpec(
        model=LadderConfig(**SMALL | (model or {})),
        training=TrainingConfig(
            **{"labelled_batch": 20, "unlabelled_batch": 50, "dtype": "float64", "epochs": 3} | training
        ),
        split=make_split(digits.train_y, n_labelled=n_labelled, n_validation=297, n_classes=10, seed=seed),
        seed=seed,
    )
    x, y = torch.from_numpy(digits.train_x.copy()), torch.from_numpy(digits.train_y.astype(np.int64))
    pack = Pack(spec, build, TrainingData(x=x, y=y, full_scale=digits.full_scale))
    pack.join(spec)
    return pack, spec


def digits_test_set() -> tuple[torch.Tensor, torch.Tensor]:
    digits = datasets.load("digits")
    return torch.from_numpy(digits.test_x.copy()), torch.from_numpy(digits.test_y.astype(np.int64))


def digits_trial(**training: Any) -> TrialSpec:
    return TrialSpec(
        family="ladder",
        data=DataConfig(dataset="digits", labels=50, validation=297),
        model=LadderConfig(**SMALL),
        training=TrainingConfig(**{"labelled_batch": 50, "unlabelled_batch": 100, "epochs": 4} | training),
    )


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


def test_10_pixels_lie_in_0_1_and_are_not_standardised() -> None:
    for row in datasets.DATASETS.values():
        assert row.full_scale == {"digits": 16.0, "mnist": 255.0}.get(row.name, row.full_scale)
    digits = datasets.load("digits")
    assert digits.train_x.max() / digits.full_scale == 1.0
    # At the start z_hat is 0: with all rows in one batch, the layer-0 cost is the mean square of the raw pixels.
    pack, spec = digits_pack(unlabelled_batch=1000)
    pixels = digits.train_x[spec.split.unlabelled] / 16.0
    assert pack.run(1)[0].terms["cost_denoising_0"] == pytest.approx((pixels**2).mean(), rel=1e-10)
    # And the test error is measured on the same scale.
    pack, spec = digits_pack(labelled_batch=40)
    pixels = digits.train_x[spec.split.labelled] / 16.0
    expected = (pixels @ pack.state(0).params["W.0"].numpy().T).mean(axis=0)
    np.testing.assert_allclose(numbers(pack.statistics()[1]["mean_1"][0]), expected, rtol=1e-9, atol=1e-12)


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


def test_14_labels_are_balanced_and_also_unlabelled() -> None:
    labels = np.array([0] * 700 + [1] * 200 + [2] * 100, dtype=np.uint8)  # a draw without balance would be 7 : 2 : 1
    split = make_split(labels, n_labelled=30, n_validation=100, n_classes=3, seed=4)
    assert np.bincount(labels[split.labelled]).tolist() == [10, 10, 10]
    assert set(split.labelled) < set(split.unlabelled)
    assert len(split.unlabelled) == 900
    digits = datasets.load("digits")
    for name, study in STUDIES.items():
        if study.data.dataset != "digits" or study.data.labels is None:
            continue
        member = study.trial(seed=1, label_seed=1).member(digits)
        counts = np.bincount(digits.train_y[member.split.labelled])
        assert set(counts) == {study.data.labels // 10}, name
        assert set(member.split.labelled) < set(member.split.unlabelled), name
        assert len(member.split.unlabelled) == len(digits.train_x) - study.data.validation


def test_15_test_time_statistics_are_averages_over_labelled_minibatches_alone() -> None:
    pack, spec = digits_pack()  # 40 labels in batches of 20, 20 steps in an epoch
    pack.run(3)
    weights = pack.state(0).params["W.0"].numpy()
    stream = BatchStream(spec.split.labelled, 20, seed=spec.seed, tag=LABELLED)
    digits = datasets.load("digits")
    z = [digits.train_x[rows] / 16.0 @ weights.T for rows in stream.batches(0, spec.steps_per_epoch)]
    _, found = pack.statistics()
    np.testing.assert_allclose(found["mean_1"][0], np.mean([m.mean(axis=0) for m in z], axis=0), rtol=1e-9, atol=1e-12)
    unbiased = np.mean([m.var(axis=0, ddof=1) for m in z], axis=0)
    np.testing.assert_allclose(found["variance_1"][0], unbiased, rtol=1e-9)


def test_15_the_test_batch_has_no_say() -> None:
    pack, _ = digits_pack()
    pack.run(10)
    x, y = digits_test_set()
    alone = [pack.test_errors(x[i : i + 1], y[i : i + 1])[0] for i in range(40)]
    assert 0 < sum(alone) < 40
    assert pack.test_errors(x[:40], y[:40])[0] == sum(alone) / 40
    module = pack.module(0)
    pixels = x / datasets.load("digits").full_scale
    with torch.no_grad():
        torch.testing.assert_close(module(pixels.double())[:1], module(pixels[:1].double()), rtol=1e-10, atol=1e-12)


def test_16_the_learning_rate_is_0_002() -> None:
    assert TrainingConfig().lr == 0.002
    assert {study.training.lr for study in STUDIES.values() if study.family == "ladder"} == {0.002}
    pack, _ = digits_pack()
    assert pack.run(1)[0].learning_rate == 0.002
    final = pytest.importorskip("ladder_search.export.final", exc_type=ImportError)
    result = final.train_final(digits_trial(), datasets.load("digits"), seeds=[1001])
    rates = [row[LEARNING_RATE] for row in result.outcomes[0].epochs]
    assert rates == pytest.approx([0.002, 0.002, 0.002, 0.002 * 1 / (4 - 0.67 * 4)], rel=1e-12)


def test_17_the_decay_reaches_the_weights_and_leaves_adam_alone() -> None:
    # 20 steps in an epoch, four epochs, decay from D = 1: the factors by hand.
    factors = [1.0, 1.0, 2 / 3, 1 / 3]
    quiet = {"decoder": "none", "lambda_": (0.0,) * 3, "noise_std": (0.0,) * 3}
    pack, spec = digits_pack(model=quiet, epochs=4, decay_start=0.25, lr=0.01)
    model = Ladder(spec.model, generator=torch.Generator()).double()
    model.load_state_dict(pack.state(0).params, strict=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    digits = datasets.load("digits")
    x, y = torch.from_numpy(digits.train_x / 16.0), torch.from_numpy(digits.train_y.astype(np.int64))
    stream = BatchStream(spec.split.labelled, 20, seed=spec.seed, tag=LABELLED)
    hyper = {name: torch.zeros(3, dtype=torch.float64) for name in ("noise_std", "lambda_")}
    noise = torch.zeros(model.noise_size(20, 50), dtype=torch.float64)
    for epoch, factor in enumerate(factors):
        report = pack.run(20)[0]
        assert report.learning_rate == pytest.approx(0.01 * factor, rel=1e-12)
        optimiser.param_groups[0]["lr"] = 0.01 * factor
        for step in range(20 * epoch, 20 * epoch + 20):
            rows = torch.from_numpy(stream.batch(step))
            optimiser.zero_grad()
            model.cost(Batch(x[rows], y[rows], x[:50]), noise, hyper)[0].backward()
            optimiser.step()
        found = pack.state(0).params
        for name, value in model.named_parameters():
            torch.testing.assert_close(found[name], value.detach(), rtol=1e-9, atol=1e-11)


def test_18_the_error_is_that_of_the_last_weights() -> None:
    pack, _ = digits_pack(lr=0.05)
    x, _ = digits_test_set()
    pack.run(5)
    pixels = x.double() / 16.0
    with torch.no_grad():
        then = pack.module(0)(pixels).argmax(-1)  # as labels, today's weights make no error, so any others make more
    assert pack.test_errors(x, then)[0] == 0.0
    pack.run(15)
    with torch.no_grad():
        now = pack.module(0)(pixels).argmax(-1)
    assert pack.test_errors(x, then)[0] == (now != then).double().mean().item() > 0.0


def test_18_final_training_reports_its_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    final = pytest.importorskip("ladder_search.export.final", exc_type=ImportError)
    script = [0.5, 0.1, 0.2, 0.3]  # the second of four epochs is the best
    spec, x_y = digits_trial(), digits_test_set()

    def scripted(pack: Pack, x: torch.Tensor, y: torch.Tensor) -> dict[int, float]:
        return {slot: script[pack.state(slot).step // 12 - 1] for slot in pack.active}  # 12 steps in an epoch

    with monkeypatch.context() as patch:
        patch.setattr(Pack, "test_errors", scripted)
        result = final.train_final(spec, datasets.load("digits"), seeds=[1001, 1002], curve_every=1)
    for outcome in result.outcomes:
        assert [row[TEST_ERROR] for row in outcome.epochs] == script
        assert outcome.test_error == 0.3
    result = final.train_final(spec, datasets.load("digits"), seeds=[1001, 1002])
    for outcome in result.outcomes:
        with torch.no_grad():
            guess = result.modules[outcome.seed](x_y[0] / 16.0).argmax(-1)
        assert outcome.test_error == pytest.approx((guess != x_y[1]).double().mean().item(), abs=1.5 / len(guess))


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
    h = torch.arange(15.0 * 15).reshape(1, 1, 15, 15)
    pooled = max_pool(h, 2)
    assert pooled.shape == (1, 1, 8, 8)
    assert max_pool(torch.zeros(2, 3, 34, 34), 2).shape == (2, 3, 17, 17)
    # The last row and column are windows of their own, cut by the border.
    assert pooled[0, 0, 7, 7] == 224.0
    assert pooled[0, 0, 0].tolist() == [16.0, 18.0, 20.0, 22.0, 24.0, 26.0, 28.0, 29.0]
