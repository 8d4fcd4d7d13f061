"""TrialSpec: the place where mappings end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.studies import STUDIES
from ladder_search.trial import TrialSpec

BASE = STUDIES["digits-100"].trial().as_mapping()


@st.composite
def _mappings(draw: st.DrawFn) -> dict[str, Any]:
    layers = draw(st.integers(2, 6))
    widths = [64, *draw(st.lists(st.integers(1, 50), min_size=layers - 2, max_size=layers - 2)), 10]
    decoder = draw(st.sampled_from(["full", "gamma", "none"]))
    weight = st.floats(0, 1e7)
    lambda_ = {
        "full": st.lists(weight, min_size=layers, max_size=layers),
        "gamma": weight.map(lambda top: [0.0] * (layers - 1) + [top]),
        "none": st.just([0.0] * layers),
    }[decoder]
    dtype = draw(st.sampled_from(["float32", "float64"]))
    precisions = ["float32", "tf32", "bf16"] if dtype == "float32" else ["float32"]
    return {
        "family": "ladder",
        "data": {
            "dataset": draw(st.sampled_from(["digits", "mnist"])),
            "labels": draw(st.none() | st.integers(1, 1000)),
            "validation": draw(st.integers(0, 1000)),
            "preprocessing": draw(st.sampled_from(["none", "gcn-zca"])),
        },
        "model": {
            "widths": widths,
            "noise_std": draw(st.lists(st.floats(0, 10), min_size=layers, max_size=layers)),
            "lambda_": draw(lambda_),
            "decoder": decoder,
            "combinator": draw(st.sampled_from(["gauss", "vanilla", "mlp-4", "amlp-2-2-2"])),
            "combinator_std": draw(st.floats(0, 1)),
            "lateral": draw(st.booleans()),
            "activation": draw(st.sampled_from(["relu", "leaky-relu"])),
        },
        "training": {
            "epochs": draw(st.integers(1, 1000)),
            "lr": draw(st.floats(0, 1)),
            "decay_start": draw(st.floats(0, 1)),
            "labelled_batch": draw(st.integers(2, 500)),
            "unlabelled_batch": draw(st.integers(2, 500)),
            "dtype": dtype,
            "precision": draw(st.sampled_from(precisions)),
            "window": draw(st.integers(1, 500)),
            "clip_norm": draw(st.none() | st.floats(0.1, 10)),
        },
        "seed": draw(st.integers(0, 2**32 - 1)),
        "label_seed": draw(st.integers(0, 2**32 - 1)),
        "draws": draw(st.integers(1, 5)),
    }


@given(_mappings())
@settings(max_examples=100, deadline=None)
def test_a_trial_is_its_mapping_and_back(mapping: dict[str, Any]) -> None:
    spec = TrialSpec.from_mapping(mapping)
    assert spec.as_mapping() == mapping
    assert TrialSpec.from_mapping(json.loads(json.dumps(spec.as_mapping()))) == spec


def test_what_is_left_out_has_its_default() -> None:
    raw = {name: BASE[name] for name in ("family", "data", "training")}
    spec = TrialSpec.from_mapping({**raw, "model": {}})
    assert spec.model.widths[0] == 784 and (spec.seed, spec.label_seed, spec.draws) == (1, 1, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"family": "laddder"}, "did you mean 'ladder'"),
        ({"model": {"widhts": [64, 10]}}, "did you mean 'model.widths'"),
        ({"sead": 3}, "did you mean 'seed'"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"data": {"validation": -1}}, "data.validation must be 0 or more"),
        ({"data": {"dataset": "digit"}}, "did you mean 'digits'"),
        ({"training": {"labelled_batch": 1}}, "at least 2 rows"),
        ({"training": {"unlabelled_batch": 1}}, "at least 2 rows"),
    ],
)
def test_mistakes_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingError, UnknownNameError), match=message):
        TrialSpec.from_mapping(merge(BASE, changed))


def test_a_mapping_without_a_family_or_a_model_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Known: ladder"):
        TrialSpec.from_mapping({})
    with pytest.raises(SettingError, match="must be a mapping"):
        TrialSpec.from_mapping({**BASE, "model": None})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"widths": [784, 10], "noise_std": [0, 0], "lambda_": [0, 0]}, r"the 64 pixels and end with the 10 classes"),
        ({"widths": [64, 11], "noise_std": [0, 0], "lambda_": [0, 0]}, r"got \[64, 11\]; correct its first and last"),
    ],
)
def test_a_model_that_does_not_fit_its_data_is_refused(model: dict[str, Any], message: str) -> None:
    spec = TrialSpec.from_mapping(merge(BASE, {"model": model}))
    with pytest.raises(SettingError, match=message):
        spec.check_fits(datasets.load("digits"))


@pytest.mark.parametrize("data", [{"labels": 101}, {"labels": 5000}, {"validation": 1297}, {"validation": 10**6}])
def test_a_split_that_cannot_be_made_is_refused(data: dict[str, Any]) -> None:
    spec = TrialSpec.from_mapping(merge(BASE, {"data": data}))
    with pytest.raises(SettingError):
        spec.check_fits(datasets.load("digits"))


def test_draws_differ_in_labels_and_weights_and_share_the_rest() -> None:
    dataset = datasets.load("digits")
    spec = replace(TrialSpec.from_mapping(BASE), seed=3, label_seed=8, draws=2)
    first, second = spec.member(dataset), spec.member(dataset, 1)
    assert (first.seed, second.seed) == (3, 4)
    assert sorted(first.split.labelled) != sorted(second.split.labelled)
    assert first.signature() == second.signature()
    again = replace(spec, label_seed=9).member(dataset)
    assert sorted(again.split.labelled) == sorted(second.split.labelled)


CPU = torch.device("cpu")


def test_draws_that_hold_out_other_images_share_no_whitening() -> None:
    spec = TrialSpec.from_mapping(merge(BASE, {"data": {"preprocessing": "gcn-zca"}, "draws": 2}))
    with pytest.raises(SettingError, match="got draws=2; train 1 draw."):
        spec.check_fits(datasets.load("digits"))
    replace(spec, data=replace(spec.data, validation=0)).check_fits(datasets.load("digits"))


@pytest.mark.parametrize(
    ("study", "settings_", "rule"),
    [
        ("shapes-small", {"data": {"dataset": "digits"}}, "scored by the true segments of images, and digits has none"),
        ("shapes-small", {"model": {"segments": 2}}, "model.segments must be at least 3, .* got 2; set it to 3"),
        ("freq20-1digits-small", {"model": {"likelihood": "binary"}}, "has grey levels; set it to continuous"),
        (
            "progressive-digits",
            {"data": {"dataset": "freq20-2digits"}},
            "family progressive reads one class per image, and images of freq20-2digits have 2; choose another data",
        ),
        (
            "digits-100-base",
            {
                "data": {"dataset": "shapes-small"},
                "model": {"widths": [400, 1], "noise_std": [0, 0], "lambda_": [0, 0]},
            },
            "needs a data set with classes, and shapes-small has none",
        ),
    ],
)
def test_objects_of_images_must_suit_the_family(study: str, settings_: dict[str, Any], rule: str) -> None:
    spec = STUDIES[study].trial().changed(settings_)
    with pytest.raises(SettingError, match=rule):
        spec.check_fits(datasets.load(spec.data))
