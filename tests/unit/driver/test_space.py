"""What a search refuses to suggest: trials that are judged by another measure than its study's."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from ladder_search.driver.space import SearchSpace
from ladder_search.errors import SettingError
from ladder_search.models.ladder import LadderConfig
from ladder_search.studies import find_study
from spaces import SPACES

STUDY = find_study("mnist-100-full")  # its baseline is mnist-100-base, whose lambda_ is 0


def _by_weight(model: LadderConfig) -> str:
    return "error" if model.lambda_[0] else "prediction_error"


def _without_weights(trial: optuna.Trial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": {"lambda_": trial.suggest_categorical("lambda_", [base["model"]["lambda_"], [0.0] * 7])}}


def test_a_choice_that_changes_the_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SimpleNamespace(suggest=_without_weights, first=lambda *_: [], published=lambda *_: None)
    with pytest.warns(UserWarning, match="Choices for a categorical distribution"):
        assert "lambda_" in SearchSpace(space, STUDY, STUDY.trial()).distributions
    monkeypatch.setattr(LadderConfig, "measure", property(_by_weight), raising=False)
    with (
        pytest.warns(UserWarning, match="Choices for a categorical distribution"),
        pytest.raises(SettingError, match="mnist-100-full by its error and one of its trials by its prediction error"),
    ):
        SearchSpace(space, STUDY, STUDY.trial())


def test_so_is_a_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace(SPACES["ladder"], STUDY, STUDY.trial())
    assert [point.name for point in space.points()][:2] == ["published", "supervised baseline"]
    monkeypatch.setattr(LadderConfig, "measure", property(_by_weight), raising=False)
    with pytest.raises(SettingError, match="change the space or the baseline"):
        space.points()
