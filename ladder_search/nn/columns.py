"""Settings, initial values and cost shared by target columns of all kinds.

Source: Rusu et al. 2016, "Progressive Neural Networks"; the sum after the nonlinearity is Thaker's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import COST, COST_DECAY, COST_SUPERVISED
from ladder_search.nn.batchnorm import Normalised
from ladder_search.nn.network import Column, Columns
from ladder_search.nn.protocol import SOURCES, ColumnConfig, StagedConfig

_ENCODER = ("W", "beta", "gamma")
"""Parameters with the same names in a column and in a ladder's encoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetConfig(StagedConfig):
    """Settings shared by target columns of every kind."""

    approach: Literal["scratch", "fine-tuned", "progressive"] = "progressive"
    """scratch: no source; fine-tuned: start from the source's weights; progressive: read frozen sources."""
    adapter: Literal["rusu", "sum", "linear"] = "rusu"
    """rusu: U relu(V alpha h), added before the nonlinearity; linear: U alpha h, added there; sum: Thaker's
    relu(U alpha h + c), added after it."""
    adapter_width: int | None = None
    """Units or channels between V and U; null: as many as the layer has (n_i, the text of Rusu et al. 2016)."""
    alpha: Literal["learned", "fixed", "absent"] = "learned"
    """fixed: stays at ``alpha_init``; absent: source features are not scaled."""
    alpha_init: tuple[float, ...] = (1.0,)
    """Initial alpha: one value for all laterals, or one per layer with a lateral, from the bottom up; Rusu et al.
    sampled from 1, 0.1 and 0.01."""
    weight_decay: float = 0.0
    """Coefficient of half the sum of squared weights (W, V, U) in the cost."""

    def check_laterals(self, laterals: int) -> None:
        """Raise ``SettingError`` unless the settings are valid for a column with this number of laterals."""
        if len(self.alpha_init) not in (1, laterals):
            raise SettingError(
                f"model.alpha_init must have 1 entry or one for each of the {laterals} layers with a lateral, got "
                f"{len(self.alpha_init)}; give 1 or {laterals} numbers."
            )
        for value in self.alpha_init:
            in_range("model.alpha_init", value, -100.0, 100.0)
        if self.adapter_width is not None and self.adapter_width < 1:
            raise SettingError(
                f"model.adapter_width must be at least 1 or null, got {self.adapter_width}; give a positive number."
            )
        in_range("model.weight_decay", self.weight_decay, 0.0, 1.0)

    def check_fine_tuned(self, models: Mapping[str, ColumnConfig]) -> None:
        """Raise ``SettingError`` if a column needs a source and has none, or has rectifiers and continues a source that
        has not."""
        if self.staged and not models:
            raise SettingError(
                f"a {self.approach} column needs a source, got none; give sources.NAME, or model.approach=scratch."
            )
        for model in models.values() if self.approach == "fine-tuned" else ():
            if model.activation != "relu":
                raise SettingError(
                    f"a fine-tuned column has rectifiers and its source's model.activation is {model.activation}; "
                    "choose a source with relu."
                )

    @property
    def staged(self) -> bool:
        return self.approach != "scratch"

    @property
    def scale(self) -> float:
        return 1.0

    def hyper(self) -> dict[str, list[float]]:
        return {"weight_decay": [self.weight_decay]}

    def taken_over(self, sources: Sequence[nn.Module]) -> dict[str, Tensor]:
        if self.approach == "fine-tuned":
            state = sources[0].state_dict()
            return {name: value for name, value in state.items() if name.partition(".")[0] in _ENCODER}
        if self.approach == "progressive":
            return {
                f"{SOURCES}{number}.{name}": value
                for number, source in enumerate(sources)
                for name, value in source.state_dict().items()
            }
        return {}


