"""The families: one row per model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ladder_search.errors import UnknownNameError
from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.protocol import Stacking


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model: its settings and how one network is built from them."""

    config: type[Any]
    """Settings class, a ``nn.protocol.ModelConfig``."""
    build: Callable[[Any, torch.Generator], nn.Module]
    """(settings, generator of the initial weights) -> network, a ``nn.protocol.PackModel``."""
    stacking: Stacking
    """none: the members of a pack take turns and trials share none, because stacking is impossible or does not pay."""


def _build_ladder(config: LadderConfig, generator: torch.Generator) -> nn.Module:
    return Ladder(config, generator=generator)


def _build_conv_ladder(config: ConvLadderConfig, generator: torch.Generator) -> nn.Module:
    return ConvLadder(config, generator=generator)


FAMILIES: dict[str, Family] = {
    "ladder": Family(config=LadderConfig, build=_build_ladder, stacking="vmap"),
    # Stacked convolutions are slower than convolutions in turn on a CPU: benchmarks/conv_stacking.py.
    "ladder-conv": Family(config=ConvLadderConfig, build=_build_conv_ladder, stacking="none"),
}


def find_family(name: str) -> Family:
    """Return the family ``name``.

    Raises:
        UnknownNameError: no such family.
    """
    if name not in FAMILIES:
        raise UnknownNameError("family", name, FAMILIES)
    return FAMILIES[name]
