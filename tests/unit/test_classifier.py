"""``LadderClassifier``: scikit-learn's own checks, and what they do not cover."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from ladder_search import LadderClassifier
from ladder_search.errors import SettingError, UnknownNameError
from tests.plugin_files import forgotten, write_plugin

SHORT = {"hidden": (20,), "epochs": 60}
"""A small network with a short schedule: scikit-learn's checks train it some 120 times."""

EXPECTED = {
    "check_classifiers_classes": "it trains on classes -1 and 1, and -1 marks rows without a label by default; "
    "scikit-learn leaves its own semi-supervised classifiers out by their names"
}
"""Checks that the default does not pass, with the reason; with ``unlabelled=None`` there is none."""

X, CLASSES = make_blobs(n_samples=90, centers=3, n_features=4, cluster_std=0.7, random_state=3)
FEW = np.where(np.arange(90) < 15, CLASSES, -1)


def fitted(y: object = FEW, **settings: object) -> LadderClassifier:
    return LadderClassifier(**{"random_state": 0, **SHORT, **settings}).fit(X, y)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("unlabelled", [None, -1])
@pytest.mark.filterwarnings("default")  # the checks provoke warnings
def test_the_checks_of_scikit_learn(unlabelled: object) -> None:
    results = check_estimator(LadderClassifier(unlabelled=unlabelled, **SHORT), on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == (set() if unlabelled is None else set(EXPECTED)), [r for r in results if r["status"] == "failed"]
    counts = Counter(result["status"] for result in results)
    assert counts["passed"] >= 50 and counts["skipped"] <= 1  # the array API needs a variable of SciPy


def test_the_name_is_imported_when_it_is_used() -> None:
    script = "import sys, ladder_search; assert 'torch' not in sys.modules; ladder_search.LadderClassifier; print(1)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == ("1\n", "")
    with pytest.raises(ImportError):
        from ladder_search import NoSuchName  # noqa: F401


def test_unlabelled_rows_take_part() -> None:
    classifier = fitted()
    assert classifier.n_labelled_ == 15 and classifier.classes_.tolist() == [0, 1, 2]
    assert (classifier.predict(X) == CLASSES).mean() > 0.95
    np.testing.assert_allclose(classifier.scaler_.mean_, X.mean(0))  # of all rows, with and without label
    assert any(name.startswith("cost_denoising") for name in classifier.costs_)
    alone = LadderClassifier(random_state=0, **SHORT).fit(X[:15], CLASSES[:15])
    assert not np.allclose(alone.predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize(
    "y",
    [
        np.where(FEW < 0, "", np.array(["a", "b", "c"])[FEW]).astype(object),
        np.where(FEW < 0, "-1", np.array(["a", "b", "c"])[FEW]),
        np.array([None if k < 0 else "abc"[k] for k in FEW], object),
        np.array([float("nan") if k < 0 else "abc"[k] for k in FEW], object),
        np.array([-1 if k < 0 else "abc"[k] for k in FEW], object),
    ],
    ids=["empty", "text", "none", "nan", "mixed"],
)
def test_classes_of_text(y: np.ndarray) -> None:
    if "" in y.tolist():
        y = np.array([None if value == "" else value for value in y], object)
    classifier = fitted(y)
    assert classifier.classes_.tolist() == ["a", "b", "c"] and classifier.n_labelled_ == 15
    np.testing.assert_array_equal(classifier.predict_proba(X), fitted().predict_proba(X))
    assert set(classifier.predict(X)) <= {"a", "b", "c"}


def test_missing_numbers_mark_rows_and_another_mark_can_be_chosen() -> None:
    expected = fitted().predict_proba(X)
    floats = np.where(FEW < 0, np.nan, FEW)
    np.testing.assert_array_equal(fitted(floats).predict_proba(X), expected)
    nines = np.where(FEW < 0, 99, FEW)
    np.testing.assert_array_equal(fitted(nines, unlabelled=99).predict_proba(X), expected)
    both = np.where(CLASSES == 0, -1, 1)
    assert fitted(both, unlabelled=None).classes_.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("y", "settings", "error", "what"),
    [
        (np.full(90, -1), {}, ValueError, "2 classes or more, got 0 class"),
        (np.where(CLASSES == 0, -1, 1), {}, ValueError, "set unlabelled=None if -1 is a class"),
        (FEW + 0.5, {}, ValueError, "Unknown label type"),
        (np.array([1, "a"] * 45, object), {}, ValueError, "all numbers or all text"),
        (FEW[:50], {}, ValueError, "inconsistent numbers of samples"),
        (FEW, {"settings": {"model": {"noise": 1}}}, UnknownNameError, "did you mean 'model.noise_std'"),
        (FEW, {"settings": {"data": {}}}, UnknownNameError, "unknown group of settings 'data'"),
        (FEW, {"settings": {"model": {"widths": [3, 5, 3]}}}, SettingError, "start with the 4 pixels"),
        (FEW, {"epochs": 0}, SettingError, "training.epochs must be at least 1"),
        (FEW, {"family": "no-such"}, UnknownNameError, "unknown family 'no-such'"),
        (FEW, {"family": "ladder-conv"}, SettingError, "fully connected networks"),
    ],
)  # fmt: skip
def test_what_is_refused(y: np.ndarray, settings: dict, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        fitted(y, **settings)


def test_values_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match="finite deviation"):
        LadderClassifier(**SHORT).fit(np.where(np.arange(4) < 2, 1e200, 1.0) * X, FEW)


def test_nothing_of_the_process_changes() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    fitted(epochs=2).predict(X)
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_num_threads() == before[2]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_clones_pipelines_and_pickles() -> None:
    classifier = fitted(settings={"training": {"lr": 0.004}})
    twin = clone(classifier)
    assert twin.get_params() == classifier.get_params() and not hasattr(twin, "network_")
    expected = classifier.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(X), expected)
    pipeline = make_pipeline(MinMaxScaler(), LadderClassifier(random_state=1, **SHORT)).fit(X, FEW)
    assert (pipeline.predict(X) == CLASSES).mean() > 0.95
    assert cross_val_score(LadderClassifier(random_state=1, **SHORT), X, CLASSES, cv=3).mean() > 0.95


