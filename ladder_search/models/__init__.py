"""The families: one row per model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ladder_search.errors import UnknownNameError
from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig
from ladder_search.models.progressive_conv import ProgressiveConv, ProgressiveConvConfig
from ladder_search.models.recurrent import Recurrent, RecurrentConfig
from ladder_search.models.sequence import SequenceConfig, SequenceNetwork
from ladder_search.nn.protocol import Stacking


class BuildNetwork(Protocol):
    def __call__(self, config: Any, generator: torch.Generator, sources: Sequence[nn.Module] = ()) -> nn.Module:
        """Return a network, a ``nn.protocol.PackModel``.

        Args:
            config: settings of the family.
            generator: of the initial weights.
            sources: networks of an earlier stage, ``nn.protocol.Column``s; a family of one stage is given none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model: its settings and how one network is built from them."""

    config: type[Any]
    """Settings class, a ``nn.protocol.ModelConfig``."""
    build: BuildNetwork
    stacking: Stacking
    """none: the members of a pack take turns and trials share none, because stacking is impossible or does not pay."""
    compiling: bool = True
    """Whether long runs compile their steps by themselves; False: only those that are told to."""


def _ladder(config: LadderConfig, generator: torch.Generator, sources: Sequence[nn.Module] = ()) -> nn.Module:
    return Ladder(config, generator=generator)


def _conv_ladder(config: ConvLadderConfig, generator: torch.Generator, sources: Sequence[nn.Module] = ()) -> nn.Module:
    return ConvLadder(config, generator=generator)


def _progressive(config: ProgressiveConfig, generator: torch.Generator, sources: Sequence[nn.Module] = ()) -> nn.Module:
    return Progressive(config, generator=generator, sources=sources)


def _progressive_conv(
    config: ProgressiveConvConfig, generator: torch.Generator, sources: Sequence[nn.Module] = ()
) -> nn.Module:
    return ProgressiveConv(config, generator=generator, sources=sources)


def _recurrent(config: RecurrentConfig, generator: torch.Generator, sources: Sequence[nn.Module] = ()) -> nn.Module:
    return Recurrent(config, generator=generator)


def _sequence(config: SequenceConfig, generator: torch.Generator, sources: Sequence[nn.Module] = ()) -> nn.Module:
    return SequenceNetwork(config, generator=generator)


FAMILIES: dict[str, Family] = {
    "ladder": Family(config=LadderConfig, build=_ladder, stacking="vmap"),
    # On a CPU stacking gains convolutions of the papers' sizes 4 % at best (benchmarks/step.py), and compiling
    # nothing: a step of Conv-Small takes 0.44 s of a core eagerly and 0.46 s compiled, one on 8 x 8 digits 21 and
    # 15 ms, which makes up for a compilation after some 10,000 steps (benchmarks/step.py). GPUs are unmeasured.
    "ladder-conv": Family(config=ConvLadderConfig, build=_conv_ladder, stacking="none", compiling=False),
    "progressive": Family(config=ProgressiveConfig, build=_progressive, stacking="vmap"),
    # Stacked, a step on video takes 1.5 times as long. Compiled it takes a tenth less at best, after 7 to 171 s;
    # one on music, 64 steps in a row, does not earn its compilation back (benchmarks/step.py).
    "recurrent": Family(config=RecurrentConfig, build=_recurrent, stacking="none", compiling=False),
    # 64 steps in a row are a program that takes minutes to compile, and a training is over in that time.
    "sequence": Family(config=SequenceConfig, build=_sequence, stacking="vmap", compiling=False),
    "progressive-conv": Family(config=ProgressiveConvConfig, build=_progressive_conv, stacking="none", compiling=False),
}


def find_family(name: str) -> Family:
    """Return the family ``name``.

    Raises:
        UnknownNameError: no such family.
    """
    if name not in FAMILIES:
        raise UnknownNameError("family", name, FAMILIES)
    return FAMILIES[name]
