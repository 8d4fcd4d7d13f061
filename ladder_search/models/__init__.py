"""The families of models. Built-in families are registered here, one entry per model file; others by plugins."""

from __future__ import annotations

from ladder_search.models.conv_ladder import ConvLadder, ConvLadderConfig
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.models.progressive import Progressive, ProgressiveConfig
from ladder_search.models.progressive_conv import ProgressiveConv, ProgressiveConvConfig
from ladder_search.models.recurrent import RecurrentConfig, RecurrentLadder
from ladder_search.models.registry import FAMILIES, Family, Space, check_packages, find_family, register
from ladder_search.models.rtagger import RTagger, RTaggerConfig
from ladder_search.models.sequence import SequenceConfig, SequenceNetwork
from ladder_search.models.tagger import Tagger, TaggerConfig

__all__ = ["FAMILIES", "Family", "Space", "check_packages", "find_family", "register"]

_SMALL_CONVOLUTIONS = ("convf:4:3:1", "maxpool:2:2", "convv:10:3:1", "globalmeanpool")

register(
    "ladder",
    Family(
        config=LadderConfig,
        build=Ladder,
        space="ladder",
        stacking="vmap",
        small=LadderConfig(widths=(64, 12, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1)),
    ),
)
# On a CPU stacking speeds up convolutions of the papers' sizes by at most 4 %, and compiling does not: a step of
# Conv-Small takes 0.44 s of a core eagerly and 0.46 s compiled; one on 8 x 8 digits takes 21 and 15 ms, which
# amortises compilation after some 10,000 steps (benchmarks/step.py). GPUs are unmeasured.
register(
    "ladder-conv",
    Family(
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
)
register(
    "progressive",
    Family(
        config=ProgressiveConfig,
        build=Progressive,
        space="progressive",
        stacking="vmap",
        stage="ladder",
        small=ProgressiveConfig(widths=(64, 12, 10), alpha_init=(0.5,)),
    ),
)
register(
    "progressive-conv",
    Family(
        config=ProgressiveConvConfig,
        build=ProgressiveConv,
        space="progressive",  # the same adapters, alphas and sources
        stacking="none",
        compiling=False,
        stage="ladder-conv",
        small=ProgressiveConvConfig(image=(1, 8, 8), layers=_SMALL_CONVOLUTIONS),
    ),
)
# Stacked, a step on video takes 1.5 times as long. Compiled, it takes at most a tenth less, after 7 to 171 s of
# compilation; for music, with 64 steps in a row, compiling does not pay (benchmarks/step.py).
register(
    "recurrent",
    Family(
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
)
# Compiling 64 steps in a row takes minutes, as long as a training run.
register(
    "sequence",
    Family(
        config=SequenceConfig,
        build=SequenceNetwork,
        space="sequence",
        stacking="vmap",
        compiling=False,
        small=SequenceConfig(hidden=12, dropout=0.2),
    ),
)
# On a core a step of 5.1 GFLOP (small Tagger on shapes, batch of 50) takes 0.10 s for each member in turn, 0.12 s
# stacked, one of 68 GFLOP (the paper's size, 100 rows) 0.89 and 0.96 s; their products alone take 0.05 and 0.58 s.
# Compiled, the small one takes 0.075 s, after 110 s of compilation: more than 5,000 steps amortise it.
register(
    "tagger",
    Family(
        config=TaggerConfig,
        build=Tagger,
        space="grouping",
        stacking="none",
        compiling=False,
        small=TaggerConfig(widths=(6, 4), groups=2, iterations=2, evaluation_iterations=2),
    ),
)
# As for the recurrent family, whose levels it has.
register(
    "rtagger",
    Family(
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
)
