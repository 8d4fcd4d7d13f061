"""Digits and tiny packs for the tests of the training program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.splits import make_split
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def data(digits: Dataset) -> TrainingData:
    y = torch.from_numpy(digits.train_y.astype(np.int64))
    return TrainingData(x=torch.from_numpy(digits.train_x.copy()), y=y, full_scale=digits.full_scale)


@pytest.fixture(scope="session")
def test_set(digits: Dataset) -> TrainingData:
    y = torch.from_numpy(digits.test_y.astype(np.int64))
    return TrainingData(x=torch.from_numpy(digits.test_x.copy()), y=y, full_scale=digits.full_scale)


@functools.cache
def _split(digits: Dataset, seed: int, validation: int) -> Any:
    return make_split(digits.train_y, n_labelled=40, n_validation=validation, n_classes=10, seed=seed)


@pytest.fixture(scope="module")
def spec(digits: Dataset) -> Callable[..., MemberSpec]:
    """Member number 0..7 of a signature; members differ in everything that may differ."""

    def make(number: int, decoder: str = "full", dtype: str = "float32", **changes: Any) -> MemberSpec:
        noise = 0.1 + 0.05 * number
        scale = 2.0**number
        lambda_ = {"full": (10 * scale, scale, 0.1 * number, 0.1), "gamma": (0, 0, 0, scale), "none": (0,) * 4}[decoder]
        model: dict[str, Any] = {
            "widths": (64, 20, 12, 10),
            "noise_std": (0.3, noise, noise, 0.2),
            "lambda_": lambda_,
            "decoder": decoder,
        }
        training: dict[str, Any] = {
            "epochs": 2 + number,  # 33 steps each: the rate of the short ones falls within the 50 steps
            "lr": 0.001 * (1 + number),
            "decay_start": 0.1 * number,
            "labelled_batch": 20,
            "unlabelled_batch": 30,
            "dtype": dtype,
            "precision": "float32",
        }
        for name, value in changes.items():
            if name in training:
                training[name] = value
            elif name not in ("seed", "validation"):
                model[name] = value
        return MemberSpec(
            model=LadderConfig(**model),
            training=TrainingConfig(**training),
            split=_split(digits, 30 + number, changes.get("validation", 297)),
            seed=changes.get("seed", 50 + number),
        )

    return make


@pytest.fixture(scope="module")
def new_pack(data: TrainingData) -> Callable[..., Pack]:
    def make(specs: Sequence[MemberSpec], slots: int | None = None, *, compiled: bool = False) -> Pack:
        pack = Pack(specs[0], Ladder, data, slots=slots or len(specs), compiled=compiled)
        for one in specs:
            pack.join(one)
        return pack

    return make
