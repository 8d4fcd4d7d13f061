"""The families of models, with one entry per model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ladder_search.errors import UnknownNameError
from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig
from ladder_search.models.progressive_conv import ProgressiveConv, ProgressiveConvConfig
from ladder_search.models.recurrent import RecurrentConfig, RecurrentLadder
from ladder_search.models.rtagger import RTagger, RTaggerConfig
from ladder_search.models.sequence import SequenceConfig, SequenceNetwork
from ladder_search.models.tagger import Tagger, TaggerConfig
from ladder_search.nn.network import Network
from ladder_search.nn.protocol import ModelConfig, Stacking


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model: its settings, its network, and its properties for searches and packs."""

    config: type[ModelConfig]
    build: Callable[..., Network]
    """Class of the network: (config, *, generator, sources=()) -> network with initial weights from ``generator``;
    ``sources`` are networks of an earlier stage."""
    space: str
    """Name of the file of the search space in ``spaces/``."""
    stacking: Stacking
    """none: members of a pack take turns and trials share no pack, because stacking is impossible or not worthwhile."""
    compiling: bool = True
    """Whether ``--compile auto`` may compile the steps of long runs."""
    stage: str | None = None
    """Family of the earlier stage's networks; None without such a stage."""
    small: ModelConfig
    """A network for a test data set (``tests/contracts``) that trains in about a second."""


_SMALL_CONVOLUTIONS = ("convf:4:3:1", "maxpool:2:2", "convv:10:3:1", "globalmeanpool")

FAMILIES: dict[str, Family] = {
    "ladder": Family(
        config=LadderConfig,
        build=Ladder,
        space="ladder",
        stacking="vmap",
        small=LadderConfig(widths=(64, 12, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1)),
    ),
    # On a CPU stacking speeds up convolutions of the papers' sizes by at most 4 %, and compiling does not: a step of
    # Conv-Small takes 0.44 s of a core eagerly and 0.46 s compiled; one on 8 x 8 digits takes 21 and 15 ms, which
    # amortises compilation after some 10,000 steps (benchmarks/step.py). GPUs are unmeasured.
    "ladder-conv": Family(
        config=ConvLadderConfig,
        build=ConvLadder,
        space="ladder",  # the same noise, denoising weights and combinators
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
        space="progressive",  # the same adapters, alphas and sources
        stacking="none",
        compiling=False,
        stage="ladder-conv",
        small=ProgressiveConvConfig(image=(1, 8, 8), layers=_SMALL_CONVOLUTIONS),
    ),
    # Stacked, a step on video takes 1.5 times as long. Compiled, it takes at most a tenth less, after 7 to 171 s of
    # compilation; for music, with 64 steps in a row, compiling does not pay (benchmarks/step.py).
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
    # Compiling 64 steps in a row takes minutes, as long as a training run.
    "sequence": Family(
        config=SequenceConfig,
        build=SequenceNetwork,
        space="sequence",
        stacking="vmap",
        compiling=False,
        small=SequenceConfig(hidden=12, dropout=0.2),
    ),
    # On a core a step of 5.1 GFLOP (small Tagger on shapes, batch of 50) takes 0.10 s for each member in turn, 0.12 s
    # stacked, one of 68 GFLOP (the paper's size, 100 rows) 0.89 and 0.96 s; their products alone take 0.05 and 0.58 s.
    # Compiled, the small one takes 0.075 s, after 110 s of compilation: more than 5,000 steps amortise it.
    "tagger": Family(
        config=TaggerConfig,
        build=Tagger,
        space="grouping",
        stacking="none",
        compiling=False,
        small=TaggerConfig(widths=(6, 4), groups=2, iterations=2, evaluation_iterations=2),
    ),
    # As for the recurrent family, whose levels it has.
    "rtagger": Family(
        config=RTaggerConfig,
        build=RTagger,
        space="grouping",
        stacking="none",
        compiling=False,
        small=RTaggerConfig(
            side=(20, 20),
            levels=("conv:2:3:2 lstm:2:3", "conv:3:3:2 dense-lstm:6"),
            likelihood="binary",
            iterations=2,
            evaluation_iterations=2,
        ),
    ),
}


def find_family(name: str) -> Family:
    """Return the family ``name``, or raise ``UnknownNameError``."""
    if name not in FAMILIES:
        raise UnknownNameError("family", name, FAMILIES)
    return FAMILIES[name]
