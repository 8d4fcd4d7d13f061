"""A study for data of one's own: widths, batches, epochs, validation, noise and denoising weights by rules.

``docs/own-data.md`` has the test errors by which the weights were chosen.
A search varies noise and weights around them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ladder_search.config import write_yaml
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset

FOLDS, MOST_FOLDED = 5, 500
"""Number of folds, and of labelled rows below which they are proposed: a share of them is too few to judge by."""
VALIDATION = 0.2
"""Share of the labelled rows for validation if there are more."""
TEST, LEAST_TESTED = 0.2, 100
"""Share of a file for testing, and the number of its labelled rows from which on it is proposed."""
IMBALANCED = 3.0
"""Ratio of the largest to the smallest class from which on the balanced error is proposed."""
BATCH = 100
UPDATES, MOST_EPOCHS = 1500, 1500
"""Steps of a trial, and the largest number of passes over its training rows."""
_LARGE = 200
"""Inputs from which on the widths are those of the paper's network for MNIST."""
_WIDTHS, _LARGE_WIDTHS = (100, 50), (1000, 500, 250, 250, 250)
_NOISE = 0.3
_LAMBDA, _IMAGE_LAMBDA = (10.0, 1.0, 0.1), (1000.0, 10.0, 0.1)
"""Denoising weights of the input, the first layer and the others. Numbers have variance 1 and pixels about 0.1, so that
equal weights would weigh numbers ten times as much."""
_SCALE = 0.01
"""Factor of the range in which a search varies the weight of inputs that are numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Properties of the data that a proposal depends on."""

    inputs: int
    rows: int
    """Training rows."""
    labelled: tuple[int, ...]
    """Labelled training rows of each class, after ``data.labels``."""
    tests: int = 0
    """Test rows."""
    is_image: bool = False

    @classmethod
    def of(cls, dataset: Dataset, labels: int | None = None) -> Facts:
        """Return the facts of a data set of which ``labels`` labels are used; None: all."""
        y = dataset.train_y
        counts = np.bincount(y[y >= 0], minlength=dataset.n_classes)
        if labels is not None and labels < counts.sum():
            counts = np.maximum(1, np.round(counts * (labels / counts.sum()))).astype(int)
        return cls(
            inputs=dataset.numbers,
            rows=len(dataset.train_x),
            labelled=tuple(int(count) for count in counts),
            tests=len(dataset.test_x),
            is_image=dataset.train_x.dtype == np.uint8,
        )

    @property
    def folds(self) -> int:
        """Folds to judge by; 0: a share of the labelled rows, because there are enough or a class has a single one."""
        folds = min(FOLDS, *self.labelled)
        return folds if sum(self.labelled) < MOST_FOLDED and folds >= 2 else 0

    @property
    def imbalanced(self) -> bool:
        return max(self.labelled) >= IMBALANCED * max(1, min(self.labelled))

    @property
    def batch(self) -> int:
        return max(2, min(BATCH, self.rows))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.rows // self.batch)

    @property
    def epochs(self) -> int:
        return max(1, min(MOST_EPOCHS, math.ceil(UPDATES / self.steps_per_epoch)))


def proposed(facts: Facts) -> dict[str, Any]:
    """Return the plain nested settings of a study, without its name and its files."""
    hidden = _LARGE_WIDTHS if facts.inputs >= _LARGE else _WIDTHS
    depth = len(hidden) + 1
    first, second, rest = _IMAGE_LAMBDA if facts.is_image else _LAMBDA
    updates = facts.epochs * facts.steps_per_epoch
    chance = 1 - 1 / len(facts.labelled) if facts.imbalanced else 1 - max(facts.labelled) / sum(facts.labelled)
    return {
        "family": "ladder",
        "data": {
            **({"folds": facts.folds} if facts.folds else {"validation": VALIDATION}),
            "measure": "balanced-error" if facts.imbalanced else "error",
            "batches": "balanced" if facts.imbalanced else "as-drawn",
        },
        "model": {
            "widths": [facts.inputs, *hidden, len(facts.labelled)],
            "noise_std": [_NOISE] * (depth + 1),
            "lambda_": [first, second, *[rest] * (depth - 1)],
        },
        "training": {
            "epochs": facts.epochs,
            "labelled_batch": max(2, min(BATCH, sum(facts.labelled))),
            "unlabelled_batch": facts.batch,
        },
        "space": {
            "noise": "input-and-local",
            "lambda_": "tied",
            **({} if facts.is_image else {"lambda_0_scale": _SCALE}),
            "lr": True,
        },
        "stop": {
            "first_rung_steps": max(1, updates // 5),
            "failure_error": round(min(1.0, 1.1 * chance), 3),
            "failure_steps": max(1, updates // 3),
        },
        "baseline": {"model": {"decoder": "none", "lambda_": [0.0] * (depth + 1)}},
        "report_every": max(1, facts.epochs // 20),
    }


def study_text(name: str, data: DataConfig, stated: Mapping[str, Any], facts: Facts) -> str:
    """Return the proposed study as a study file with comments.

    Args:
        data: the settings with which the data were read.
        stated: those of them that the file states, with paths as they were typed.
    """
    settings, updates = proposed(facts), facts.epochs * facts.steps_per_epoch
    of_data = {**stated, "labels": data.labels, **settings.pop("data")}
    why = (
        f"{sum(facts.labelled)} labels: each trial is trained {facts.folds} times, and fold i is held out in the i-th"
        if facts.folds
        else "share of the labelled rows that trials are compared by"
    )
    head = {
        "name": name,
        "family": settings.pop("family"),
        "title": f"ladder network on {PurePosixPath(str(data.file)).name}",
    }
    comments = {
        "model": f"widths: {facts.inputs} inputs, hidden layers, {len(facts.labelled)} classes. noise_std: of the "
        "input and of each layer.\nlambda_: weights of the denoising costs, likewise.",
        "training": f"An epoch is one pass over the {facts.rows:,} training rows, labelled or not: {updates:,} updates "
        "in all.",
        "space": "What a search varies: noise (fixed, tied, input-and-local, per-layer), lambda_ (fixed, tied, "
        "per-layer), lr.\nlambda_0_scale: factor of the range 100..10000 of the input's weight.",
        "stop": "Trials are compared from first_rung_steps updates on. One whose value is worse than failure_error, "
        "which\nguessing reaches, is stopped.",
        "baseline": "The same network trained on the labels alone: a ladder is worth its time if it is better.",
        "report_every": "Epochs between two reports of a trial.",
    }
    sections = [
        (
            f"Study {name}, proposed by `ladder-search new`; docs/own-data.md explains the choices. Run it with\n"
            f"    python search.py {name}.yaml --trials 24\n"
            "Every setting may be changed; docs/reference/settings.md lists them all.",
            head,
        ),
        (
            "Relative paths start at the folder of this file. labels: a number hides the labels of the other rows.\n"
            f"Validation: {why}.\n"
            f"Test rows: {facts.tests}, which only `train` and `reproduce` read.",
            {"data": of_data},
        ),
        *((comment, {key: settings[key]}) for key, comment in comments.items()),
    ]
    return "\n".join(_commented(comment, write_yaml(values)) for comment, values in sections)


def _commented(comment: str, text: str) -> str:
    return "".join(f"# {line}\n" for line in comment.splitlines()) + text


def target_column(columns: Sequence[str]) -> str | None:
    """Return the column that names itself the target; None if none or several do."""
    found = [name for name in columns if name.casefold() in ("target", "class", "label", "labels", "y", "category")]
    return found[0] if len(found) == 1 else None
