"""Prémont-Schwarz et al. 2017 on occluded moving digits: tables 1 and 2, at full size, at half size, and in minutes.

The paper's numbers are from memory, its layers and training unknown. Its text states the order, which can be tested:
the recurrent ladder is as good as a classifier of optimal reconstructions, and each ablation is almost as bad as a
network without recurrence below its top. Rows of table 1 are named after the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ladder_search.data.config import DataConfig
from ladder_search.models.recurrent import RecurrentConfig
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.studies.study import StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig

RLADDER = "Prémont-Schwarz et al. 2017, occluded moving digits"
FROM_MEMORY = "from memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentSpaceConfig:
    """What a search of the recurrent family varies around the study's own settings; see ``spaces/recurrent.py``."""

    lr: bool = True
    """Search the learning rate, 0.0003..0.005."""
    lambda_p: bool = True
    """Search the weight of the prediction cost, 1..300, of networks that predict frames."""
    prediction: bool = True
    """Search the prediction cost: mse, bce."""
    decoder_cell: bool = True
    """Search the decoder cell: g1, g2, g3."""
    noise: bool = True
    """Search the noise on the input, 0..0.3."""
    dropout: bool = False
    """Search the dropout, 0..0.6."""
    weight_decay: bool = False
    """Search the weight decay: 0, 1e-6, 1e-5, 1e-4."""
    iterations: tuple[int, ...] = ()
    """Iterations per frame to choose from; empty: the study's own."""
    channels: tuple[int, ...] = ()
    """Channels of the lowest level to choose from, the others in proportion; empty: the study's own."""
    kernels: tuple[int, ...] = ()
    """Kernels of the convolutional cells to choose from; empty: the study's own."""
    cells: tuple[Literal["lstm", "gru"], ...] = ()
    """Kinds of recurrent cells to choose from; empty: the study's own."""
    top: bool = False
    """Search the top level's units: 64, 128, 256, 512."""
    normalisation: bool = False
    """Search the normalisation of cells and decoder: ln, bn."""
    teacher: bool = True
    """Search the teacher's weight, 1..300, and its decay, if the study has a teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """One of the sizes of the experiments."""

    dataset: str
    rows: int = 60_000
    validation: int = 10_000
    side: int
    digit: int
    channels: int
    top: int
    stride: int
    """Stride before the first recurrent cell; digits move by less than a cell's kernel in each direction."""
    training: TrainingConfig
    labelled: int
    """Labelled rows of a batch with unlabelled sequences."""

    @property
    def name(self) -> str:
        return self.dataset.replace("occluded-digits-mini", "occluded-digits")

    @property
    def steps(self) -> int:
        return self.training.epochs * ((self.rows - self.validation) // self.training.unlabelled_batch)

    def levels(self, cell: Literal["lstm", "none"], top: str) -> tuple[str, ...]:
        """Return the encoder, with two, one and one convolutions; without recurrence a third one replaces the cell."""
        c = self.channels
        lowest, middle = ((f"lstm:{n}:3" if cell == "lstm" else f"conv:{n}:3:1 none") for n in (c, 2 * c))
        first = f"conv:{c}:3:1 conv:{c}:3:{self.stride}" if self.stride > 1 else f"conv:{c}:3:1"
        return (f"{first} {lowest}", f"conv:{2 * c}:3:2 {middle}", f"conv:{4 * c}:3:2 {top}:{self.top}")

    def model(self, kind: str, *, unlabelled: bool = False) -> RecurrentConfig:
        video = RecurrentConfig(frame=(1, self.side, self.side), levels=self.levels("lstm", "dense-lstm"))
        video = replace(video, unlabelled=unlabelled)
        changes: dict[str, dict[str, Any]] = {
            "rladder": {},
            "no-prediction": {"lambda_p": 0.0},
            "no-feedback": {"feedback": False},
            "no-classes": {"lambda_c": 0.0},
            "hierarchical": {"decoder": False},
            "temporal": {"decoder": False, "levels": self.levels("none", "dense-lstm")},
            "static": {
                "decoder": False,
                "levels": self.levels("none", "dense"),
                "frame": (1, self.digit, self.digit),
                "frames": 1,
            },
        }
        return replace(video, **changes[kind])


_FULL = _Size(
    dataset="occluded-mnist",
    side=32,
    digit=14,
    channels=32,
    top=256,
    stride=2,
    training=TrainingConfig(epochs=100, lr=0.001, decay_start=0.5, clip_norm=5.0),
    labelled=25,
)
_HALF = _Size(
    dataset="occluded-mnist-half",
    side=16,
    digit=7,
    channels=8,
    top=64,
    stride=2,
    training=TrainingConfig(
        epochs=20, lr=0.002, decay_start=0.5, labelled_batch=50, unlabelled_batch=50, clip_norm=5.0
    ),
    labelled=20,
)
# One velocity, no bounce, first cells at full resolution: suited to minutes on one core.
_MINI = replace(_HALF, dataset="occluded-mnist-mini", stride=1, training=replace(_HALF.training, epochs=2, lr=0.003))

# Scikit-learn's digits in the same scene, which need no download.
_DIGITS = replace(
    _MINI,
    dataset="occluded-digits-mini",
    rows=1297,
    validation=297,
    training=replace(_MINI.training, epochs=40),
)

_TITLES = {
    "static": "optimal reconstruction, static classifier",
    "temporal": "temporal baseline: one LSTM on top",
    "hierarchical": "hierarchical recurrent network: encoder only",
    "no-prediction": "recurrent ladder without prediction task",
    "no-feedback": "recurrent ladder without decoder-to-encoder connection",
    "no-classes": "recurrent ladder without classification task",
    "rladder": "recurrent ladder",
}

# Row -> error % and spread of table 1; for the row without classes its prediction error and spread, x 1e-5.
_TABLE_1: dict[str, tuple[float, float]] = {
    "static": (0.71, 0.03),
    "temporal": (2.02, 0.16),
    "hierarchical": (1.60, 0.05),
    "no-prediction": (1.51, 0.21),
    "no-feedback": (1.24, 0.05),
    "no-classes": (155.2, 2.5),
    "rladder": (0.74, 0.09),
}
# (row, unlabelled sequences, teacher) -> error % and spread of table 2. Without a teacher only the prediction task can
# use unlabelled sequences, so the first two have one number for both of their columns.
_TABLE_2: dict[tuple[str, bool, bool], tuple[float, float]] = {
    ("static", False, False): (3.50, 0.28),
    ("static", True, True): (1.34, 0.04),
    ("temporal", False, False): (10.86, 0.43),
    ("temporal", True, True): (3.14, 0.16),
    ("rladder", False, False): (10.49, 0.81),
    ("rladder", True, False): (5.20, 0.77),
    ("rladder", True, True): (1.69, 0.14),
}


def table_1_model(kind: str, data: str = "occluded-mnist", *, channels: int | None = None) -> RecurrentConfig:
    """Return the network of a row of table 1 with another number of channels, which the paper does not specify.

    ``kind`` is a row, such as ``rladder``; ``data`` is ``occluded-mnist`` with an optional ``-half`` or ``-mini``;
    ``channels`` are those of the lowest level, with the others in proportion.
    """
    size = {one.dataset: one for one in (_FULL, _HALF, _MINI)}[data]
    return replace(size, channels=channels or size.channels).model(kind)


def _target(size: _Size, kind: str, found: tuple[float, float]) -> Target | None:
    """Return the published number for the full size; the smaller sizes are ours and have none."""
    if size is not _FULL:
        return None
    scale = 1e-5 if kind == "no-classes" else 0.01
    return Target(
        error=found[0] * scale,
        spread=found[1] * scale,
        source=RLADDER,
        seeds=5,
        standing=FROM_MEMORY,
        measure="prediction_error" if kind == "no-classes" else "error",
    )


def _supervised(size: _Size, kind: str) -> Study:
    # The recurrent ladder starts slowest and baselines lead early on: all trials get a third of the budget.
    grace, failure = max(1, size.steps // 3), 0.02 if kind == "no-classes" else 0.85
    dataset = f"{size.dataset}-seen" if kind == "static" else size.dataset
    return Study(
        name=f"{size.name}-{kind}",
        family="recurrent",
        title=_TITLES[kind],
        data=DataConfig(dataset=dataset, labels=None, validation=size.validation),
        model=size.model(kind),
        training=size.training,
        space=RecurrentSpaceConfig(),
        stop=StopConfig(first_rung_steps=grace, failure_error=failure, failure_steps=grace),
        target=_target(size, kind, _TABLE_1[kind]),
    )


def _few_labels(size: _Size, kind: str, unlabelled: bool, taught: bool) -> Study:
    # All labelled rows are a pass of 1,000: without unlabelled rows an epoch is as long as with them.
    training = replace(size.training, labelled_batch=size.labelled if unlabelled else size.training.labelled_batch)
    model, teacher = size.model(kind, unlabelled=unlabelled), TeacherConfig()
    if taught and size is _HALF and kind == "static":
        # The best of 12 trials by validation error after 4 passes, one seed and draw of labels: 12.1 %, compared with
        # 16.0 for the settings below, 2.5 points of which are due to the noise; 14.0 without a teacher.
        model, teacher = replace(model, noise_std=0.05, dropout=0.385), TeacherConfig(weight=2.8, decay=0.995)
    elif taught:
        # A teacher needs noise that differs from the student's. On frames, which are mostly empty, the noise level of
        # reconstructions hides the digit: 76 % validation error after 1,000 steps, compared with 52 here (n = 1).
        model = replace(model, noise_std=0.15 if kind == "static" else 0.03, dropout=0.2)
        teacher = TeacherConfig(weight=30.0)
    suffix = "-mt" if taught else "-unlabelled" if unlabelled else ""
    how = ", mean teacher" if taught else ", with unlabelled sequences" if unlabelled else ", labelled sequences only"
    supervised = _supervised(size, kind)
    return replace(
        supervised,
        name=f"{size.name}-1000-{kind}{suffix}",
        title=f"{_TITLES[kind]}{how}",
        data=replace(supervised.data, labels=1000),
        model=model,
        training=training,
        teacher=teacher,
        target=_target(size, kind, _TABLE_2[kind, unlabelled, taught]),
    )


STUDIES: tuple[Study, ...] = (
    *(_supervised(size, kind) for size in (_FULL, _HALF, _MINI, _DIGITS) for kind in _TABLE_1),
    *(_few_labels(size, *row) for size in (_FULL, _HALF) for row in _TABLE_2),
)