def test_settings_and_a_random_state_determine_the_result() -> None:
    one, two = (fitted(random_state=np.random.RandomState(4)).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = LadderClassifier(random_state=5, **SHORT).fit(X, FEW).predict_proba(X)
    assert not np.array_equal(one, other)
    classifier = fitted(settings={"training": {"lr": 0.004}, "model": {"decoder": "none", "lambda_": [0, 0, 0]}})
    assert classifier.settings_["training"]["lr"] == 0.004 and classifier.settings_["model"]["decoder"] == "none"
    assert classifier.settings_["model"]["widths"] == [4, 20, 3]


def test_a_family_of_a_plugin(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from ladder_search import plugins

    with forgotten():
        plugins.use(write_plugin(tmp_path))
        assert (fitted(family="plain").predict(X) == CLASSES).mean() > 0.95


@pytest.mark.slow
def test_digits_with_100_labels_are_better_than_with_labels_alone() -> None:
    rows, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, digits = rows[order], digits[order]
    y = np.where(np.arange(len(rows)) < 100, digits, -1)
    ladder = LadderClassifier(random_state=0, epochs=40).fit(rows, y)
    depth = len(ladder.settings_["model"]["widths"])
    none = {"model": {"decoder": "none", "lambda_": [0.0] * depth}}
    baseline = LadderClassifier(random_state=0, epochs=40, settings=none).fit(rows, y)
    errors = [1 - one.score(rows[100:], digits[100:]) for one in (ladder, baseline)]
    assert errors[0] < errors[1] and errors[0] < 0.12, errors
