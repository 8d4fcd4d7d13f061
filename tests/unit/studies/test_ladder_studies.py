"""Every published row against the table as it was typed from the paper's sources, and the overrides of a study."""

from __future__ import annotations

import pytest

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.studies import STUDIES, find_study, grouping, grouping_digits

OF_GROUPING = {study.name for study in (*grouping.STUDIES, *grouping_digits.STUDIES)}
"""Studies of papers on grouping, also those of their baselines."""
MNIST_WIDTHS = (784, 1000, 500, 250, 250, 250, 10)

# name: labels, lambda_0..lambda_6, local noise, error, standard deviation, error confirmed, deviation confirmed
ROWS = {
    "mnist-100-full": (100, (1000, 10, 0.1, 0.1, 0.1, 0.1, 0.1), 0.3, 0.0106, 0.0037, True, True),
    "mnist-100-bottom": (100, (5000, 0, 0, 0, 0, 0, 0), 0.3, 0.0109, 0.0032, False, False),
    "mnist-100-gamma": (100, (0, 0, 0, 0, 0, 0, 0.5), 0.3, 0.0306, 0.0144, False, False),
    "mnist-100-base": (100, (0, 0, 0, 0, 0, 0, 0), 0.5, 0.2174, 0.0177, False, False),
    "mnist-1000-full": (1000, (2000, 20, 0.1, 0.1, 0.1, 0.1, 0.1), 0.2, 0.0084, 0.0008, True, True),
    "mnist-1000-bottom": (1000, (2000, 0, 0, 0, 0, 0, 0), 0.3, 0.0090, 0.0005, False, False),
    "mnist-1000-gamma": (1000, (0, 0, 0, 0, 0, 0, 10), 0.3, 0.0153, 0.0010, True, False),
    "mnist-1000-base": (1000, (0, 0, 0, 0, 0, 0, 0), 0.5, 0.0570, 0.0020, False, False),
    "mnist-all-full": (None, (1000, 1, 0.01, 0.01, 0.01, 0.01, 0.01), 0.3, 0.0057, 0.0002, True, True),
    "mnist-all-bottom": (None, (2000, 0, 0, 0, 0, 0, 0), 0.3, 0.0059, 0.0003, False, False),
    "mnist-all-gamma": (None, (0, 0, 0, 0, 0, 0, 2), 0.3, 0.0078, 0.0003, False, False),
    "mnist-all-base": (None, (0, 0, 0, 0, 0, 0, 0), 0.5, 0.0080, 0.0003, True, True),
    "mnist-50-full": (50, (2000, 20, 0.1, 0.1, 0.1, 0.1, 0.1), 0.3, 0.0162, 0.0065, True, True),
}


def test_the_mnist_rows_are_those_of_the_table() -> None:
    named = {name for name, study in STUDIES.items() if name.startswith("mnist-") and study.family == "ladder"}
    assert named == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_as_published(name: str) -> None:
    labels, lambda_, local, error, deviation, verified, deviation_verified = ROWS[name]
    study = STUDIES[name]
    model, training, target = study.model, study.training, study.target
    assert (study.name, study.family, study.data.dataset) == (name, "ladder", "mnist")
    assert study.data.labels == labels and study.data.validation == 10_000
    assert model.widths == MNIST_WIDTHS
    assert model.lambda_ == lambda_
    assert model.noise_std == (0.3, *(local,) * 6)  # the input's noise is 0.3 in every row
    assert (model.combinator, model.activation, model.lateral) == ("gauss", "relu", True)
    kind = name.rpartition("-")[2]
    assert model.decoder == {"full": "full", "bottom": "full", "gamma": "gamma", "base": "none"}[kind]
    assert (training.lr, training.epochs, training.decay_start) == (0.002, 150, 0.67)
    assert (training.labelled_batch, training.unlabelled_batch) == (100, 100)
    assert target is not None
    assert target.error == pytest.approx(error, abs=1e-12) and target.spread == pytest.approx(deviation, abs=1e-12)
    assert (target.spread_kind, target.seeds) == ("standard deviation", 10)
    assert (target.verified, target.spread_verified) == (verified, deviation_verified)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, study in STUDIES.items()
        if study.family not in ("recurrent", "sequence") and name not in OF_GROUPING
    ],
)
def test_names_and_baselines(name: str) -> None:
    study = STUDIES[name]
    assert study.name == name
    if study.baseline is not None:
        baseline = STUDIES[study.baseline]
        assert (baseline.data, baseline.family) == (study.data, study.family)
        if study.family.startswith("progressive"):
            assert baseline.model.approach == "scratch" and not baseline.sources
        else:
            assert baseline.model.decoder == "none"
            assert baseline.model == baseline.model.on_network_of(study.model)
    elif not study.family.startswith("progressive"):
        without = ("mnist-50-full", "mnist-100-conv-fc")  # for which the paper has no baseline
        assert study.model.decoder == "none" or name in without


def test_targets_say_what_was_not_confirmed() -> None:
    shown = {name: str(STUDIES[name].target) for name in ("mnist-100-full", "mnist-100-bottom", "mnist-1000-gamma")}
    assert shown == {
        "mnist-100-full": "1.06 % ± 0.37",
        "mnist-100-bottom": "1.09 % ± 0.32 (unverified)",
        "mnist-1000-gamma": "1.53 % ± 0.10 (sd unverified)",
    }
    assert STUDIES["digits-100"].target is None


def test_overrides_reach_every_group_and_are_remembered() -> None:
    study = find_study("mnist-100-full")
    changed = study.with_overrides(
        {
            "data": {"labels": 1000},
            "model": {"combinator": "vanilla"},
            "training": {"lr": 0.001},
            "stop": {"reduction": 4},
        }
    )
    assert (changed.data.labels, changed.model.combinator, changed.training.lr) == (1000, "vanilla", 0.001)
    assert changed.stop.reduction == 4
    assert changed.model.lambda_ == study.model.lambda_ and changed.space == study.space
    again = changed.with_overrides({"training": {"epochs": 7}})
    assert again.changes["training"] == {"lr": 0.001, "epochs": 7}
    assert study.changes == {} and study.training.lr == 0.002


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"modle": {}}, "did you mean 'model'"),
        ({"model": {"lamda_": [1.0]}}, "did you mean 'model.lambda_'"),
        ({"space": {"noise": "per-leyer"}}, "did you mean 'per-layer'"),
        ({"training": 3}, "write training.NAME=VALUE"),
        ({"model": {"lambda_": [1.0, 2.0]}}, "give 7 numbers"),
        ({"stop": {"reduction": 1}}, "at least 2"),
        ({"stop": {"failure_error": float("nan")}}, "finite"),
    ],
)
def test_wrong_overrides_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises((SettingError, UnknownNameError), match=message):
        find_study("mnist-100-full").with_overrides(overrides)


def test_an_unknown_study_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mnist-100-full'"):
        find_study("minst-100-full")
