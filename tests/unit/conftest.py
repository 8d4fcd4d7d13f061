"""Signals as they were, and studies judged by something else than a classification error, without such a family."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.metrics import MEASURES
from ladder_search.models.ladder import LadderConfig
from ladder_search.signals import SIGNALS
from ladder_search.studies import StopConfig, Study, Target, find_study
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Let no test leave a handler behind, and let SIGHUP arrive, also where these tests run under ``nohup``."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class _OfSteps(LadderConfig):
    measures = ("nll",)


class _OfFrames(LadderConfig):
    measures = ("prediction_error",)


_KINDS = {kind.measures[0]: kind for kind in (_OfSteps, _OfFrames)}
_TARGETS = {"nll": (8.45, 0.03), "prediction_error": (150.1e-5, 0.1e-5)}


@pytest.fixture(scope="session")
def judged_by() -> Callable[..., Study]:
    """Make ``digits-100`` a study of a measure: of music's 8.45 nats per step, or of video's 150.1 x 1e-5."""

    def make(measure: str, **changes: Any) -> Study:
        study = find_study("digits-100")
        model = _KINDS[measure](**{setting.name: getattr(study.model, setting.name) for setting in fields(study.model)})
        error, spread = _TARGETS[measure]
        target = Target(
            error=error,
            spread=spread,
            source="a paper",
            verified=False,
            spread_verified=False,
            measure=MEASURES[measure].name,
        )
        stop = StopConfig(first_rung_steps=200, failure_error=20.0, failure_steps=200)
        return replace(study, **{"name": f"toy-{measure}", "model": model, "target": target, "stop": stop, **changes})

    return make


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Return the embedded digits."""
    pytest.importorskip("sklearn")
    return datasets.load("digits")


@pytest.fixture(scope="session")
def spec() -> TrialSpec:
    """Return the settings of a tiny ladder on the embedded digits: a step takes a millisecond."""
    pytest.importorskip("safetensors")
    pytest.importorskip("yaml")
    model = LadderConfig(widths=(64, 12, 10), noise_std=(0.3, 0.2, 0.1), lambda_=(100.0, 1.0, 0.1))
    return TrialSpec(
        family="ladder",
        data=DataConfig(dataset="digits", labels=50, validation=297),
        model=model,
        training=TrainingConfig(epochs=4, unlabelled_batch=200),
    )
