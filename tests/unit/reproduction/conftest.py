"""A tiny study on the digits, and its reproduction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ladder_search.data.dataset import Dataset
from ladder_search.reproduction.reproduction import Race
from ladder_search.studies import STUDIES, Study, Target, find_study
from ladder_search.trial import TrialSpec
from tests.unit.reproduction.racing import Begin


@pytest.fixture
def study(spec: TrialSpec, monkeypatch: pytest.MonkeyPatch) -> Study:
    target = Target(error=0.3, spread=0.05, source="a paper", verified=False, spread_verified=False)
    tiny = replace(find_study("digits-50"), name="tiny", model=spec.model, training=spec.training, target=target)
    monkeypatch.setitem(STUDIES, "tiny", tiny)
    return tiny


@pytest.fixture
def begin(study: Study, dataset: Dataset, tmp_path: Path) -> Begin:
    def race(seeds: int = 4, contenders: int = 3, epochs: int = 4, device: str = "cpu") -> Race:
        return Race(
            study,
            dataset,
            root=tmp_path / "results",
            folder=tmp_path / "out",
            seeds=seeds,
            contenders=contenders,
            epochs=epochs,
            device=torch.device(device),
        )

    return race
