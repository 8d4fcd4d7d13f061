"""The families: one row per model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ladder_search.errors import UnknownNameError
from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig
from ladder_search.models.progressive_conv import ProgressiveConv, ProgressiveConvConfig
from ladder_search.models.recurrent import RecurrentConfig, RecurrentLadder
from ladder_search.models.sequence import SequenceConfig, SequenceNetwork
from ladder_search.nn.network import Column, Network
from ladder_search.nn.protocol import ModelConfig, Stacking


class BuildNetwork(Protocol):
    def __call__(self, config: Any, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> Network:
        """Return a network.

        Args:
            config: settings of the family.
            generator: of the initial weights.
            sources: networks of an earlier stage; a family without one ignores them.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model: its settings, how a network is built from them, and how searches and packs treat it."""

    config: type[ModelConfig]
    build: BuildNetwork
    """The network's class."""
    space: str
    """Name of the file in ``spaces/`` with the family's search space."""
    stacking: Stacking
    """none: the members of a pack take turns and trials share none, because stacking is impossible or does not pay."""
    compiling: bool = True
    """Whether ``--compile auto`` may compile the steps of long runs."""
    stage: str | None = None
    """Family of the networks of the earlier stage; None: there is no such stage."""
    small: ModelConfig
    """A network for a data set of the tests (``tests/contracts``) that trains in about a second."""


_SMALL_CONVOLUTIONS = ("convf:4:3:1", "maxpool:2:2", "convv:10:3:1", "globalmeanpool")

FAMILIES: dict[str, Family] = {
    "ladder": Family(
        config=LadderConfig,
        build=Ladder,
        space="ladder",
        stacking="vmap",
        small=LadderConfig(widths=(64, 12, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1)),
    ),
    # On a CPU stacking gains convolutions of the papers' sizes 4 % at best (benchmarks/step.py), and compiling
    # nothing: a step of Conv-Small takes 0.44 s of a core eagerly and 0.46 s compiled, one on 8 x 8 digits 21 and
    # 15 ms, which makes up for a compilation after some 10,000 steps (benchmarks/step.py). GPUs are unmeasured.
    "ladder-conv": Family(
        config=ConvLadderConfig,
        build=ConvLadder,
        space="ladder",  # the same noise, denoising weights and combinators; only the number of layers is another
        stacking="none",
        compiling=False,
        small=ConvLadderConfig(
            image=(1, 8, 8),
            layers=_SMALL_CONVOLUTIONS,
            noise_std=(0.3,) * 5,
            lambda_=(10.0, 1.0, 0.1, 0.1, 0.1),
            decoder="full",
        ),
    ),
    "progressive": Family(
        config=ProgressiveConfig,
        build=Progressive,
        space="progressive",
        stacking="vmap",
        stage="ladder",
        small=ProgressiveConfig(widths=(64, 12, 10), alpha_init=(0.5,)),
    ),
    "progressive-conv": Family(
        config=ProgressiveConvConfig,
        build=ProgressiveConv,
        space="progressive",  # the same adapters, alphas and sources; only the layers are others
        stacking="none",
        compiling=False,
        stage="ladder-conv",
        small=ProgressiveConvConfig(image=(1, 8, 8), layers=_SMALL_CONVOLUTIONS),
    ),
    # Stacked, a step on video takes 1.5 times as long. Compiled it takes a tenth less at best, after 7 to 171 s;
    # one on music, 64 steps in a row, does not earn its compilation back (benchmarks/step.py).
    "recurrent": Family(
        config=RecurrentConfig,
        build=RecurrentLadder,
        space="recurrent",
        stacking="none",
        compiling=False,
        small=RecurrentConfig(
            frame=(1, 16, 16),
            levels=("conv:2:3:2 lstm:2:3", "conv:3:3:2 gru:3:3", "conv:4:3:2 dense-lstm:6"),
            noise_std=0.1,
            dropout=0.2,
            unlabelled=True,
        ),
    ),
    # 64 steps in a row are a program that takes minutes to compile, and a training is over in that time.
    "sequence": Family(
        config=SequenceConfig,
        build=SequenceNetwork,
        space="sequence",
        stacking="vmap",
        compiling=False,
        small=SequenceConfig(hidden=12, dropout=0.2),
    ),
}


def find_family(name: str) -> Family:
    """Return the family ``name``.

    Raises:
        UnknownNameError: no such family.
    """
    if name not in FAMILIES:
        raise UnknownNameError("family", name, FAMILIES)
    return FAMILIES[name]
