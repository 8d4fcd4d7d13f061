"""Progressive networks (Rusu et al. 2016) on ladder sources (Thaker's progressive ladder network), as MLPs.

Legend: ``h`` activations of the target column, ``W``, ``beta``, ``gamma`` its weights, shift and the softmax layer's
scale, named as in the ladder; ``sources`` frozen columns of an earlier stage, ``alpha`` the scalars on their features,
``V`` and ``U`` an adapter's two projections. Layer 0 is the input, layer L the softmax.

    h_i = s( norm( W_i h_{i-1} + U_i s( V_i [alpha_{i,j} h_{i-1}(j)]_j ) ) + beta_i ),   i = 2..L

This is Rusu's equation 2 with the target's batch normalisation ``norm`` of the sum, which the paper does not have.
Layer 1, whose input is shared, has no lateral. The four approaches of Thaker's report are settings of this model:
scratch, fine-tuned, and progressive on a ladder or on a supervised source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.errors import SettingError
from ladder_search.nn.batchnorm import batch_statistics, normalise
from ladder_search.nn.columns import Target, TargetConfig
from ladder_search.nn.images import COLOUR_PIXELS, GREY_PIXELS, grey_of
from ladder_search.nn.network import Column
from ladder_search.nn.protocol import Batch, ColumnConfig, WidthsConfig

_BYTE = 255.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressiveConfig(WidthsConfig, TargetConfig):
    """Settings of a target column; the defaults are Thaker's sizes with Rusu's adapter."""

    widths: tuple[int, ...] = (784, 1000, 500, 250, 250, 250, 10)
    """Units of layers 0..L of the target column."""
    batch_norm: bool = True
    """Normalise the target column's pre-activations; otherwise beta is a plain bias."""
    initial: Literal["he", "xavier", "fan-in"] = "he"
    """he: N(0, 2/fan_in); xavier: uniform with variance 2/(fan_in + fan_out); fan-in: N(0, 1/fan_in)."""
    head: Literal["softmax", "double-softmax", "relu"] = "softmax"
    """double-softmax: use probabilities as logits, a defect of the published baseline; relu: apply a rectifier to the
    logits, as in the published progressive columns."""
    pixels: Literal["unit", "raw"] = "unit"
    """raw: all columns read pixels in 0..255 instead of 0..1, as the published ones did."""
    colour: bool = False
    """The target column reads 3 x 32 x 32 pixels and its sources their luminance at 28 x 28."""

    def __post_init__(self) -> None:
        self.check_widths()
        self.check_laterals(self.depth - 1)
        if self.approach == "fine-tuned" and not self.batch_norm:
            raise SettingError(
                "a fine-tuned column continues its source, which is batch-normalised, got model.batch_norm=false; "
                "leave it true."
            )

    @property
    def scale(self) -> float:
        return _BYTE if self.pixels == "raw" else 1.0

    def signature(self) -> tuple[object, ...]:
        # Initial weights are data: a fine-tuned column runs the same program as one from scratch.
        lateral = (self.adapter, self.adapter_width, self.alpha) if self.approach == "progressive" else ()
        return (self.widths, lateral, self.batch_norm, self.head, self.pixels, self.colour)

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        WidthsConfig.check_fits(self, pixels, classes, dataset)
        if self.colour and pixels != COLOUR_PIXELS:
            raise SettingError(
                f"model.colour=true is for images of 3 x 32 x 32 = {COLOUR_PIXELS} pixels, {dataset} has {pixels}; set "
                "it to false or choose a data set in colour."
            )

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return a step's operations in the target column, without sources and adapters, about as much again."""
        products = [2.0 * n_in * n_out for n_in, n_out in pairwise(self.widths)]
        return labelled * (3 * sum(products) - products[0])

    def on_network_of(self, other: ProgressiveConfig) -> ProgressiveConfig:
        return replace(self, widths=other.widths, alpha_init=other.alpha_init, pixels=other.pixels, colour=other.colour)

    def check_sources(self, models: Mapping[str, ColumnConfig]) -> None:
        self.check_fine_tuned(models)
        for name, model in models.items():
            widths = [channels for channels, _, _ in model.sizes]
            if self.approach == "fine-tuned" and (len(models) > 1 or widths != list(self.widths)):
                raise SettingError(
                    f"a fine-tuned column has the sizes of its one source, {list(self.widths)}, source {name} has "
                    f"{widths} and there are {len(models)}; give one source of these sizes."
                )
            pixels = GREY_PIXELS if self.colour else self.widths[0]
            if self.approach == "progressive" and widths[0] != pixels:
                raise SettingError(
                    f"source {name} must read the {pixels} pixels that the target gets, its widths begin with "
                    f"{widths[0]}; train the source on images of that size."
                )


