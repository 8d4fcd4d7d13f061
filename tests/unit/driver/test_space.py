"""What a search refuses to suggest, and how many configurations a finite space has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from ladder_search.driver.samplers import SAMPLERS, sampler_for
from ladder_search.driver.space import SearchSpace
from ladder_search.errors import SettingError
from ladder_search.models.ladder import LadderConfig
from ladder_search.record.trial import identity
from ladder_search.studies import find_study
from spaces import find_space

STUDY = find_study("mnist-100-full")  # its baseline is mnist-100-base, whose lambda_ is 0


def _by_weight(model: LadderConfig) -> tuple[str, ...]:
    return ("error",) if model.lambda_[0] else ("prediction_error",)


def _without_weights(trial: optuna.Trial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": {"lambda_": trial.suggest_categorical("lambda_", [base["model"]["lambda_"], [0.0] * 7])}}


def test_a_choice_that_changes_the_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SimpleNamespace(suggest=_without_weights, first=lambda *_: [], published=lambda *_: None)
    with pytest.warns(UserWarning, match="Choices for a categorical distribution"):
        assert "lambda_" in SearchSpace(space, STUDY, STUDY.trial()).distributions
    monkeypatch.setattr(LadderConfig, "measures", property(_by_weight), raising=False)
    with (
        pytest.warns(UserWarning, match="Choices for a categorical distribution"),
        pytest.raises(SettingError, match="mnist-100-full by its error and one of its trials by its prediction error"),
    ):
        SearchSpace(space, STUDY, STUDY.trial())


def test_so_is_a_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace(find_space("ladder"), STUDY, STUDY.trial())
    assert [point.name for point in space.points()][:2] == ["published", "supervised baseline"]
    monkeypatch.setattr(LadderConfig, "measures", property(_by_weight), raising=False)
    with pytest.raises(SettingError, match="change the space or the baseline"):
        space.points()


def _space(suggest: Callable[..., dict[str, Any]]) -> SearchSpace:
    return SearchSpace(
        SimpleNamespace(suggest=suggest, first=lambda *_: [], published=lambda *_: None), STUDY, STUDY.trial()
    )


def _conditional(trial: optuna.Trial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Three decays; of one of them four epochs, of another two rates: 1 + 4 + 2."""
    kind = trial.suggest_categorical("kind", ["none", "late", "low"])
    if kind == "late":
        return {"training": {"epochs": trial.suggest_int("epochs", 10, 19, step=3)}}
    if kind == "low":
        return {"training": {"lr": trial.suggest_float("lr", 0.001, 0.0015, step=0.0005)}}
    return {}


def _alike(trial: optuna.Trial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Four parameters that come to two configurations."""
    width = round(trial.suggest_categorical("share", [0.9, 1.0, 1.1, 2.0]))
    return {"training": {"epochs": 10 * width}}


def _partly_continuous(trial: optuna.Trial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    if trial.suggest_categorical("fixed", [True, False]):
        return {}
    return {"training": {"lr": trial.suggest_float("lr", 0.001, 0.002)}}


def _whole(trial: optuna.Trial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {"training": {"epochs": trial.suggest_int("epochs", 1, 10**9)}}


@pytest.mark.parametrize(
    ("suggest", "count"),
    [(_conditional, 7), (_alike, 2), (_partly_continuous, None), (_whole, None), (lambda *_: {}, 1)],
)
def test_the_number_of_configurations_follows_from_the_distributions(
    suggest: Callable[..., dict[str, Any]], count: int | None
) -> None:
    space = _space(suggest)
    found = space.enumerated(100)
    assert (None if found is None else len(found)) == count
    if found is not None:
        assert all(identity(space.settings_at(params)) == own for own, params in found.items())
        assert space.enumerated(len(found) - 1) is None or len(found) == 2  # two of the four parameters come first


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("suggest", "count"), [(_conditional, 7), (_alike, 2)])
def test_every_configuration_of_a_finite_space_is_found_once(
    sampler: str, suggest: Callable[..., dict[str, Any]], count: int
) -> None:
    space, tried = _space(suggest), set[str]()
    study = optuna.create_study()
    for number in range(count):
        params = space.untried(study, partial(sampler_for, sampler, 3), number, tried)
        again = space.untried(study, partial(sampler_for, sampler, 3), number, tried)
        assert params is not None and params == again and len(study.trials) == number
        own = identity(space.settings_at(params))
        assert own not in tried
        tried.add(own)
        study.enqueue_trial(params)
        trial = study.ask()
        space.settings(trial)
        study.tell(trial, 1.0 / (1 + number))
    assert space.untried(study, partial(sampler_for, sampler, 3), count, tried) is None


def test_a_space_that_is_continuous_in_one_branch_only_repeats_nothing() -> None:
    space, study, tried = _space(_partly_continuous), optuna.create_study(), set[str]()
    for number in range(12):
        params = space.untried(study, partial(sampler_for, "random", 1), number, tried)
        assert params is not None
        own = identity(space.settings_at(params))
        assert own not in tried
        tried.add(own)


def test_a_continuous_space_is_left_to_the_sampler() -> None:
    space = SearchSpace(find_space("ladder"), STUDY, STUDY.trial())
    assert space.untried(optuna.create_study(), partial(sampler_for, "tpe", 1), 0, set()) is None
    assert space.limited(10**6, space.points()) == (10**6, "")


def test_a_search_of_a_finite_space_ends_with_its_last_configuration() -> None:
    choices = {"noise": "fixed", "lambda_": "fixed", "combinators": ["gauss", "vanilla"]}
    study = STUDY.with_overrides({"space": choices})
    space = SearchSpace(find_space("ladder"), study, study.trial())
    points = space.points()  # the published one, which the space has, and the baseline, which it has not
    assert space.limited(3, points) == (3, "")
    assert space.limited(10, points) == (
        3,
        "The space has 2 configurations, 3 with the fixed ones: the search ends after 3 trials instead of 10, because "
        "no configuration is trained twice.",
    )