class Target(Columns, Normalised):
    """Base class of target columns with frozen sources.

    Parameters of the lateral into a layer: ``alpha`` (sources,), the adapter's ``V``, its bias ``c``, and ``U``.
    Tensors under ``sources`` are constants.
    """

    config: TargetConfig

    @property
    def term_names(self) -> tuple[str, ...]:
        return (COST, COST_SUPERVISED, COST_DECAY)

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return 0

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.features(x)[-1], dim=-1)

    @abstractmethod
    def up(self, below: Tensor, weight: Tensor | None, layer: int) -> Tensor:
        """Return the layer's own operation on the activations below, without bias."""

    def add_laterals(
        self,
        sources: Sequence[Column],
        layers: Iterable[int],
        units: Sequence[int],
        *,
        V: Callable[[int, int], Tensor],
        U: Callable[[int, int], Tensor],
    ) -> None:
        """Add the sources and the laterals into ``layers``; ``units`` are those, or the channels, of layers 0..L.

        ``V``, (units out, units in), and ``U``, (layer, units in), return the initial weights of an adapter's
        projections, the second of which is the layer's own operation.
        """
        config = self.config
        self.alpha, self.V, self.c, self.U = (nn.ParameterDict() for _ in range(4))
        columns = sources if config.approach == "progressive" else ()
        self.sources = nn.ModuleList(columns)
        self.sources.requires_grad_(False)
        sizes = [[channels for channels, _, _ in source.config.sizes] for source in columns]
        for place, layer in enumerate(layers):
            below = [size[layer - 1] for size in sizes if layer - 1 < len(size)]
            if not below:
                continue
            key, n_in = str(layer), sum(below)
            if config.alpha != "absent":
                at = config.alpha_init[place if len(config.alpha_init) > 1 else 0]
                self.alpha[key] = nn.Parameter(torch.full((len(below),), at))
            if config.adapter == "rusu":
                hidden = config.adapter_width or units[layer]
                self.V[key], self.c[key] = V(hidden, n_in), torch.zeros(hidden)
                n_in = hidden
            elif config.adapter == "sum":
                self.c[key] = torch.zeros(units[layer])
            self.U[key] = U(layer, n_in)

    def lateral(self, layer: int, seen: Sequence[Sequence[Tensor]]) -> Tensor | None:
        """Return the signal from the layers below in the sources, with activations ``seen``; None without lateral."""
        key, config = str(layer), self.config
        if key not in self.U:
            return None
        parts = [features[layer - 1] for features in seen if layer - 1 < len(features)]
        if key in self.alpha:
            alpha = self.alpha[key] if config.alpha == "learned" else self.alpha[key].detach()
            parts = [alpha[j] * part for j, part in enumerate(parts)]
        below = torch.cat(parts, dim=-1)
        if config.adapter == "rusu":
            # A 1 x 1 convolution is a product over channels.
            below = functional.relu(functional.linear(below, self.V[key].flatten(1)) + self.c[key])
        lateral = self.up(below, self.U[key], layer)
        return functional.relu(lateral + self.c[key]) if config.adapter == "sum" else lateral

    def for_sources(self, x: Tensor) -> Tensor:
        """Return what the sources read of the target's inputs."""
        return x

    def source_features(
        self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None
    ) -> list[list[Tensor]]:
        pixels, activations = self.for_sources(x), []
        for number, source in enumerate(self.sources):
            added = {layer: value for (column, layer), value in (noise or {}).items() if column == number}
            activations.append(cast(Column, source).features(pixels, noise=added))
        return activations

    def cost_of(
        self, logits: Tensor, y: Tensor, weights: Iterable[Tensor], hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the total cost, and the terms: total, cross-entropy, and half the weighted sum of squared weights,
        which are ``weights`` and those of the adapters."""
        supervised = functional.cross_entropy(logits, y)
        squares = [weight.square().sum() for weight in (*weights, *self.V.values(), *self.U.values())]
        decay = 0.5 * hyper["weight_decay"][0] * torch.stack(squares).sum()
        total = supervised + decay
        return total, torch.stack([total, supervised, decay])
