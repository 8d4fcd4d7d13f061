"""Rasmus et al. 2015: every MLP row of the permutation-invariant MNIST table, and the same models on digits.

Settings are those of the original code's commands; results without a readable source are marked as unverified.
"""

from __future__ import annotations

from typing import Any, Literal

from ladder_search.data.config import DataConfig
from ladder_search.models.ladder import LadderConfig
from ladder_search.studies.study import SpaceConfig, StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig

RASMUS = "Rasmus et al. 2015, permutation-invariant MNIST"

Kind = Literal["full", "bottom", "gamma", "base"]

_TITLES: dict[Kind, str] = {
    "full": "ladder, every layer denoised",
    "bottom": "ladder, bottom layer denoised",
    "gamma": "Gamma model: top layer denoised",
    "base": "supervised baseline with noise",
}

_MNIST_WIDTHS = (784, 1000, 500, 250, 250, 250, 10)
# A tenth of MNIST's pixels and about a fifth of its widths: launches dominate the time of a step on any machine.
_DIGITS_WIDTHS = (64, 200, 100, 50, 50, 50, 10)


def _model(widths: tuple[int, ...], kind: Kind, lambda_: tuple[float, ...], local: float) -> LadderConfig:
    depth = len(widths) - 1
    weights = {
        "full": (*lambda_[:2], *lambda_[2:] * (depth - 1)),
        "bottom": (*lambda_, *(0.0,) * depth),
        "gamma": (*(0.0,) * depth, *lambda_),
        "base": (0.0,) * (depth + 1),
    }[kind]
    decoder = {"full": "full", "bottom": "full", "gamma": "gamma", "base": "none"}[kind]
    # The input's noise is 0.3 in every row; only that of the layers differs.
    return LadderConfig(widths=widths, noise_std=(0.3, *(local,) * depth), lambda_=weights, decoder=decoder)  # type: ignore[arg-type]


# labels, kind, denoising weights (lambda_0, lambda_1, the rest | lambda_0 | lambda_L), local noise,
# error %, standard deviation %, error confirmed, deviation confirmed
_Row = tuple[int | None, Kind, tuple[float, ...], float, float, float, bool, bool]

_MNIST: tuple[_Row, ...] = (
    (50, "full", (2000.0, 20.0, 0.1), 0.3, 1.62, 0.65, True, True),
    (100, "full", (1000.0, 10.0, 0.1), 0.3, 1.06, 0.37, True, True),
    (100, "bottom", (5000.0,), 0.3, 1.09, 0.32, False, False),
    (100, "gamma", (0.5,), 0.3, 3.06, 1.44, False, False),
    (100, "base", (), 0.5, 21.74, 1.77, False, False),
    (1000, "full", (2000.0, 20.0, 0.1), 0.2, 0.84, 0.08, True, True),
    (1000, "bottom", (2000.0,), 0.3, 0.90, 0.05, False, False),
    (1000, "gamma", (10.0,), 0.3, 1.53, 0.10, True, False),
    (1000, "base", (), 0.5, 5.70, 0.20, False, False),
    (None, "full", (1000.0, 1.0, 0.01), 0.3, 0.57, 0.02, True, True),
    (None, "bottom", (2000.0,), 0.3, 0.59, 0.03, False, False),
    (None, "gamma", (2.0,), 0.3, 0.78, 0.03, False, False),
    (None, "base", (), 0.5, 0.80, 0.03, True, True),
)

_DIGITS: tuple[tuple[int | None, Kind, tuple[float, ...], float], ...] = (
    (50, "full", (2000.0, 20.0, 0.1), 0.3),
    (50, "base", (), 0.3),
    (100, "full", (1000.0, 10.0, 0.1), 0.3),
    (100, "bottom", (5000.0,), 0.3),
    (100, "gamma", (0.5,), 0.3),
    (100, "base", (), 0.3),
    (None, "full", (1000.0, 1.0, 0.01), 0.3),
    (None, "base", (), 0.3),
)


def _mnist(row: _Row) -> Study:
    labels, kind, lambda_, local, error, deviation, verified, deviation_verified = row
    group = f"mnist-{labels or 'all'}"
    return Study(
        name=f"{group}-{kind}",
        family="ladder",
        title=_TITLES[kind],
        data=DataConfig(dataset="mnist", labels=labels, validation=10_000),
        model=_model(_MNIST_WIDTHS, kind, lambda_, local),
        training=TrainingConfig(),
        # Errors before about 4,000 updates rank good settings low; until then only failed trials stop.
        stop=StopConfig(first_rung_steps=4000, failure_error=0.15 if kind != "base" else 0.5, failure_steps=3000),
        target=Target.percent(error, deviation, source=RASMUS, verified=verified, spread_verified=deviation_verified),
        baseline=None if kind == "base" or labels == 50 else f"{group}-base",
    )


ON_DIGITS: dict[str, Any] = {
    "training": TrainingConfig(epochs=75),
    "space": SpaceConfig(lr=True),
    "stop": StopConfig(first_rung_steps=200, failure_error=0.5, failure_steps=200),
    "target": None,
    "report_every": 10,
}
"""Settings of all studies on scikit-learn's digits."""


def _digits(labels: int | None, kind: Kind, lambda_: tuple[float, ...], local: float) -> Study:
    group = f"digits-{labels or 'all'}"
    return Study(
        name=group if kind == "full" else f"{group}-{kind}",
        family="ladder",
        title=_TITLES[kind],
        data=DataConfig(dataset="digits", labels=labels, validation=297),
        model=_model(_DIGITS_WIDTHS, kind, lambda_, local),
        baseline=None if kind == "base" else f"{group}-base",
        **ON_DIGITS,
    )


STUDIES: tuple[Study, ...] = (*(_mnist(row) for row in _MNIST), *(_digits(*row) for row in _DIGITS))