class Progressive(Target):
    """A target column with its frozen sources; ``cost`` trains the column and its adapters, ``forward`` classifies.

    Parameters: ``W[l-1]`` (n_l, n_{l-1}); ``beta``, zero; with batch normalisation ``gamma`` of the softmax layer, one;
    those of the laterals, with ``V`` (m, sum of the sources' n_{l-1}). Buffers are the target column's statistics.
    """

    config: ProgressiveConfig

    def __init__(
        self, config: ProgressiveConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()
    ) -> None:
        super().__init__()
        self.config = config
        widths, depth = config.widths, config.depth

        def weights(n_out: int, n_in: int) -> Tensor:
            if config.initial == "xavier":
                return (2 * torch.rand(n_out, n_in, generator=generator) - 1) * math.sqrt(6.0 / (n_in + n_out))
            gain = 2.0 if config.initial == "he" else 1.0
            return torch.randn(n_out, n_in, generator=generator) * math.sqrt(gain / n_in)

        self.W = nn.ParameterList([weights(widths[i], widths[i - 1]) for i in range(1, depth + 1)])
        self.beta = nn.ParameterList([torch.zeros(widths[i]) for i in range(1, depth + 1)])
        if config.batch_norm:
            self.gamma = nn.Parameter(torch.ones(widths[depth]))
            self.add_statistics(widths[1:])
        self.add_laterals(
            sources, range(2, depth + 1), widths, V=weights, U=lambda layer, n_in: weights(widths[layer], n_in)
        )

    @property
    def widest(self) -> int:
        adapters = (*self.V.values(), *self.U.values())
        return max([*self.config.widths, *(int(weight.shape[1]) for weight in adapters)])

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cost of one step on the labelled rows, (labelled, d) in 0..1, and its terms; there is no noise."""
        h, _ = self._features(batch.x_labelled, None, {})
        logits = torch.softmax(h[-1], dim=-1) if self.config.head == "double-softmax" else h[-1]
        return self.cost_of(logits, batch.y, self.W, hyper)

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        if not self.config.batch_norm:
            return {}
        rows = x_labelled.shape[-2]
        _, statistics = self._features(x_labelled, None, {})
        means = {f"mean_{layer}": mean.mean(0) for layer, (mean, _) in statistics.items()}
        variances = {f"variance_{layer}": v.mean(0) * (rows / (rows - 1)) for layer, (_, v) in statistics.items()}
        return means | variances

    def features(self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None) -> list[Tensor]:
        names = range(1, self.config.depth + 1) if self.config.batch_norm else ()
        return self._features(x, {i: self.stored(i) for i in names}, noise or {})[0]

    def for_sources(self, x: Tensor) -> Tensor:
        return self.config.scale * (grey_of(x) if self.config.colour else x)

    def up(self, below: Tensor, weight: Tensor | None, layer: int) -> Tensor:
        assert weight is not None
        return functional.linear(below, weight)

    def _features(
        self, x: Tensor, stored: Mapping[int, tuple[Tensor, Tensor]] | None, noise: Mapping[tuple[int, int], Tensor]
    ) -> tuple[list[Tensor], dict[int, tuple[Tensor, Tensor]]]:
        """Return all layers and the statistics used: ``stored``, or those of the minibatches if it is None."""
        config, target = self.config, len(self.sources)
        features = self.source_features(x, noise=noise)
        statistics: dict[int, tuple[Tensor, Tensor]] = {}
        h = [config.scale * x]
        for layer in range(1, config.depth + 1):
            below = h[-1] + noise[target, layer - 1] if (target, layer - 1) in noise else h[-1]
            z = functional.linear(below, self.W[layer - 1])
            lateral = self.lateral(layer, features)
            if lateral is not None and config.adapter != "sum":
                z = z + lateral
            if config.batch_norm:
                statistics[layer] = batch_statistics(z) if stored is None else stored[layer]
                z = normalise(z, *statistics[layer])
            z = z + self.beta[layer - 1]
            top = layer == config.depth
            if top and config.batch_norm:
                z = self.gamma * z
            if not top or config.head == "relu":
                z = functional.relu(z)
            h.append(z + lateral if lateral is not None and config.adapter == "sum" else z)
        return h, statistics
