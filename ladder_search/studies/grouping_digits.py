"""Tagger (Greff et al. 2016) and RTagger (Prémont-Schwarz et al. 2017) on textured and on moving digits.

The settings of Tagger are those of the authors' code, the numbers of all tables are from memory, except for the AMI of
moving digits, which the paper's text states. Layers, noise and training of RTagger are unknown; they are our reading.
Rows of the second paper have an AMI and an error; each number is the target of a study of its own, which is judged by
it, with the suffix ``-error`` or without. Its numbers after earlier iterations are no targets.

One part of the first paper is not reproduced: textured digits were trained without labels first, for 150 epochs with a
rate of 0.001, and then with labels and further levels, for 50 with 0.0002. Here both costs are trained together for 200
epochs, the last 50 with a falling rate. The second stage's schedule alone would be too short: v, the variance in the
cost, changes by the learning rate (see ``nn.grouping.GroupingConfig.w_rate``) and would end at 0.12, above the variance
of the textures.

Studies in minutes have ``w_rate`` and initial estimates with the data's mean and scale, which are ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ladder_search.data.config import DataConfig
from ladder_search.models.conv_ladder import ConvLadderConfig
from ladder_search.models.ladder import LadderConfig
from ladder_search.models.rtagger import RTaggerConfig
from ladder_search.models.tagger import TaggerConfig
from ladder_search.studies.conv_ladder import CONV_SMALL, CONV_TINY
from ladder_search.studies.grouping import (
    SEARCHED,
    SEARCHED_RECURRENT,
    TAGGER,
    GroupingSpaceConfig,
    Judge,
    published,
    stop_rule,
)
from ladder_search.studies.study import SpaceConfig, Study
from ladder_search.training.settings import TrainingConfig

RTAGGER = "Prémont-Schwarz et al. 2017"

SEARCHED_DIGITS = replace(SEARCHED, groups=(2, 3, 4), widths=())
SEARCHED_PAIRS = replace(SEARCHED_RECURRENT, groups=(2, 3, 4), iterations=(), evaluation_iterations=())

# --- textured digits of Tagger ----------------------------------------------------------------------------------------

# (objects, row) -> error in per cent and spread, with 50,000 and with 1,000 labels.
_TEXTURED: dict[tuple[int, str], tuple[tuple[float, float], tuple[float, float]]] = {
    (1, "tagger"): ((4.0, 0.3), (10.5, 0.9)),
    (1, "ladder"): ((7.2, 0.1), (30.5, 0.5)),
    (1, "convnet"): ((3.9, 0.3), (52.4, 5.3)),
    (1, "mlp"): ((31.1, 2.2), (89.0, 0.2)),
    (2, "tagger"): ((7.9, 0.3), (24.9, 1.8)),
    (2, "ladder"): ((41.1, 0.2), (68.5, 0.2)),
    (2, "convnet"): ((12.6, 0.4), (79.1, 0.8)),
    (2, "mlp"): ((55.2, 1.0), (79.4, 0.3)),
}
_TITLES = {
    "tagger": "Tagger, both costs from the start",
    "rtagger": "RTagger",
    "ladder": "ladder network",
    "convnet": "convolutional classifier",
    "mlp": "fully connected classifier",
}


def _space(kind: str) -> GroupingSpaceConfig | SpaceConfig:
    spaces: dict[str, GroupingSpaceConfig | SpaceConfig] = {
        "tagger": SEARCHED_DIGITS,
        "rtagger": replace(SEARCHED_RECURRENT, groups=(2, 3, 4)),
        "mlp": SpaceConfig(noise="fixed", lr=True),  # it has noise on its input only
    }
    return spaces.get(kind, SpaceConfig(lr=True))


def _textured_tagger(*, labelled: bool) -> TaggerConfig:
    return TaggerConfig(
        pixels=784,
        widths=(3000, 2000, 1000, 500, 250, 11),
        norm="bn",
        iterations=4,
        likelihood="continuous",
        noise=0.18,
        initial_z=0.5,
        classes=10,
        unlabelled=not labelled,
        judged_by="error",
        segments=3,
    )


def _classifier(kind: str) -> LadderConfig | ConvLadderConfig:
    if kind == "convnet":
        return CONV_SMALL.model("none", (), local=0.45)
    if kind == "ladder":
        return LadderConfig()
    return LadderConfig(noise_std=(0.3, *(0.0,) * 6), lambda_=(0.0,) * 7, decoder="none")


def _textured(objects: int, kind: str, labels: int | None) -> Study:
    value, spread = _TEXTURED[objects, kind][0 if labels is None else 1]
    grouping = kind == "tagger"
    training = TrainingConfig(epochs=200, lr=0.001, decay_start=0.75) if grouping else TrainingConfig()
    return Study(
        name=f"freq20-{objects}mnist-{'' if labels is None else f'{labels}-'}{kind}",
        family={"tagger": "tagger", "convnet": "ladder-conv"}.get(kind, "ladder"),
        title=_TITLES[kind],
        data=DataConfig(dataset=f"freq20-{objects}mnist", labels=labels, validation=10_000),
        model=_textured_tagger(labelled=labels is None) if grouping else _classifier(kind),
        training=training,
        space=_space(kind),
        stop=stop_rule(500 * training.epochs, "error"),
        target=published(value, spread, source=f"{TAGGER}, textured digits", measure="error"),
    )


# --- textured and moving digits of RTagger ----------------------------------------------------------------------------

# (labels, row) -> AMI and error in per cent after the last iteration, each with its spread.
_BRODATZ: dict[tuple[int | None, str], dict[Judge, tuple[float, float]]] = {
    (None, "rtagger"): {"ami": (0.80, 0.01), "error": (5.9, 0.2)},
    (None, "tagger"): {"ami": (0.73, 0.02), "error": (12.15, 0.1)},
    (None, "convnet"): {"error": (14.3, 0.46)},
    (1000, "rtagger"): {"ami": (0.80, 0.03), "error": (22.6, 6.2)},
    (1000, "convnet"): {"error": (88.0, 0.30)},
}


_TEXTURES_IN_MINUTES: dict[str, Any] = {"w_rate": 100.0, "initial_scale": 0.35, "initial_mean": 0.5}
"""With them estimates are several times as good after a few hundred updates, but groups are not shown to separate
within these budgets: see reproductions/README.md."""

_SMALL_RTAGGER = RTaggerConfig(
    side=(16, 16),
    levels=("conv:8:3:1 conv:8:3:2 lstm:8:3", "conv:16:3:2 lstm:16:3", "conv:32:3:2 dense-lstm:64"),
)
_SMALL_CONVNET = replace(CONV_TINY, image=(1, 16, 16))


def _brodatz(labels: int | None, kind: str, measure: Judge) -> Study:
    models: dict[str, RTaggerConfig | TaggerConfig | ConvLadderConfig] = {
        "rtagger": RTaggerConfig(classes=10, unlabelled=labels is not None, judged_by=measure, segments=2),
        "tagger": replace(
            _textured_tagger(labelled=labels is None), groups=2, iterations=3, judged_by=measure, segments=2
        ),
        "convnet": CONV_SMALL.model("none", (), local=0.45),
    }
    grouping = kind != "convnet"
    training = TrainingConfig(epochs=100, lr=0.001, decay_start=0.5, clip_norm=5.0) if grouping else TrainingConfig()
    suffix = "-error" if grouping and measure == "error" else ""
    (value, spread), seeds = _BRODATZ[labels, kind][measure], 2 if kind == "tagger" else 5
    return Study(
        name=f"brodatz-mnist-{'' if labels is None else f'{labels}-'}{kind}{suffix}",
        family="ladder-conv" if kind == "convnet" else kind,
        title=_TITLES[kind],
        data=DataConfig(dataset="brodatz-mnist", labels=labels, validation=10_000),
        model=models[kind],
        training=training,
        space=_space(kind),
        stop=stop_rule(500 * training.epochs, measure),
        target=published(value, spread, source=f"{RTAGGER}, table 4", measure=measure, seeds=seeds),
    )


def _two_textures(kind: str) -> Study:
    """Two sinusoid textures at 16 x 16, which need no download.

    This budget is not shown to be enough: the convolutional classifier is at chance after it, and RTagger, whose v
    could not fall yet, had an AMI of 0.01 after a third of it (1 seed each).
    """
    models: dict[str, RTaggerConfig | TaggerConfig | ConvLadderConfig] = {
        "": replace(_SMALL_RTAGGER, classes=10, class_cost=0.3, unlabelled=False, segments=2, **_TEXTURES_IN_MINUTES),
        "-tagger": replace(
            _textured_tagger(labelled=True),
            pixels=256,
            norm="ln",
            widths=(500, 250, 11),
            groups=2,
            iterations=3,
            judged_by="ami",
            evaluation_iterations=3,
            segments=2,
            **_TEXTURES_IN_MINUTES,
        ),
        "-convnet": _SMALL_CONVNET.model("none", (), local=0.45),
    }
    names = {"": "rtagger", "-tagger": "tagger", "-convnet": "convnet"}
    grouping = kind != "-convnet"
    return Study(
        name=f"two-textures-small{kind}",
        family="tagger" if kind == "-tagger" else "rtagger" if grouping else "ladder-conv",
        title=f"small {_TITLES[names[kind]].partition(',')[0]}",
        data=DataConfig(dataset="two-textures-digits", labels=None, validation=297),
        model=models[kind],
        training=TrainingConfig(
            epochs=100, lr=0.002, decay_start=0.5, labelled_batch=50, unlabelled_batch=50, clip_norm=5.0
        ),
        space=_space(names[kind]),
        stop=stop_rule(2000, "ami" if grouping else "error"),
        target=None,
    )


def _moving(size: str) -> Study:
    return Study(
        name=f"moving-mnist{size}-rtagger",
        family="rtagger",
        title="RTagger, next frames",
        data=DataConfig(dataset=f"moving-mnist{size}", labels=None, validation=10_000),
        model=RTaggerConfig(side=(32, 32) if size else (64, 64), frames=20, initial_z=0.0, segments=2),
        training=TrainingConfig(
            epochs=20, lr=0.001, decay_start=0.5, labelled_batch=2, unlabelled_batch=32, clip_norm=5.0
        ),
        space=SEARCHED_PAIRS,
        stop=stop_rule(20 * 1562),
        target=None if size else published(0.75, None, source=f"{RTAGGER}, moving MNIST", seeds=1, verified=True),
    )


def _moving_small() -> Study:
    """Two digits of 7 x 7 pixels in frames of 16 x 16.

    On a similar drawing the AMI was 0.14 after 300 updates, 0.21 after 900 and 0.24 after 1,500 (1 seed). A v of 0.005
    from the start is worse: 0.01 after 150, when the squared error is about as small (1 seed).
    """
    return Study(
        name="moving-digits-small",
        family="rtagger",
        title="small RTagger, next frames",
        data=DataConfig(dataset="moving-digits-small", labels=None, validation=297),
        model=replace(_SMALL_RTAGGER, frames=8, initial_z=0.0, initial_w=-8.0, segments=2),
        training=TrainingConfig(
            epochs=100, lr=0.002, decay_start=0.5, labelled_batch=2, unlabelled_batch=50, clip_norm=5.0
        ),
        space=SEARCHED_PAIRS,
        stop=stop_rule(2000),
        target=None,
    )


def _textured_small(data: str, kind: str, labels: int, validation: int, epochs: int) -> Study:
    """Images of 14 x 14 pixels.

    The budget on scikit-learn's digits is not shown to be enough: Tagger, whose v could not fall yet, had an AMI of
    0.00 and an error at chance after it (1 seed).
    """
    names = {"": "tagger", "-ladder": "ladder", "-convnet": "convnet", "-mlp": "mlp"}
    widths = (196, 500, 250, 125, 10)
    models: dict[str, TaggerConfig | LadderConfig | ConvLadderConfig] = {
        "": replace(
            _textured_tagger(labelled=False),
            pixels=196,
            norm="ln",
            widths=(500, 250, 125, 11),
            iterations=3,
            judged_by="ami",
            segments=2,
            **_TEXTURES_IN_MINUTES,
        ),
        "-ladder": LadderConfig(widths=widths, noise_std=(0.3,) * 5, lambda_=(1000.0, 10.0, 0.1, 0.1, 0.1)),
        "-convnet": replace(CONV_TINY, image=(1, 14, 14)).model("none", (), local=0.45),
        "-mlp": LadderConfig(widths=widths, noise_std=(0.3, *(0.0,) * 4), lambda_=(0.0,) * 5, decoder="none"),
    }
    steps = epochs * ((60_000 if "mnist" in data else 1297) - validation) // 50
    return Study(
        name=f"{data}{kind}",
        family={"": "tagger", "-convnet": "ladder-conv"}.get(kind, "ladder"),
        title=f"small {_TITLES[names[kind]].partition(',')[0]}",
        data=DataConfig(dataset=data, labels=labels, validation=validation),
        model=models[kind],
        training=TrainingConfig(epochs=epochs, lr=0.001, decay_start=0.67, labelled_batch=50, unlabelled_batch=50),
        space=_space(names[kind]),
        stop=stop_rule(steps, "error" if kind else "ami"),
        target=None,
    )


STUDIES: tuple[Study, ...] = (
    *(_textured(objects, kind, labels) for objects, kind in _TEXTURED for labels in (None, 1000)),
    *(_brodatz(labels, kind, measure) for (labels, kind), found in _BRODATZ.items() for measure in found),
    *(_moving(size) for size in ("", "-half")),
    *(
        _textured_small(data, kind, *sizes)
        for data, *sizes in (("freq20-1mnist-small", 1000, 10_000, 5), ("freq20-1digits-small", 200, 297, 60))
        for kind in ("", "-ladder", "-convnet", "-mlp")
    ),
    *(_two_textures(kind) for kind in ("", "-tagger", "-convnet")),
    _moving_small(),
)
