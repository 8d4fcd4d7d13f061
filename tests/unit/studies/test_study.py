"""What a study is judged by: its target, its failure level and its trials are of one measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.metrics import ERROR, NLL, PREDICTION_ERROR
from ladder_search.models.ladder import LadderConfig
from ladder_search.studies import Study, find_study

JudgedBy = Callable[..., Study]


def test_a_target_is_shown_as_what_it_measures(judged_by: JudgedBy) -> None:
    shown = [str(judged_by(measure).target) for measure in ("nll", "prediction_error")]
    assert shown == ["8.450 nats per step ± 0.030 (unverified)", "150.1 x 1e-5 ± 0.1 (unverified)"]


def test_study_and_trial_know_their_measure(judged_by: JudgedBy) -> None:
    assert find_study("digits-100").measure is find_study("digits-100").trial().measure is ERROR
    assert judged_by("nll").measure is judged_by("nll").trial().measure is NLL
    assert judged_by("prediction_error").measure is PREDICTION_ERROR


def test_a_failure_level_goes_to_the_limit_of_the_measure(judged_by: JudgedBy) -> None:
    digits, music = find_study("digits-100"), judged_by("nll")
    level: dict[str, Any] = {"stop": {"failure_error": 1.5}}
    assert music.with_overrides(level).stop.failure_error == 1.5
    assert digits.with_overrides({"stop": {"failure_error": 1.0}}).stop.failure_error == 1.0
    with pytest.raises(SettingError, match=r"stop\.failure_error must lie in \[0, 1\], got 1\.5; choose a value"):
        digits.with_overrides(level)
    with pytest.raises(SettingError, match=r"must lie in \[0, inf\], got -1\.0; give a positive number\."):
        music.with_overrides({"stop": {"failure_error": -1.0}})
    with pytest.raises(SettingError, match=r"must lie in \[0, 1\], got 20"):
        replace(digits, stop=music.stop)


def test_a_target_is_of_the_studys_own_measure(judged_by: JudgedBy) -> None:
    with pytest.raises(SettingError, match="target.measure must be the measure of the study, error, got nll"):
        replace(find_study("digits-100"), target=judged_by("nll").target)
    target = judged_by("nll").target
    assert target is not None
    with pytest.raises(UnknownNameError, match="unknown measure 'nlll': did you mean 'nll'"):
        replace(target, measure="nlll")


def test_a_trial_that_is_judged_otherwise_is_of_another_study(judged_by: JudgedBy) -> None:
    digits, music = find_study("digits-100"), judged_by("nll")
    assert digits.is_of(digits.trial()) and music.is_of(music.trial())
    assert not digits.is_of(music.trial()) and not music.is_of(digits.trial())


def test_overrides_that_change_the_measure_leave_no_target(
    judged_by: JudgedBy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_weight(model: LadderConfig) -> tuple[str, ...]:
        return ("error",) if model.lambda_[0] else ("prediction_error",)

    monkeypatch.setattr(LadderConfig, "measures", property(by_weight), raising=False)
    study, epochs = find_study("mnist-100-full"), {"training": {"epochs": 3}}
    assert study.target is not None and study.with_overrides(epochs).target == study.target
    with pytest.raises(SettingError, match="set stop.failure_error too"):
        study.with_overrides({"model": {"lambda_": [0.0] * 7}})
    changed = study.with_overrides({"model": {"lambda_": [0.0] * 7}, "stop": {"failure_error": 0.1}})
    assert (changed.measure, changed.target, changed.baseline) == (PREDICTION_ERROR, None, None)
