"""Test-time statistics and classification errors by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.training import evaluation
from ladder_search.training.evaluation import labelled_statistics, scores
from ladder_search.training.feeds import TrainingData

MEMBERS = 3
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 17, (60, 4), dtype=np.uint8)
CLASSES = RNG.integers(0, 3, 60)
ROWS = np.stack([RNG.permutation(60)[:35].reshape(7, 5) for _ in range(MEMBERS)])  # 7 minibatches of 5

X, Y = torch.from_numpy(PIXELS), torch.from_numpy(CLASSES)
FEED = TrainingData(x=X, y=Y, full_scale=16.0)


def errors_of(
    model: Ladder, state: dict[str, torch.Tensor], feed: TrainingData, rows: torch.Tensor | None = None
) -> list[float]:
    return [error for (error,) in scores(model, state, feed, rows).tolist()]


@pytest.fixture
def model() -> Ladder:
    config = LadderConfig(widths=(4, 6, 3), noise_std=(0.3,) * 3, lambda_=(0.0,) * 3, decoder="none")
    return Ladder(config, generator=torch.Generator()).double()


@pytest.fixture
def params(model: Ladder) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(MEMBERS, *value.shape, generator=generator, dtype=torch.float64)
        for name, value in model.named_parameters()
    }


def statistics_by_hand(params: dict[str, torch.Tensor], member: int) -> dict[str, np.ndarray]:
    w1, w2, beta = (params[name][member].numpy() for name in ("W.0", "W.1", "beta.0"))
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("mean_1", "variance_1", "mean_2", "variance_2")}
    for minibatch in ROWS[member]:
        z1 = PIXELS[minibatch] / 16.0 @ w1.T
        h1 = np.maximum((z1 - z1.mean(axis=0)) / np.sqrt(z1.var(axis=0) + 1e-10) + beta, 0.0)
        z2 = h1 @ w2.T
        for name, value in (("1", z1), ("2", z2)):
            found[f"mean_{name}"].append(value.mean(axis=0))
            found[f"variance_{name}"].append(value.var(axis=0) * 5 / 4)
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def probabilities_by_hand(
    params: dict[str, torch.Tensor], statistics: dict[str, np.ndarray], member: int
) -> np.ndarray:
    p = {name: value[member].numpy() for name, value in params.items()}
    h = PIXELS / 16.0
    for layer in (1, 2):
        z = h @ p[f"W.{layer - 1}"].T
        z = (z - statistics[f"mean_{layer}"]) / np.sqrt(statistics[f"variance_{layer}"] + 1e-10)
        h = z + p[f"beta.{layer - 1}"]
        h = np.maximum(h, 0.0) if layer == 1 else p["gamma"] * h
    e = np.exp(h - h.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rows_at_once", [8192, 30, 1], ids="at most {} rows".format)
def test_statistics_are_plain_averages_over_labelled_minibatches(
    model: Ladder, params: dict[str, torch.Tensor], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_ROWS_AT_ONCE", rows_at_once)  # 30 rows are 2 minibatches: 7 leave a short rest
    found = labelled_statistics(model, params, FEED, torch.from_numpy(ROWS))
    for member in range(MEMBERS):
        for name, value in statistics_by_hand(params, member).items():
            np.testing.assert_allclose(found[name][member], value, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rows_at_once", [8192, 21, 1], ids="at most {} rows".format)
@pytest.mark.parametrize("own_rows", [False, True])
def test_errors_are_the_fraction_of_wrong_arguments_of_the_maximum(
    model: Ladder, params: dict[str, torch.Tensor], own_rows: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = [statistics_by_hand(params, member) for member in range(MEMBERS)]
    stacked = {name: torch.from_numpy(np.stack([s[name] for s in statistics])) for name in statistics[0]}
    rows = np.stack([RNG.permutation(60)[:17] for _ in range(MEMBERS)]) if own_rows else np.tile(np.arange(60), (3, 1))
    monkeypatch.setattr(evaluation, "_ROWS_AT_ONCE", rows_at_once)
    found = errors_of(model, {**params, **stacked}, FEED, torch.from_numpy(rows) if own_rows else None)
    for member in range(MEMBERS):
        guess = probabilities_by_hand(params, statistics[member], member).argmax(axis=1)
        assert found[member] == np.mean(guess[rows[member]] != CLASSES[rows[member]])
    assert len(set(found)) > 1  # the members differ, so a mix-up would show


def test_an_example_is_classified_alike_alone_and_in_company(model: Ladder, params: dict[str, torch.Tensor]) -> None:
    state = {**params, **labelled_statistics(model, params, FEED, torch.from_numpy(ROWS))}
    together = errors_of(model, state, FEED)
    alone = [
        errors_of(model, state, TrainingData(x=X[i : i + 1], y=Y[i : i + 1], full_scale=16.0)) for i in range(len(X))
    ]
    np.testing.assert_allclose(np.mean(alone, axis=0), together, rtol=1e-12)


def test_no_gradient_is_recorded_and_nothing_is_changed(model: Ladder, params: dict[str, torch.Tensor]) -> None:
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = labelled_statistics(model, leaves, FEED, torch.from_numpy(ROWS))
    assert not any(value.requires_grad for value in found.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
