"""Sensitivity of a progressive network to each of its columns, layer by layer (Rusu et al. 2016).

Average perturbation and average Fisher sensitivity are shares among the columns k of layer i::

    APS(i, k) = Lambda_i(k) / sum_k Lambda_i(k),    Lambda_i(k) = 1 / sigma^2 where the noise halves the accuracy
    AFS(i, k) = sum_m F_i(k)(m) / sum_k sum_m F_i(k)(m),    F_i(k)(m) = E[(d log pi / d h^_i(k)(m))^2]

``sigma`` is the scale of Gaussian noise on the activations, ``pi`` the softmax, ``m`` a unit, and ``h^`` an activation
divided by its standard deviation. Units that never change receive no scaled noise and add nothing to ``F``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.analysis.result import Report, check_finite, silent
from ladder_search.config import at_least_one
from ladder_search.data.permutation import check_seed
from ladder_search.errors import SettingError
from ladder_search.nn.network import Columns
from ladder_search.training.noise import fill_normals
from ladder_search.training.seeding import DISTURBANCE, derive

CAP = 1000.0
"""Largest sigma, in standard deviations of the activations; a layer that needs more noise than this is not used."""
_STRIDE = 4.0
"""Ratio of successive sigmas in the search for an upper bound."""
_CLOSE = 1.01
"""Ratio at which bisection stops; a few thousand answers cannot separate closer sigmas."""
_ROWS_AT_ONCE = 4096
"""Bounds memory: 16 MB for a layer of a thousand units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensitivityConfig:
    """Settings of the analysis of columns."""

    rows: int = 1000
    """Number of examples, the same ones in every pass."""
    draws: int = 5
    """Number of noise draws that an accuracy is averaged over; every sigma scales the same draws."""
    seed: int = 1
    """Seed of the rows and of the noise."""
    noise: Literal["scaled", "absolute"] = "scaled"
    """scaled: sigma is in standard deviations of each unit (Rusu); absolute: the same noise on all units (Thaker)."""
    half: Literal["accuracy", "chance"] = "accuracy"
    """accuracy: half of the accuracy without noise (Thaker); chance: half way from there to the accuracy of a guess,
    1/classes."""

    def __post_init__(self) -> None:
        for name in ("rows", "draws"):
            at_least_one(name, getattr(self, name))
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOfColumn:
    """Measurements of one layer of one column."""

    column: str
    layer: int
    units: int
    constant: int
    """Number of units whose activation is the same for all examples."""
    sigma: float | None
    """Noise that halves the accuracy; None if even the largest noise does not."""
    precision: float
    """Lambda; if ``sigma`` is None, its upper bound, 1 / cap^2."""
    aps: float | None
    """Share of the layer's precisions; with insensitive columns in the layer, their shares are upper bounds and the
    others' lower bounds. None if all columns are insensitive."""
    fisher: float
    """Fisher information about the answer, summed over the units."""
    afs: float | None
    """Share of the layer's Fisher information; None if the layer has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """Measurements of a network; accuracies are fractions."""

    columns: tuple[str, ...]
    """Sources in order, then the target."""
    layers: tuple[LayerOfColumn, ...]
    """By layer, 1 .. L-1, then by column; a column has no entries for layers that it lacks."""
    rows: int
    accuracy: float
    halved: float
    """Accuracy at the critical noise."""
    cap: float
    """Largest sigma that was tried, in the unit of ``sigma``."""

    def layer(self, number: int) -> tuple[LayerOfColumn, ...]:
        return tuple(one for one in self.layers if one.layer == number)

    @property
    def insensitive(self) -> tuple[LayerOfColumn, ...]:
        return tuple(one for one in self.layers if one.sigma is None)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Place:
    column: int
    layer: int
    deviation: Tensor
    """Standard deviation of each unit's activation over the examples, (n_l,)."""


def sensitivities(
    network: Columns,
    x: Tensor,
    y: Tensor,
    config: SensitivityConfig,
    *,
    columns: Sequence[str],
    report: Report = silent,
) -> Sensitivity:
    """Return the sensitivities of all columns in the layers below the target's logits.

    Args:
        network: network in eval mode, whose logits are the last activations of the target.
        x: inputs, (rows, d), of the network's type and on its device.
        y: classes, (rows,) int64.
        columns: names of the sources in order, then of the target.

    Raise ``CheckpointError`` if the network's answers are not finite, ``SettingError`` if it has no hidden layer, or
    its accuracy is zero or, for ``chance``, that of a guess.
    """
    with torch.no_grad():
        logits = torch.cat([network.features(part)[-1] for part in torch.split(x, _ROWS_AT_ONCE)])
        places = _places(network, x)
    if not places:
        raise SettingError("an analysis needs hidden layers, and this network has none; name another bundle.")
    check_finite([logits])
    accuracy = (logits.argmax(-1) == y).double().mean().item()
    halved = threshold(accuracy, logits.shape[-1], config.half)
    cap = CAP
    if config.noise == "absolute":
        cap *= max(place.deviation.max().item() for place in places) or 1.0
    sigmas = []
    for done, place in enumerate(places):
        report(done, len(places), f"layer {place.layer} of {columns[place.column]}")
        scale = place.deviation if config.noise == "scaled" else torch.ones_like(place.deviation)
        accuracy_at = _disturbed(network, x, y, place, scale, config)
        sigmas.append(critical_sigma(accuracy_at, halved, start=cap / CAP, cap=cap))
    # The derivative by the normalised activation h / s is s times the derivative by h.
    fisher = [
        (diagonal * place.deviation.square()).sum().item()
        for diagonal, place in zip(_fisher(network, x, places), places, strict=True)
    ]
    precisions = [1.0 / (cap if sigma is None else sigma) ** 2 for sigma in sigmas]
    layers = []
    for number, place in enumerate(places):
        beside = [other for other, candidate in enumerate(places) if candidate.layer == place.layer]
        sensitive = any(sigmas[other] is not None for other in beside)
        information = sum(fisher[other] for other in beside)
        layers.append(
            LayerOfColumn(
                column=columns[place.column],
                layer=place.layer,
                units=len(place.deviation),
                constant=int((place.deviation == 0).sum()),
                sigma=sigmas[number],
                precision=precisions[number],
                aps=precisions[number] / sum(precisions[other] for other in beside) if sensitive else None,
                fisher=fisher[number],
                afs=fisher[number] / information if information else None,
            )
        )
    return Sensitivity(
        columns=tuple(columns), layers=tuple(layers), rows=len(x), accuracy=accuracy, halved=halved, cap=cap
    )


