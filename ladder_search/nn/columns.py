"""What columns of all kinds share: the settings of their laterals, what they take over from sources, their cost.

Source: Rusu et al. 2016, "Progressive Neural Networks"; the sum after the nonlinearity is Thaker's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.nn.network import Column
from ladder_search.nn.protocol import SOURCES, ColumnConfig

Approach = Literal["scratch", "fine-tuned", "progressive"]
"""scratch: no source; fine-tuned: starts from the source's weights; progressive: looks at frozen sources."""
Adapter = Literal["rusu", "sum", "linear"]
"""rusu: U relu(V alpha h) added before the nonlinearity; linear: U alpha h, added there too; sum: Thaker's
relu(U alpha h + c), added after it."""
Alpha = Literal["learned", "fixed", "absent"]
"""fixed: stays where it starts; absent: source features enter as they are."""


_ENCODER = ("W", "beta", "gamma")
"""What a column and a ladder's encoder call by the same names."""


def check_laterals(alpha_init: Sequence[float], laterals: int, adapter_width: int | None, weight_decay: float) -> None:
    """Raise ``SettingError`` unless the settings of a column with so many laterals are in their ranges."""
    if len(alpha_init) not in (1, laterals):
        raise SettingError(
            f"model.alpha_init must have 1 entry or one for each of the {laterals} layers with a lateral, got "
            f"{len(alpha_init)}; give 1 or {laterals} numbers."
        )
    for value in alpha_init:
        in_range("model.alpha_init", value, -100.0, 100.0)
    if adapter_width is not None and adapter_width < 1:
        raise SettingError(
            f"model.adapter_width must be at least 1 or null, got {adapter_width}; give a positive number."
        )
    in_range("model.weight_decay", weight_decay, 0.0, 1.0)


def check_needed(approach: Approach, models: Mapping[str, object]) -> None:
    """Raise ``SettingError`` when a column has no source and needs one."""
    if approach != "scratch" and not models:
        raise SettingError(
            f"a {approach} column needs a source, got none; give sources.NAME, or model.approach=scratch."
        )


def check_continues(model: ColumnConfig) -> None:
    """Raise ``SettingError`` unless a column, whose nonlinearity is the rectifier, can go on from such a source."""
    if model.activation != "relu":
        raise SettingError(
            f"a fine-tuned column has rectifiers and its source's model.activation is {model.activation}; choose a "
            "source with relu."
        )


def taken_over(approach: Approach, sources: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return what a column takes over from its sources: names in its state -> values."""
    if approach == "fine-tuned":
        state = sources[0].state_dict()
        return {name: value for name, value in state.items() if name.partition(".")[0] in _ENCODER}
    if approach == "progressive":
        return {
            f"{SOURCES}{number}.{name}": value
            for number, source in enumerate(sources)
            for name, value in source.state_dict().items()
        }
    return {}


def features_of(
    sources: Iterable[nn.Module], x: Tensor, noise: Mapping[tuple[int, int], Tensor] | None
) -> list[list[Tensor]]:
    """Return the activations of every source; ``noise`` is by (column, layer), other columns' is left out."""
    found = []
    for number, source in enumerate(sources):
        own = {layer: added for (column, layer), added in (noise or {}).items() if column == number}
        found.append(cast(Column, source).features(x, noise=own))
    return found


def joined(parts: Sequence[Tensor], alpha: Tensor | None, *, learned: bool) -> Tensor:
    """Return the features of all sources side by side, each times its alpha; None: as they are."""
    if alpha is None:
        return torch.cat(list(parts), dim=-1)
    scalars = alpha if learned else alpha.detach()
    return torch.cat([scalars[j] * part for j, part in enumerate(parts)], dim=-1)


def cost_of(logits: Tensor, y: Tensor, weights: Iterable[Tensor], weight_decay: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross-entropy plus half the weighted sum of squared weights, and the three: sum, first, second."""
    supervised = functional.cross_entropy(logits, y)
    decay = 0.5 * weight_decay * torch.stack([weight.square().sum() for weight in weights]).sum()
    total = supervised + decay
    return total, torch.stack([total, supervised, decay])
