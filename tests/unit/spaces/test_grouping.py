"""The space of Tagger and RTagger: what is suggested is a trial, and every study's own settings are a point of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from ladder_search.config import as_mapping
from ladder_search.studies import STUDIES
from spaces import find_space, grouping

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAMES = [name for name, study in STUDIES.items() if study.family in ("tagger", "rtagger")]
EVERYTHING: dict[str, Any] = {
    "lr": True, "noise": True, "class_cost": True, "norm": True, "groups": (2, 3, 4, 5, 6), "iterations": (2, 3, 4, 5),
    "evaluation_iterations": (3, 4, 5), "widths": ("500-250-125", "40-20"), "stateful": True, "feedback": True,
    "channels": (8, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_studys_own_settings_are_a_point(name: str) -> None:
    study = STUDIES[name]
    base, options = study.trial().for_space(), as_mapping(study.space)
    own = find_space("grouping").published(base, options)
    assert own is not None
    settings = grouping.suggest(optuna.trial.FixedTrial(own), base, options)
    assert study.trial().suggested(settings) == study.trial()


@pytest.mark.parametrize(
    "name",
    ["shapes-small", "freq20-1digits-small", "freq20-1mnist-1000-tagger", "two-textures-small", "moving-digits-small"],
)
def test_all_that_is_suggested_is_a_trial(name: str) -> None:
    study = STUDIES[name]
    base, options = study.trial().for_space(), as_mapping(replace(study.space, **EVERYTHING))
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen: dict[str, set[Any]] = {}
    for _ in range(40):
        trial = sampler.ask()
        spec = study.trial().suggested(grouping.suggest(trial, base, options))
        assert 0.1 <= spec.model.noise <= 0.3 and 0.0002 <= spec.training.lr <= 0.002
        assert spec.model.initial_z == study.model.initial_z and spec.model.classes == study.model.classes
        assert spec.measure == study.measure, "trials are ranked by the study's measure"
        for parameter, value in trial.params.items():
            seen.setdefault(parameter, set()).add(value)
    recurrent, video = study.family == "rtagger", getattr(study.model, "frames", 1) > 1
    fine_tuned = bool(study.sources)
    assert len(seen["model/groups"]) == 5
    assert seen.get("model/norm", set()) == (set() if fine_tuned else {"ln", "bn"}), "a source has its own"
    assert ("model/iterations" in seen) == ("model/evaluation_iterations" in seen) == (not video)
    assert ("model/class_cost" in seen) == (study.model.classes > 0)
    assert ("model/stateful" in seen) == ("model/feedback" in seen) == ("model/channels" in seen) == recurrent
    assert ("model/widths" in seen) == (not recurrent and not fine_tuned)
