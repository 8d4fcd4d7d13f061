"""A tiny ladder on the embedded digits: a step takes a millisecond."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
pytest.importorskip("yaml")

from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.models.ladder import LadderConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import DataConfig, TrialSpec


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def spec() -> TrialSpec:
    model = LadderConfig(widths=(64, 12, 10), noise_std=(0.3, 0.2, 0.1), lambda_=(100.0, 1.0, 0.1))
    return TrialSpec(
        family="ladder",
        data=DataConfig(dataset="digits", labels=50, validation=297),
        model=model,
        training=TrainingConfig(epochs=4, unlabelled_batch=200),
    )
