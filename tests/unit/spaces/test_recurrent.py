"""The spaces of the recurrent family and of the music baselines: points, other levels, trials of all that is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from ladder_search.config import as_mapping
from ladder_search.models.recurrent import RecurrentConfig
from ladder_search.studies import STUDIES
from spaces import find_space, recurrent, sequence

optuna.logging.set_verbosity(optuna.logging.ERROR)

EVERYTHING: dict[str, Any] = {
    "lr": True, "lambda_p": True, "prediction": True, "decoder_cell": True, "noise": True, "dropout": True,
    "weight_decay": True, "iterations": (1, 2), "channels": (8, 16, 32), "kernels": (3, 5), "cells": ("lstm", "gru"),
    "top": True, "normalisation": True, "teacher": True,
}  # fmt: skip


def _of(name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    study = STUDIES[name]
    return study.trial().for_space(), as_mapping(replace(study.space, **options))


@pytest.mark.parametrize(
    "name",
    [
        "occluded-mnist-half-rladder",
        "occluded-mnist-temporal",
        "occluded-mnist-static",
        "occluded-mnist-1000-rladder-mt",
    ],
)
def test_all_that_is_suggested_is_a_trial_and_the_published_point_is_among_it(name: str) -> None:
    base, options = _of(name, **EVERYTHING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = set()
    for _ in range(40):
        settings = recurrent.suggest(study.ask(), base, options)
        spec = STUDIES[name].trial().suggested(settings)
        seen.add(spec.model.levels)
        assert spec.model.lambda_p == base["model"]["lambda_p"] or spec.model.lambda_p >= 1.0  # never the ablation
        assert bool(spec.teacher.weight) == name.endswith("-mt")
    assert len(seen) > 10
    own = recurrent.published(base, options)
    assert own is not None or base["model"]["levels"][0].startswith("conv:32:3:1 conv:32:3:2 conv")
    if own is not None:
        settings = recurrent.suggest(optuna.trial.FixedTrial(own), base, options)
        assert STUDIES[name].trial().suggested(settings) == STUDIES[name].trial()


def test_levels_keep_their_proportions() -> None:
    base, options = _of("occluded-mnist-rladder", channels=(8,), kernels=(5,), cells=("gru",), top=True)
    point = {
        **(recurrent.published(base, options) or {}),
        "training/lr": 0.001, "model/lambda_p": 10.0, "model/noise_std": 0.0, "model/prediction": "bce",
        "model/decoder_cell": "g3", "model/channels": 8, "model/kernel": 5, "model/cell": "gru", "model/top": 64,
    }  # fmt: skip
    found = recurrent.suggest(optuna.trial.FixedTrial(point), base, options)
    assert STUDIES["occluded-mnist-rladder"].trial().suggested(found).model.levels == (
        "conv:8:3:1 conv:8:3:2 gru:8:5",
        "conv:16:3:2 gru:16:5",
        "conv:32:3:2 dense-gru:64",
    )


def test_an_ablation_is_not_searched_away() -> None:
    base, options = _of("occluded-mnist-half-no-prediction")
    assert "model/lambda_p" not in (recurrent.published(base, options) or {"model/lambda_p": 0})
    settings = recurrent.suggest(optuna.create_study().ask(), base, options)
    assert RecurrentConfig(**{**STUDIES["occluded-mnist-half-no-prediction"].changes, "lambda_p": 0.0}).lambda_p == 0.0
    assert "lambda_p" not in settings["model"] and "prediction" not in settings["model"]


@pytest.mark.parametrize("name", ["jsb-lstm", "jsb-tcn", "nottingham-rnn"])
def test_music_baselines(name: str) -> None:
    base, options = _of(name, hidden=(100, STUDIES[name].model.hidden))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = [STUDIES[name].trial().suggested(sequence.suggest(study.ask(), base, options)) for _ in range(20)]
    assert len({spec.model.hidden for spec in found}) == 2 and len({spec.model.dropout for spec in found}) == 20
    own = sequence.published(base, options)
    assert own is not None and find_space("sequence").first(base, options) == []
    suggested = sequence.suggest(optuna.trial.FixedTrial(own), base, options)
    assert STUDIES[name].trial().suggested(suggested).model == STUDIES[name].model
