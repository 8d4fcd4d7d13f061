"""Digits and tiny packs for the tests of the training program."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.training.pack import TrainingData


@pytest.fixture(scope="session")
def digits() -> datasets.Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def data(digits: datasets.Dataset) -> TrainingData:
    y = torch.from_numpy(digits.train_y.astype(np.int64))
    return TrainingData(x=torch.from_numpy(digits.train_x.copy()), y=y, full_scale=digits.full_scale)


@pytest.fixture(scope="session")
def test_set(digits: datasets.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(digits.test_x.copy()), torch.from_numpy(digits.test_y.astype(np.int64))