def threshold(accuracy: float, classes: int, half: Literal["accuracy", "chance"]) -> float:
    """Return half of ``accuracy`` as ``half`` defines it; raise ``SettingError`` if there is nothing to halve."""
    floor = 1.0 / classes if half == "chance" else 0.0
    if accuracy <= floor:
        raise SettingError(
            f"without noise a network must classify more than {100 * floor:.3g} % of the rows correctly, got "
            f"{100 * accuracy:.3g} %; analyse a trained network."
        )
    return floor + (accuracy - floor) / 2


def critical_sigma(accuracy: Callable[[float], float], halved: float, *, start: float, cap: float) -> float | None:
    """Return the smallest sigma, to 1 %, at which ``accuracy`` falls to ``halved``; None if it is beyond ``cap``.

    Sigmas are tried in steps of a factor of four from ``start``, up or down; then the logarithm of sigma is bisected.
    ``accuracy`` must be above ``halved`` for sufficiently small noise.
    """
    low = high = start
    if accuracy(start) <= halved:
        while accuracy(low := high / _STRIDE) <= halved:
            high = low
    else:
        while True:
            if low >= cap:
                return None
            high = min(low * _STRIDE, cap)
            if accuracy(high) <= halved:
                break
            low = high
    while high > low * _CLOSE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if accuracy(middle) <= halved else (middle, high)
    return math.sqrt(low * high)


def _disturbed(
    network: Columns, x: Tensor, y: Tensor, place: _Place, scale: Tensor, config: SensitivityConfig
) -> Callable[[float], float]:
    """Return the accuracy over all passes with noise of scale sigma on one layer of one column, as a function."""
    where = (place.column, place.layer)

    def normals(draw: int, part: int, rows: int) -> Tensor:
        # Generated on the CPU, so that the numbers do not depend on the device.
        flat = torch.empty(rows * len(scale), dtype=scale.dtype)
        fill_normals(flat, derive(config.seed, DISTURBANCE, *where, draw, part))
        return flat.view(rows, -1).to(scale.device)

    @torch.no_grad()
    def accuracy(sigma: float) -> float:
        right = 0
        parts = list(zip(torch.split(x, _ROWS_AT_ONCE), torch.split(y, _ROWS_AT_ONCE), strict=True))
        for draw in range(config.draws):
            for part, (x_part, y_part) in enumerate(parts):
                noise = normals(draw, part, len(x_part)) * (sigma * scale)
                logits = network.features(x_part, noise={where: noise})[-1]
                right += int((logits.argmax(-1) == y_part).sum())
        return right / (config.draws * len(x))

    return accuracy


def _places(network: Columns, x: Tensor) -> list[_Place]:
    """Return the hidden layers by number, and within each the columns that have it."""
    first, total, squares = (list[list[Tensor]]() for _ in range(3))
    for part in torch.split(x, _ROWS_AT_ONCE):
        activations = [*network.source_features(part), network.features(part)]
        if not first:
            # Differences to the first example, which are exactly zero for a unit that never changes.
            first = [[h[:1].double() for h in column] for column in activations]
            total = [[torch.zeros_like(h[0]) for h in column] for column in first]
            squares = [[torch.zeros_like(h[0]) for h in column] for column in first]
        for column, layers in enumerate(activations):
            for layer, h in enumerate(layers):
                away = h.double() - first[column][layer]
                total[column][layer] += away.sum(0)
                squares[column][layer] += away.square().sum(0)
    hidden = range(1, len(first[-1]) - 1)
    return [
        _Place(
            column=column,
            layer=layer,
            deviation=(squares[column][layer] / len(x) - (total[column][layer] / len(x)).square())
            .clamp(min=0.0)
            .sqrt()
            .to(x.dtype),
        )
        for layer in hidden
        for column in range(len(first))
        if layer < len(first[column])
    ]


def _fisher(network: Columns, x: Tensor, places: Sequence[_Place]) -> list[Tensor]:
    """Return the diagonal of the Fisher information of each place's activations, (n_l,); the expectation over the
    model's labels is an exact sum over classes, weighted by their probabilities."""
    total = [torch.zeros_like(place.deviation, dtype=torch.float64) for place in places]
    for part in torch.split(x, _ROWS_AT_ONCE):
        # The derivative by added noise equals the derivative by the activation.
        noise = {
            (place.column, place.layer): place.deviation.new_zeros(len(part), len(place.deviation)).requires_grad_()
            for place in places
        }
        log_pi = functional.log_softmax(network.features(part, noise=noise)[-1], dim=-1)
        for c, pi in enumerate(log_pi.detach().exp().unbind(-1)):
            gradients = torch.autograd.grad(
                log_pi[:, c].sum(), list(noise.values()), retain_graph=True, materialize_grads=True
            )
            for place, gradient in enumerate(gradients):
                total[place] += (pi.unsqueeze(-1) * gradient.square()).sum(0)
    return [value / len(x) for value in total]
