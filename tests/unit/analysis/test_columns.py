"""Sensitivities against closed forms of additive networks, against finite differences, and their refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ladder_search.analysis import columns as columns_module
from ladder_search.analysis.columns import (
    CAP,
    Sensitivity,
    SensitivityConfig,
    critical_sigma,
    sensitivities,
    threshold,
)
from ladder_search.errors import CheckpointError, SettingError, UnknownNameError
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig

WIDTHS = (6, 7, 5, 4, 3)


class Additive:
    """One hidden layer: column k has ``h = x B_k'`` and adds ``h A_k'`` to the logits; the last one is the target."""

    def __init__(self, *columns: tuple[Any, Any]) -> None:
        self.columns = [tuple(torch.as_tensor(m, dtype=torch.float64) for m in column) for column in columns]

    def source_features(self, x: Tensor) -> list[list[Tensor]]:
        return [[x, x @ B.T] for B, _ in self.columns[:-1]]

    def features(self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None) -> list[Tensor]:
        hidden = [x @ B.T for B, _ in self.columns]
        read = [h + noise[k, 1] if noise and (k, 1) in noise else h for k, h in enumerate(hidden)]
        logits = torch.stack([h @ A.T for h, (_, A) in zip(read, self.columns, strict=True)]).sum(0)
        return [x, hidden[-1], logits]


def two_classes(*weights: tuple[float, float]) -> tuple[Additive, Tensor, Tensor]:
    """Inputs +1 and -1; column k has one unit ``b_k x`` that speaks for class 0 with ``a_k`` (a_k, b_k the weights)."""
    x = torch.ones(1000, 1, dtype=torch.float64)
    x[::2] = -1.0
    return Additive(*([[[b]], [[a], [-a]]] for a, b in weights)), x, (x[:, 0] < 0).long()


def names(columns: int) -> tuple[str, ...]:
    return (*(f"source {k}" for k in range(columns - 1)), "target")


def examined(network: Any, x: Tensor, y: Tensor, columns: int = 2, **settings: Any) -> Sensitivity:
    config = SensitivityConfig(**{"draws": 20, **settings})
    return sensitivities(network, x, y, config, columns=names(columns))


def progressive(sources: Sequence[Sequence[int]] = (WIDTHS,), **changes: Any) -> tuple[Progressive, Tensor, Tensor]:
    """A network with random weights whose logits are normalised, so that it uses all classes, and its own answers."""
    draws = torch.Generator().manual_seed(1)

    def ladder(widths: Sequence[int]) -> Ladder:
        zeros = (0.0,) * len(widths)
        config = LadderConfig(widths=tuple(widths), noise_std=zeros, lambda_=zeros, decoder="none")
        return Ladder(config, generator=draws)

    config = ProgressiveConfig(**{"widths": WIDTHS, "alpha_init": (1.0,) * 3, **changes})
    network = Progressive(config, generator=draws, sources=[ladder(widths) for widths in sources]).double()
    x = torch.rand(60, 6, generator=draws, dtype=torch.float64)
    for name, value in network.named_parameters():
        if "beta" in name or name.startswith("c."):  # at zero, where they start, a unit without input is at its kink
            value.data = 0.1 * torch.randn(value.shape, generator=draws, dtype=torch.float64)
    for source in network.sources:
        source.load_state_dict(source.statistics(config.scale * x.unsqueeze(0)), strict=False)
    network.load_state_dict(network.statistics(x.unsqueeze(0)), strict=False)
    network.eval().requires_grad_(False)
    return network, x, network(x).argmax(-1)


# --- the critical sigma


def test_the_critical_sigma_of_a_function_that_is_known() -> None:
    def accuracy(sigma: float) -> float:
        return NormalDist().cdf(1.0 / sigma)

    expected = 1.0 / NormalDist().inv_cdf(0.75)
    for start in (1.0, 0.001, 300.0):
        assert critical_sigma(accuracy, 0.75, start=start, cap=1e3) == pytest.approx(expected, rel=0.006)


def test_noise_beyond_the_cap_is_not_tried() -> None:
    tried: list[float] = []

    def accuracy(sigma: float) -> float:
        tried.append(sigma)
        return 0.4 if sigma > 1000.0 else 0.9

    assert critical_sigma(accuracy, 0.45, start=1.0, cap=1000.0) is None
    assert max(tried) == 1000.0
    assert critical_sigma(lambda sigma: 0.4 if sigma > 900 else 0.9, 0.45, start=1.0, cap=1000.0) == pytest.approx(
        900, rel=0.006
    )


def test_the_first_noise_that_halves_counts() -> None:
    def accuracy(sigma: float) -> float:  # recovers, and falls again
        return 0.9 if sigma < 3.0 or 20.0 < sigma < 100.0 else 0.2

    assert critical_sigma(accuracy, 0.45, start=1.0, cap=1e3) == pytest.approx(3.0, rel=0.006)


def test_what_is_half() -> None:
    assert threshold(0.9, 10, "accuracy") == pytest.approx(0.45)
    assert threshold(0.9, 10, "chance") == pytest.approx(0.5)
    assert threshold(0.05, 10, "accuracy") == pytest.approx(0.025)
    with pytest.raises(SettingError, match=r"more than 10 % of the rows correctly, got 9 %; analyse a trained"):
        threshold(0.09, 10, "chance")
    with pytest.raises(SettingError, match=r"more than 0 %"):
        threshold(0.0, 10, "accuracy")


# --- perturbation sensitivity


def test_two_columns_of_one_unit_by_the_normal_distribution() -> None:
    # The logits differ by 2 (a_0 b_0 + a_1 b_1) x = 8 x. Noise sigma b_k on column k adds 2 a_k b_k sigma n: the answer
    # is right with probability Phi(4 / (a_k b_k sigma)), and half way from 1 to a guess, 1/2, is 3/4.
    network, x, y = two_classes((3.0, 1.0), (0.5, 2.0))
    z = NormalDist().inv_cdf(0.75)
    found = examined(network, x, y, half="chance", draws=40)
    source, target = found.layers
    assert (found.accuracy, found.halved, found.cap) == (1.0, 0.75, CAP)
    assert (source.column, target.column, source.layer, source.units) == ("source 0", "target", 1, 1)
    assert source.sigma == pytest.approx(4 / (3 * z), rel=0.03)
    assert target.sigma == pytest.approx(4 / z, rel=0.03)
    assert source.precision == pytest.approx(1 / (source.sigma or 0) ** 2)
    assert (source.aps, target.aps) == (pytest.approx(0.9, abs=0.01), pytest.approx(0.1, abs=0.01))


def test_absolute_noise_does_not_know_the_scale_of_a_unit() -> None:
    network, x, y = two_classes((3.0, 1.0), (0.5, 2.0))
    z = NormalDist().inv_cdf(0.75)
    found = examined(network, x, y, half="chance", noise="absolute", draws=40)
    assert [one.sigma for one in found.layers] == pytest.approx([4 / (3 * z), 4 / (0.5 * z)], rel=0.03)
    assert [one.aps for one in found.layers] == pytest.approx([36 / 37, 1 / 37], abs=0.005)
    assert found.cap == 2 * CAP  # the largest deviation is that of the target's unit


def test_half_of_the_accuracy_of_ten_classes() -> None:
    # Unit c is 1 for class c and 0 otherwise; with noise on all ten the right one stays the largest with probability
    # integral of phi(t) Phi(t + 1/sigma)^9 dt.
    t = np.linspace(-9.0, 9.0, 20_001)
    normal = NormalDist()
    density = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)

    def right(sigma: float) -> float:
        below = np.array([normal.cdf(value) for value in t[::20] + 1 / sigma])
        return float(np.sum(density[::20] * below**9) * 20 * (t[1] - t[0]))

    low, high = 0.05, 5.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if right(middle) <= 0.5 else (middle, high)
    x = torch.eye(10, dtype=torch.float64).repeat(60, 1)
    network = Additive((np.eye(10), np.eye(10)))
    absolute = examined(network, x, x.argmax(-1), 1, noise="absolute").layers[0]
    assert absolute.sigma == pytest.approx(low, rel=0.03)
    assert absolute.aps == absolute.afs == 1.0
    # A unit that is 1 for a tenth of the rows has the variance 0.09.
    scaled = examined(network, x, x.argmax(-1), 1).layers[0]
    assert scaled.sigma == pytest.approx(low / 0.3, rel=0.03)


def test_a_unit_that_never_changes_takes_no_scaled_noise() -> None:
    _, x, y = two_classes((1.0, 1.0))
    x = torch.cat([x, torch.full_like(x, 0.3)], dim=1)
    # The second unit would decide everything if it were disturbed.
    network = Additive((np.eye(2), [[1.0, 100.0], [-1.0, 100.0]]))
    (one,) = examined(network, x, y, 1, half="chance").layers
    assert (one.units, one.constant) == (2, 1)
    assert one.sigma == pytest.approx(1 / NormalDist().inv_cdf(0.75), rel=0.04)


def test_an_unused_column_is_insensitive_and_its_precision_a_bound() -> None:
    network, x, y = two_classes((0.0, 5.0), (1.0, 1.0))
    found = examined(network, x, y, half="chance")
    source, target = found.layers
    assert found.insensitive == (source,)
    assert (source.sigma, source.precision, source.fisher, source.afs) == (None, pytest.approx(1e-6), 0.0, 0.0)
    assert source.aps == pytest.approx(1e-6 / (1e-6 + target.precision))
    assert (source.aps or 0) + (target.aps or 0) == pytest.approx(1.0)
    assert target.afs == 1.0


def test_where_every_column_is_insensitive_there_is_nothing_to_share() -> None:
    # Class 0 is always the answer, and always right: noise on units that have no weights changes nothing.
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = Additive((np.eye(2), np.zeros((2, 2))), (np.eye(2), np.zeros((2, 2))))
    found = examined(network, x, torch.zeros(50, dtype=torch.int64))
    assert [(one.sigma, one.aps, one.afs) for one in found.layers] == [(None, None, None)] * 2


# --- Fisher sensitivity


def test_fisher_information_of_a_linear_layer_in_closed_form() -> None:
    rng = np.random.default_rng(1)
    B = [rng.normal(size=(4, 3)), rng.normal(size=(2, 3))]
    A = [rng.normal(size=(5, 4)), rng.normal(size=(5, 2))]
    x = rng.normal(size=(30, 3))
    logits = sum(x @ b.T @ a.T for a, b in zip(A, B, strict=True))
    pi = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = []
    for a, b in zip(A, B, strict=True):
        # The Fisher information of the logits is diag(pi) - pi pi'; h^ = h / s makes it s A' (...) A s.
        F = np.mean([a.T @ (np.diag(p) - np.outer(p, p)) @ a for p in pi], axis=0)
        expected.append(float(np.sum(np.diag(F) * (x @ b.T).var(0))))
    found = examined(
        Additive(*zip(B, A, strict=True)), torch.from_numpy(x), torch.from_numpy(logits.argmax(1)), draws=1
    )
    assert [one.fisher for one in found.layers] == pytest.approx(expected, rel=1e-10)
    assert [one.afs for one in found.layers] == pytest.approx(np.array(expected) / sum(expected), rel=1e-10)


@pytest.mark.parametrize(
    "changes", [{}, {"adapter": "sum", "batch_norm": False}, {"adapter": "linear", "pixels": "raw"}, {"alpha": "fixed"}]
)
def test_fisher_information_against_finite_differences(changes: dict[str, Any]) -> None:
    # The divergence of the answers at h + e from those at h is F e^2 / 2 for a small step e of one activation.
    network, x, y = progressive((WIDTHS, (*WIDTHS[:3], 3)), **changes)
    found = examined(network, x, y, 3, draws=1, rows=len(x))
    log_pi = torch.log_softmax(network.features(x)[-1], dim=-1)
    clean = [*network.source_features(x), network.features(x)]
    step = 1e-5
    assert len(found.layers) == 9
    for one in found.layers:
        column = found.columns.index(one.column)
        total = 0.0
        for unit in range(one.units):
            e = torch.zeros(one.units, dtype=torch.float64)
            e[unit] = step * max(1.0, clean[column][one.layer][:, unit].abs().max().item())
            size = e[unit].item()
            for sign in (1.0, -1.0):
                moved = torch.log_softmax(network.features(x, noise={(column, one.layer): sign * e})[-1], dim=-1)
                divergence = (log_pi.exp() * (log_pi - moved)).sum(-1).mean().item()
                total += divergence / size**2 * np.var(clean[column][one.layer][:, unit].numpy())
        assert one.fisher == pytest.approx(total, rel=2e-3, abs=1e-6)


# --- networks of columns


def test_shares_add_up_in_every_layer_and_a_short_source_has_no_part_in_the_higher_ones() -> None:
    network, x, y = progressive((WIDTHS, (*WIDTHS[:2], 3)))
    found = examined(network, x, y, 3, draws=3)
    assert [(one.layer, one.column) for one in found.layers] == [
        (1, "source 0"), (1, "source 1"), (1, "target"), (2, "source 0"), (2, "source 1"), (2, "target"),
        (3, "source 0"), (3, "target"),
    ]  # fmt: skip
    for layer in (1, 2, 3):
        shares = [(one.aps, one.afs) for one in found.layer(layer)]
        assert all(aps is not None and 0 < aps < 1 for aps, _ in shares)
        assert sum(aps or 0 for aps, _ in shares) == pytest.approx(1.0)
        assert sum(afs or 0 for _, afs in shares) == pytest.approx(1.0)


def test_a_source_with_alpha_zero_has_no_share() -> None:
    network, x, y = progressive(alpha="fixed", alpha_init=(0.0, 0.0, 0.0))
    found = examined(network, x, y, draws=5, half="chance")
    for layer in (1, 2, 3):
        source, target = found.layer(layer)
        assert source.sigma is None and source.afs == 0.0
        assert target.sigma is not None and target.afs == 1.0
        assert source.aps is not None and source.aps < 1e-3


def test_one_column_has_all_of_every_layer() -> None:
    network, x, y = progressive((), approach="scratch")
    found = examined(network, x, y, 1, draws=3, half="chance")
    assert found.columns == ("target",)
    assert [(one.layer, one.aps, one.afs) for one in found.layers] == [(layer, 1.0, 1.0) for layer in (1, 2, 3)]


def test_a_seed_decides_and_nothing_else() -> None:
    network, x, y = progressive()
    torch.manual_seed(1)
    first = examined(network, x, y, seed=1, draws=2)
    torch.manual_seed(2)
    assert examined(network, x, y, seed=1, draws=2) == first
    other = examined(network, x, y, seed=2, draws=2)
    assert [one.sigma for one in other.layers] != [one.sigma for one in first.layers]
    assert [one.fisher for one in other.layers] == [one.fisher for one in first.layers]


def test_every_layer_of_every_column_has_noise_of_its_own() -> None:
    # Columns that do the same have the same true sigma; with the same noise their estimates would be equal.
    network, x, y = two_classes((1.0, 1.0), (1.0, 1.0))
    source, target = examined(network, x, y, half="chance").layers
    assert source.sigma != target.sigma and source.sigma == pytest.approx(target.sigma, rel=0.05)


def test_rows_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = progressive()
    whole = examined(network, x, y, draws=1)
    monkeypatch.setattr(columns_module, "_ROWS_AT_ONCE", 7)
    parts = examined(network, x, y, draws=1)
    assert parts.accuracy == whole.accuracy
    assert [one.fisher for one in parts.layers] == pytest.approx([one.fisher for one in whole.layers], rel=1e-9)
    monkeypatch.setattr(columns_module, "_ROWS_AT_ONCE", 300)
    network, x, y = two_classes((3.0, 1.0), (1.0, 1.0))
    sigma = 4 / 3 / NormalDist().inv_cdf(0.75)
    assert examined(network, x, y, half="chance", draws=40).layers[0].sigma == pytest.approx(sigma, rel=0.03)


def test_progress_is_reported() -> None:
    network, x, y = two_classes((3.0, 1.0), (1.0, 1.0))
    told: list[tuple[int, int, str]] = []
    config = SensitivityConfig(draws=1, half="chance")
    sensitivities(network, x, y, config, columns=names(2), report=lambda *where: told.append(where))
    assert told == [(0, 2, "layer 1 of source 0"), (1, 2, "layer 1 of target")]


# --- refusals


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: SensitivityConfig(rows=0), SettingError, "rows must be at least 1, got 0"),
        (lambda: SensitivityConfig(draws=-1), SettingError, "draws must be at least 1, got -1"),
        (lambda: SensitivityConfig(seed=-1), SettingError, "a seed must be a whole number"),
    ],
)
def test_settings_that_are_refused(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_an_unknown_noise_suggests_the_nearest() -> None:
    from ladder_search.config import build

    with pytest.raises(UnknownNameError, match="did you mean 'scaled'"):
        build(SensitivityConfig, {"noise": "scale"})


def test_networks_that_are_refused() -> None:
    network, x, y = two_classes((math.nan, 1.0), (1.0, 1.0))
    with pytest.raises(CheckpointError, match="finite outputs"):
        examined(network, x, y)
    network, x, y = progressive((), approach="scratch", widths=(6, 3), alpha_init=())
    with pytest.raises(SettingError, match="hidden layers"):
        examined(network, x, y, 1)
