"""Convolutional progressive networks (Rusu et al. 2016) on convolutional ladder sources.

Legend as in ``models.progressive``: ``h`` activations of the target column, ``W``, ``beta``, ``gamma``, frozen
``sources``, ``alpha``, ``V`` and ``U`` of the adapters. Layer 0 is the image, layer L the softmax.

    h_i = s( norm( W_i * h_{i-1} + U_i * s( V_i * [alpha_{i,j} h_{i-1}(j)]_j ) ) + beta_i )

Here ``*`` is the layer's own operation. V is a 1 x 1 convolution, as in the paper, and U has the layer's kernel, so
that both terms have one size. Pools have no lateral. ``laterals`` can restrict laterals to fully connected layers, as
for the AlexNet of Thaker's report. Maps are (rows, height, width, channels), see ``nn.maps``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.errors import SettingError
from ladder_search.nn.batchnorm import batch_statistics, normalise
from ladder_search.nn.columns import Target, TargetConfig
from ladder_search.nn.maps import CONV_SMALL, FullyConnected, LayersConfig, as_map, start
from ladder_search.nn.network import Column
from ladder_search.nn.protocol import Batch, ColumnConfig

Found = dict[int, tuple[Tensor, Tensor]]
"""Layer -> mean and variance of its channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressiveConvConfig(LayersConfig, TargetConfig):
    """Settings of a convolutional target column; the defaults are the ladder paper's Conv-Small."""

    image: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width; pixels of an example are in this order."""
    layers: tuple[str, ...] = CONV_SMALL
    """Layers 1..L, in the notation of ``nn.maps``."""
    laterals: Literal["all", "connected"] = "all"
    """all: laterals into every layer with weights but the first; connected: into fully connected layers only."""

    def __post_init__(self) -> None:
        self.check_laterals(len(self.lateral_layers))

    @property
    def lateral_layers(self) -> tuple[int, ...]:
        """Layers with a lateral."""
        only = FullyConnected if self.laterals == "connected" else object
        return tuple(i for i, x in enumerate(self.network.layers, 1) if i > 1 and not x.pools and isinstance(x, only))

    def signature(self) -> tuple[object, ...]:
        progressive = self.approach == "progressive"
        lateral = (self.laterals, self.adapter, self.adapter_width, self.alpha) if progressive else ()
        return (self.image, self.layers, lateral)

    def flops(self, labelled: int, unlabelled: int) -> float:
        up = [layer.flops(below) for layer, below in zip(self.network.layers, self.network.sizes, strict=False)]
        return labelled * (3 * sum(up) - next(filter(None, up), 0.0))

    def on_network_of(self, other: ProgressiveConvConfig) -> ProgressiveConvConfig:
        return replace(
            self, image=other.image, layers=other.layers, laterals=other.laterals, alpha_init=other.alpha_init
        )

    def check_sources(self, models: Mapping[str, ColumnConfig]) -> None:
        self.check_fine_tuned(models)
        for name, model in models.items():
            same = model.architecture == (self.image, self.layers)
            if self.approach == "fine-tuned" and (len(models) > 1 or not same):
                raise SettingError(
                    f"a fine-tuned column has the layers of its one source, source {name} has others or is not alone; "
                    "give one source of these layers."
                )
            theirs, own = model.sizes, self.network.sizes
            for i in self.lateral_layers if self.approach == "progressive" else ():
                if i - 1 < len(theirs) and theirs[i - 1][1:] != own[i - 1][1:]:
                    raise SettingError(
                        f"what enters layer {i} from source {name} must have the places of the column's own map, "
                        f"{own[i - 1][1]} x {own[i - 1][2]}, it has {theirs[i - 1][1]} x {theirs[i - 1][2]}; give both "
                        "the same layers below."
                    )


class ProgressiveConv(Target):
    """A convolutional target column with its frozen sources.

    Parameters, by layer: ``W`` of layers with weights, ``beta`` of these and of the top, ``gamma`` of the top, as in
    the convolutional ladder; those of the laterals, with ``V`` (m, channels below, 1, 1).
    """

    config: ProgressiveConvConfig

    def __init__(
        self, config: ProgressiveConvConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()
    ) -> None:
        super().__init__()
        self.config = config
        self.layers, self.sizes = config.network.layers, config.network.sizes
        depth, sizes = config.depth, self.sizes
        shapes = {str(i): layer.shape(sizes[i - 1]) for i, layer in enumerate(self.layers, 1)}
        self.W = nn.ParameterDict({name: start(shape, generator) for name, shape in shapes.items() if shape})
        shifted = [i for i, layer in enumerate(self.layers, 1) if i == depth or not layer.pools]
        self.beta = nn.ParameterDict({str(i): torch.zeros(sizes[i][0]) for i in shifted})
        self.gamma = nn.Parameter(torch.ones(sizes[depth][0]))
        units = [channels for channels, _, _ in sizes]
        self.add_statistics(units[1:])

        self.add_laterals(
            sources,
            config.lateral_layers,
            units,
            V=lambda n_out, n_in: start((n_out, n_in, 1, 1), generator),
            U=lambda layer, n_in: start(self.layers[layer - 1].shape((n_in, *sizes[layer - 1][1:])), generator),
        )

    @property
    def widest(self) -> int:
        return max(map(math.prod, self.sizes)) * (1 + len(self.sources))

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        h, _ = self._column(batch.x_labelled, None, {})
        return self.cost_of(h[-1].flatten(1), batch.y, self.W.values(), hyper)

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        """Return the target column's test-time statistics, (channels,); the variance's correction counts rows."""
        rows = x_labelled.shape[1]
        statistics: dict[str, list[Tensor]] = {}
        for x in x_labelled:
            for layer, (mean, variance) in self._column(x, None, {})[1].items():
                statistics.setdefault(f"mean_{layer}", []).append(mean)
                statistics.setdefault(f"variance_{layer}", []).append(variance * (rows / (rows - 1)))
        return {name: torch.stack(values).mean(0) for name, values in statistics.items()}

    def features(self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None) -> list[Tensor]:
        """Return the target column's activations h_0..h_L, for images (rows, d), shaped as in ``ConvLadder``."""
        stored = {i: self.stored(i) for i in range(1, self.config.depth + 1)}
        h, _ = self._column(x, stored, noise or {})
        return [*(each.permute(0, 3, 1, 2) for each in h[:-1]), h[-1].flatten(1)]

    def up(self, below: Tensor, weight: Tensor | None, layer: int) -> Tensor:
        return self.layers[layer - 1].up(below, weight)

    def _column(
        self, x: Tensor, stored: Mapping[int, tuple[Tensor, Tensor]] | None, noise: Mapping[tuple[int, int], Tensor]
    ) -> tuple[list[Tensor], Found]:
        """Return all layers as maps and the statistics used: ``stored``, or those of the rows if it is None."""
        config, target = self.config, len(self.sources)
        features = [[_as_map(h) for h in column] for column in self.source_features(x, noise=noise)]
        statistics: Found = {}
        h = [as_map(x, config.image)]
        for i, layer in enumerate(self.layers, 1):
            below = h[-1]
            if (target, i - 1) in noise:
                below = below + _as_map(noise[target, i - 1])
            z = layer.up(below, self.W.get(str(i)))
            lateral = self.lateral(i, features)
            if lateral is not None and config.adapter != "sum":
                z = z + lateral
            places = z.flatten(0, -2)
            statistics[i] = batch_statistics(places) if stored is None else stored[i]
            z = normalise(places, *statistics[i]).view(z.shape)
            if str(i) in self.beta:
                z = z + self.beta[str(i)]
                z = self.gamma * z if i == config.depth else functional.relu(z)
            h.append(z + lateral if lateral is not None and config.adapter == "sum" else z)
        return h, statistics


def _as_map(features: Tensor) -> Tensor:
    """(rows, channels, height, width), or a vector's (rows, units) -> (rows, height, width, channels)."""
    return features.permute(0, 2, 3, 1) if features.dim() == 4 else features[:, None, None]
