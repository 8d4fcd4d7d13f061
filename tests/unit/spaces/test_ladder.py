"""The ladder family's space: the paper's points lie in it, its ranges are known, all it suggests can be built."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from ladder_search.config import as_mapping
from ladder_search.models import FAMILIES, find_family
from ladder_search.studies import STUDIES, Study
from spaces import find_space, ladder

optuna.logging.set_verbosity(optuna.logging.ERROR)

NOISES = ("fixed", "tied", "input-and-local", "per-layer")
LAMBDAS = ("fixed", "tied", "per-layer")
OPTIONS = list(itertools.product(NOISES, LAMBDAS))


def _base(study: Study) -> dict[str, Any]:
    return study.trial().for_space()


def _options(**changed: Any) -> dict[str, Any]:
    return as_mapping(replace(STUDIES["mnist-100-full"].space, **changed))


def _ask(base: dict[str, Any], options: dict[str, Any], seed: int = 0) -> tuple[dict[str, Any], optuna.Trial]:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    return ladder.suggest(trial, base, options), trial


def test_every_family_has_a_space() -> None:
    for family in FAMILIES.values():
        assert callable(find_space(family.space).suggest)


@pytest.mark.parametrize("name", STUDIES)
def test_the_published_point_of_every_study_lies_in_its_own_space(name: str) -> None:
    study = STUDIES[name]
    base, options = _base(study), as_mapping(study.space)
    params = find_space(find_family(study.family).space).published(base, options)
    assert params is not None
    suggested = find_space(find_family(study.family).space).suggest(optuna.trial.FixedTrial(params), base, options)
    assert study.trial().suggested(suggested) == study.trial()


@pytest.mark.parametrize(
    "name",
    [
        *("mnist-100-full", "mnist-100-bottom", "mnist-100-gamma", "mnist-100-base"),
        *("mnist-100-conv-fc", "mnist-100-conv-small-gamma", "mnist-100-conv-small-supervised"),
    ],
)
@pytest.mark.parametrize(("noise", "lambda_"), OPTIONS)
@pytest.mark.parametrize("rest", [True, False])
def test_the_published_point_round_trips_under_every_option(name: str, noise: str, lambda_: str, rest: bool) -> None:
    study = STUDIES[name]
    base = _base(study)
    more = {"lr": rest, "decay_start": rest, "combinator_std": rest, "combinators": ("gauss", "amlp-4") if rest else ()}
    options = _options(noise=noise, lambda_=lambda_, **more)
    params = ladder.published(base, options)
    if noise == "tied" and name in ("mnist-100-base", "mnist-100-conv-small-supervised"):
        assert params is None  # the input has 0.3 and the layers more: one value cannot say that
        return
    assert params is not None
    suggested = ladder.suggest(optuna.trial.FixedTrial(params), base, options)
    assert study.trial().suggested(suggested) == study.trial()
    _, trial = _ask(base, options)
    assert set(params) == set(trial.params)


def test_a_point_outside_the_ranges_is_no_point() -> None:
    base = _base(STUDIES["mnist-100-full"].with_overrides({"model": {"noise_std": [0.7] * 7}}))
    assert ladder.published(base, _options(noise="tied")) is None
    base = _base(STUDIES["mnist-100-gamma"].with_overrides({"model": {"lambda_": [0, 0, 0, 0, 0, 0, 0.3]}}))
    assert ladder.published(base, _options()) is None  # not on the paper's grid


def test_ranges_of_the_full_model() -> None:
    _, trial = _ask(
        _base(STUDIES["mnist-100-full"]),
        _options(noise="input-and-local", lr=True, decay_start=True, combinator_std=True),
    )
    found = {name: (d.low, d.high, d.log) for name, d in trial.distributions.items()}
    assert found == {
        "model/noise_input": (0.1, 0.6, False),
        "model/noise_local": (0.1, 0.6, False),
        "model/lambda_0": (100.0, 10_000.0, True),
        "model/lambda_1": (1.0, 100.0, True),
        "model/lambda_rest": (0.001, 1.0, True),
        "model/combinator_std": (0.006, 0.05, True),
        "training/lr": (0.0005, 0.005, True),
        "training/decay_start": (0.5, 0.86, False),
    }


def test_ranges_of_models_with_one_weight() -> None:
    _, bottom = _ask(_base(STUDIES["mnist-100-bottom"]), _options(noise="fixed"))
    (weight,) = bottom.distributions.values()
    assert (weight.low, weight.high, weight.log) == (200.0, 10_000.0, True)
    _, gamma = _ask(_base(STUDIES["mnist-100-gamma"]), _options(noise="fixed"))
    (weight,) = gamma.distributions.values()
    assert weight.choices == (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@pytest.mark.parametrize(
    "name", ["mnist-100-full", "mnist-1000-bottom", "mnist-all-gamma", "mnist-100-base", "digits-50"]
)
@pytest.mark.parametrize(("noise", "lambda_"), OPTIONS)
def test_every_suggestion_can_be_built(name: str, noise: str, lambda_: str) -> None:
    base = _base(STUDIES[name])
    kinds = ("gauss", "vanilla", "mlp-4", "amlp-2-2-2")
    options = _options(noise=noise, lambda_=lambda_, lr=True, decay_start=True, combinator_std=True, combinators=kinds)
    for seed in range(10):
        suggested, _ = _ask(base, options, seed)
        spec = STUDIES[name].trial().suggested(suggested)
        layers = len(spec.model.widths)
        assert len(spec.model.noise_std) == len(spec.model.lambda_) == layers
        assert spec.model.combinator in kinds
        assert 0.0005 <= spec.training.lr <= 0.005 and 0.5 <= spec.training.decay_start <= 0.86
        if noise == "fixed":
            assert list(spec.model.noise_std) == base["model"]["noise_std"]
        if noise == "tied":
            assert len(set(spec.model.noise_std)) == 1
        if noise == "input-and-local":
            assert len(set(spec.model.noise_std[1:])) == 1
        if lambda_ == "tied":
            assert len(set(spec.model.lambda_[2:-1])) <= 1
        if lambda_ == "fixed" or name == "mnist-100-base":
            assert list(spec.model.lambda_) == base["model"]["lambda_"]
        if name == "mnist-1000-bottom":
            assert not any(spec.model.lambda_[1:])
        if name == "mnist-all-gamma":
            assert not any(spec.model.lambda_[:-1])


@pytest.mark.parametrize("widths", [[64, 10], [64, 20, 10]])
def test_shallow_networks_have_only_the_weights_they_use(widths: list[int]) -> None:
    layers = len(widths)
    changed = {"widths": widths, "noise_std": [0.3] * layers, "lambda_": [1000.0, 10.0, 0.1][:layers]}
    study = STUDIES["digits-100"].with_overrides({"model": changed})
    base = _base(study)
    for lambda_ in ("tied", "per-layer"):
        params = ladder.published(base, _options(lambda_=lambda_))
        suggested, trial = _ask(base, _options(lambda_=lambda_))
        assert params is not None and set(params) == set(trial.params)
        assert len(study.trial().suggested(suggested).model.lambda_) == layers


def test_a_space_is_found_again_by_its_path() -> None:
    for family in FAMILIES.values():
        space = find_space(family.space)
        for function in (space.suggest, space.published):
            assert pickle.loads(pickle.dumps(function)) is function
            assert function.__module__.startswith("spaces.") and "<" not in function.__qualname__


SUGGEST = """
import json, sys, optuna
from spaces import ladder
from ladder_search.config import as_mapping
from ladder_search.studies import STUDIES
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = STUDIES["digits-100"]
optuna_study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5))
found = []
for i in range(13):
    trial = optuna_study.ask()
    found.append(ladder.suggest(trial, study.trial().as_mapping(), as_mapping(study.space)))
    optuna_study.tell(trial, trial.params["model/noise_local"])
print(json.dumps(found))
"""


def test_the_same_seed_gives_the_same_suggestions_in_a_fresh_process() -> None:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-W", "ignore", "-c", SUGGEST]
    runs = [
        subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        for hash_seed in ("1", "2")
    ]
    first, second = (json.loads(run.stdout) for run in runs)
    assert first == second
    assert len({json.dumps(one) for one in first}) == 13


def test_the_range_of_the_input_s_weight_is_scaled() -> None:
    base, optuna_study = _base(STUDIES["digits-100"]), optuna.create_study()
    trial = optuna_study.ask()
    ladder.suggest(trial, base, {**_options(), "lambda_0_scale": 0.01})
    found = trial.distributions["model/lambda_0"]
    assert (found.low, found.high) == (1.0, 100.0) and trial.distributions["model/lambda_1"].low == 1.0
