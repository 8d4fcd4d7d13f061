"""The progressive family's space: the points that come first, and that all it suggests can be built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from ladder_search.config import as_mapping
from ladder_search.driver.space import SearchSpace
from ladder_search.models import find_family
from ladder_search.studies import STUDIES
from spaces import find_space, progressive

optuna.logging.set_verbosity(optuna.logging.ERROR)

EVERYTHING: dict[str, Any] = {
    "alpha": "per-layer", "adapter": True, "adapter_width": True, "batch_norm": True, "weight_decay": True, "lr": True,
    "statistics": True, "source_labels": True, "source_noise": True,
}  # fmt: skip


def _of(name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    study = STUDIES[name]
    return study.trial().for_space(), as_mapping(replace(study.space, **options))


@pytest.mark.parametrize("name", ["progressive-digits", "svhn-from-ladder", "svhn-conv-from-gamma", "svhn-alexnet"])
def test_rusus_grid_and_thakers_setting_come_first_and_once(name: str) -> None:
    base, options = _of(name)
    own = progressive.published(base, options)
    found = progressive.first(base, options)
    assert own is not None and own not in found and len(found) == 9
    pairs = {(point["training/lr"], point["model/alpha"]) for point in [own, *found]}
    assert pairs == {(lr, alpha) for lr in (0.001, 0.0005, 0.0001) for alpha in (1.0, 0.1, 0.01)}
    assert found[-1]["model/adapter"] == "sum" and found[-1]["model/weight_decay"] == 1e-6
    for point in found:
        settings = progressive.suggest(optuna.trial.FixedTrial(point), base, options)
        STUDIES[name].trial().suggested(settings)


def test_a_column_without_laterals_has_no_grid() -> None:
    assert progressive.first(*_of("svhn-scratch")) == []
    assert progressive.first(*_of("progressive-digits", lr=False)) == []
    assert find_space("ladder").first(*_of("digits-100")) == []


@pytest.mark.parametrize("name", ["progressive-digits", "svhn-fine-tuned", "svhn-scratch", "svhn-conv-from-gamma"])
def test_all_that_is_suggested_is_a_trial(name: str) -> None:
    base, options = _of(name, **(EVERYTHING if "conv" not in name else {"statistics": True}))
    for seed in range(20):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        spec = STUDIES[name].trial().suggested(progressive.suggest(trial, base, options))
        assert 1e-4 <= spec.training.lr <= 3e-3
        if spec.model.approach == "progressive":
            assert all(0.003 <= alpha <= 3.0 for alpha in spec.model.alpha_init)
        for stage in spec.stages.values():
            assert stage.statistics in ("source", "target")


def test_a_search_over_the_source_varies_its_noise_labels_and_lowest_weight() -> None:
    base, options = _of("progressive-digits", **EVERYTHING)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    source = progressive.suggest(trial, base, options)["sources"]["digits-28"]
    assert len(set(source["model"]["noise_std"])) == 1 and len(source["model"]["noise_std"]) == 7
    assert source["data"]["labels"] in (100, 1000) and 100 <= source["model"]["lambda_"][0] <= 10_000
    names = {name for name in trial.params if name.startswith("sources/")}
    assert names == {f"sources/digits-28/{what}" for what in ("noise", "lambda_0", "labels", "statistics")}


@pytest.mark.parametrize(
    ("name", "options", "programs"),
    [
        ("progressive-digits", {}, 3),
        ("progressive-digits", {"adapter": False}, 1),
        ("progressive-digits", {"batch_norm": True, "adapter_width": True}, 18),
        ("svhn-scratch", {}, 1),
        ("digits-100", {}, 1),
        ("digits-100", {"combinators": ("gauss", "vanilla")}, 2),
        ("occluded-mnist-half-rladder", {"top": True}, 24),
        ("occluded-mnist-half-static", {}, 1),
        ("jsb-lstm", {"hidden": (100, 200)}, 2),
    ],
)
def test_programs_are_counted_over_the_choices_that_need_one_of_their_own(
    name: str, options: dict[str, Any], programs: int
) -> None:
    study = replace(STUDIES[name], space=replace(STUDIES[name].space, **options))
    assert SearchSpace(find_space(find_family(study.family).space), study, study.trial()).programs == programs
