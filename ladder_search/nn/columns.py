"""Settings, initial values and cost shared by target columns of all kinds.

Source: Rusu et al. 2016, "Progressive Neural Networks"; the sum after the nonlinearity is Thaker's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import COST, COST_DECAY, COST_SUPERVISED
from ladder_search.nn.network import Column, Columns
from ladder_search.nn.protocol import SOURCES, ColumnConfig, StagedConfig

Approach = Literal["scratch", "fine-tuned", "progressive"]
Adapter = Literal["rusu", "sum", "linear"]
Alpha = Literal["learned", "fixed", "absent"]


_ENCODER = ("W", "beta", "gamma")
"""Parameters with the same names in a column and in a ladder's encoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetConfig(StagedConfig):
    """Settings shared by target columns of every kind."""

    approach: Approach = "progressive"
    """scratch: no source; fine-tuned: start from the source's weights; progressive: read frozen sources."""
    adapter: Adapter = "rusu"
    """rusu: U relu(V alpha h), added before the nonlinearity; linear: U alpha h, added there; sum: Thaker's
    relu(U alpha h + c), added after it."""
    adapter_width: int | None = None
    """Units or channels between V and U; null: as many as the layer has (n_i, the text of Rusu et al. 2016)."""
    alpha: Alpha = "learned"
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


class Target(Columns):
    """Base class of target columns."""

    @property
    def term_names(self) -> tuple[str, ...]:
        return (COST, COST_SUPERVISED, COST_DECAY)

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return 0

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.features(x)[-1], dim=-1)


def check_needed(approach: Approach, models: Mapping[str, object]) -> None:
    """Raise ``SettingError`` if a column needs a source and has none."""
    if approach != "scratch" and not models:
        raise SettingError(
            f"a {approach} column needs a source, got none; give sources.NAME, or model.approach=scratch."
        )


def check_continues(model: ColumnConfig) -> None:
    """Raise ``SettingError`` unless a fine-tuned column, which has rectifiers, can continue such a source."""
    if model.activation != "relu":
        raise SettingError(
            f"a fine-tuned column has rectifiers and its source's model.activation is {model.activation}; choose a "
            "source with relu."
        )


def features_of(
    sources: Iterable[nn.Module], x: Tensor, noise: Mapping[tuple[int, int], Tensor] | None
) -> list[list[Tensor]]:
    """Return the activations of every source; ``noise`` is by (column, layer), where sources are columns from 0."""
    activations = []
    for number, source in enumerate(sources):
        added = {layer: value for (column, layer), value in (noise or {}).items() if column == number}
        activations.append(cast(Column, source).features(x, noise=added))
    return activations


def joined(parts: Sequence[Tensor], alpha: Tensor | None, *, learned: bool) -> Tensor:
    """Return the concatenated features of all sources, each multiplied by its alpha unless that is None."""
    if alpha is None:
        return torch.cat(list(parts), dim=-1)
    scalars = alpha if learned else alpha.detach()
    return torch.cat([scalars[j] * part for j, part in enumerate(parts)], dim=-1)


def cost_of(logits: Tensor, y: Tensor, weights: Iterable[Tensor], weight_decay: Tensor) -> tuple[Tensor, Tensor]:
    """Return the total cost, and the terms: total, cross-entropy, and half the weighted sum of squared weights."""
    supervised = functional.cross_entropy(logits, y)
    decay = 0.5 * weight_decay * torch.stack([weight.square().sum() for weight in weights]).sum()
    total = supervised + decay
    return total, torch.stack([total, supervised, decay])
