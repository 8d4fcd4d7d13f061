"""Packs on data of one's own: numbers with missing values, few and imbalanced labels, folds, balanced batches, and the
three measures of classifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from ladder_search.config import merge
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.studies import STUDIES
from ladder_search.training.feeding import feed_of_test_set
from ladder_search.training.pack import MemberState, Pack
from ladder_search.trial import TrialSpec

CPU = torch.device("cpu")
NAMES = ("log_loss", "error", "balanced_error")


def own_data() -> Dataset:
    """330 rows of 8 numbers and an indicator in 3 classes of unequal size; 97 are labelled, a tenth is missing."""
    rng = np.random.default_rng(7)
    y = rng.choice(3, 330, p=[0.7, 0.2, 0.1])
    x = (rng.standard_normal((330, 9)) + 1.5 * np.eye(3)[y] @ rng.standard_normal((3, 9))) * 10.0 ** np.arange(-4, 5)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 8] = np.isnan(x[:, 0])
    hidden = y.copy()
    hidden[97:300] = -1
    return Dataset.of_arrays(
        x[:300], hidden[:300], test_x=x[300:], test_y=y[300:], classes=("a", "b", "c"), scaled=np.arange(9) < 8
    )


DATA = own_data()


def spec_of(**changes: Any) -> TrialSpec:
    settings = merge(
        STUDIES["digits-100"].trial().as_mapping(),
        {
            "data": {"labels": None, "validation": 0, "measure": "log-loss"},
            "model": {"widths": [9, 12, 8, 3], "noise_std": [0.3] * 4, "lambda_": [10.0, 1.0, 0.1, 0.1]},
            "training": {"epochs": 4, "labelled_batch": 20, "unlabelled_batch": 30},
        },
    )
    return TrialSpec.from_mapping(merge(settings, changes))


FOLDS = spec_of(data={"folds": 3}, draws=3)


def trained(spec: TrialSpec, draws: list[int], steps: int = 20) -> tuple[Pack, list[int]]:
    pack = spec.pack(DATA, slots=len(draws), compiled=False, device=CPU)
    slots = [pack.join(spec.member(DATA, draw)) for draw in draws]
    pack.run(steps)
    return pack, slots


def same(one: MemberState, other: MemberState) -> bool:
    return all(torch.equal(one.params[name], other.params[name]) for name in one.params)


@pytest.mark.parametrize("batches", ["as-drawn", "balanced"])
def test_a_fold_is_trained_the_same_alone_and_among_the_others(batches: str) -> None:
    spec = spec_of(data={"folds": 3, "batches": batches}, draws=3)
    pack, slots = trained(spec, [0, 1, 2])
    scores = pack.validation_scores()
    assert not same(pack.state(slots[0]), pack.state(slots[1]))
    for draw in range(3):
        alone, (slot,) = trained(spec, [draw])
        state = alone.state(slot)
        for name, value in pack.state(slots[draw]).params.items():
            torch.testing.assert_close(value, state.params[name], rtol=1e-4, atol=1e-6)
        assert alone.validation_scores()[slot]["error"] == scores[slots[draw]]["error"]


def test_the_measures_of_each_fold_are_those_of_scikit_learn_on_its_own_rows_and_scaling() -> None:
    pack, slots = trained(FOLDS, [0, 1, 2])
    sizes = set()
    for draw, slot in enumerate(slots):
        # From the raw rows: the split of the data set, and the module with the scaling of this fold.
        split = DATA.split(n_labelled=None, validation=0, folds=3, fold=draw, seed=1)
        assert np.array_equal(np.sort(FOLDS.member(DATA, draw).split.unlabelled % 300), np.sort(split.unlabelled))
        scaling = FOLDS.member(DATA, draw).scalings[draw]
        seen = DATA.train_x[split.unlabelled].astype(float)
        assert scaling.median.numpy()[:8] == pytest.approx(np.nanmedian(seen[:, :8], axis=0))
        with torch.no_grad():
            rows = scaling(torch.from_numpy(DATA.train_x[split.validation].copy()))
            probabilities = pack.module(slot)(rows).numpy()
        y, predicted = DATA.train_y[split.validation], probabilities.argmax(1)
        expected = {
            "log_loss": log_loss(y, probabilities, labels=[0, 1, 2]),
            "error": 1 - accuracy_score(y, predicted),
            "balanced_error": 1 - balanced_accuracy_score(y, predicted),
        }
        found = pack.validation_scores()[slot]
        assert tuple(found) == NAMES and found == pytest.approx(expected, rel=1e-5)
        assert pack.validation_errors()[slot] == found["log_loss"]
        sizes.add(len(y))
    assert sizes == {32, 33}, "the folds have unequal sizes"


def test_only_labelled_rows_are_in_labelled_batches_and_held_out_rows_in_none() -> None:
    for draw in range(3):
        member = FOLDS.member(DATA, draw)
        stream = FOLDS.pack(DATA, slots=1, compiled=False, device=CPU)._data.stream(member)
        labelled, unlabelled = (np.unique(table % 300) for table in stream.tables(0, 60))
        held_out = member.split.validation % 300
        assert (DATA.train_y[labelled] >= 0).all() and len(labelled) + len(held_out) == 97
        assert not set(held_out) & {*labelled, *unlabelled} and (DATA.train_y[unlabelled] < 0).any()


def test_nothing_is_held_out_in_the_end_and_all_seeds_share_one_scaling() -> None:
    spec = replace(spec_of(), label_seed=5)
    assert len(spec.member(DATA).scalings) == 1 and spec.member(DATA).signature() == spec_of().member(DATA).signature()
    pack, (slot,) = trained(spec, [0])
    module = spec.exported(pack.module(slot), DATA, CPU)
    found = pack.test_scores(feed_of_test_set(spec.member(DATA), DATA, CPU))[slot]
    with torch.no_grad():
        probabilities = module(torch.from_numpy(DATA.test_x.copy()))
    assert found["error"] == pytest.approx((probabilities.argmax(1).numpy() != DATA.test_y).mean())
    assert found["log_loss"] == pytest.approx(log_loss(DATA.test_y, probabilities.numpy(), labels=[0, 1, 2]), rel=1e-5)


def test_a_share_is_held_out_of_the_labels_of_each_draw() -> None:
    spec = spec_of(data={"validation": 0.25, "labels": 40}, draws=2)
    pack, _ = trained(spec, [0, 1])
    first, second = (spec.member(DATA, draw).split for draw in (0, 1))
    assert len(first.labelled) == 30 and len(first.validation) == 10 and len(first.unlabelled) == 290
    assert set(first.validation) != {row % 300 for row in second.validation} and second.validation.min() >= 300
    assert all(np.isfinite(list(scores.values())).all() for scores in pack.validation_scores().values())


def test_published_settings_keep_their_measure_and_signature() -> None:
    published = STUDIES["digits-100"].trial()
    judged = replace(published, data=replace(published.data, measure="error"))
    assert published.measures == ("error",) and judged.measures == ("error", "balanced_error", "log_loss")
    assert "measure" not in published.as_mapping()["data"]


def test_the_student_of_a_mean_teacher_is_judged_beside_it() -> None:
    spec = spec_of(teacher={"weight": 1.0}, data={"validation": 0.2})
    pack, (slot,) = trained(spec, [0], steps=2)
    assert tuple(pack.validation_scores()[slot]) == (*NAMES, "student_error")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"folds": 3}}, "got draws=1 and data.folds=3; set draws to 3"),
        ({"data": {"folds": 3, "validation": 0.2}, "draws": 3}, "set one of them to 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        spec_of(**changes)


def test_networks_with_measures_of_their_own_take_no_other() -> None:
    study = STUDIES["jsb-lstm"]
    with pytest.raises(
        SettingError, match="data.measure=log-loss is for classifiers of rows, and this network is judged by its NLL"
    ):
        replace(study.trial(), data=replace(study.data, measure="log-loss"))


def test_empty_and_waiting_slots_need_no_labelled_first_row() -> None:
    hidden = DATA.train_y.copy()
    hidden[0] = -1
    data = Dataset.of_arrays(DATA.train_x, hidden, classes=("a", "b", "c"), scaled=np.arange(9) < 8)
    pack = FOLDS.pack(data, slots=3, compiled=False, device=CPU)
    first, second = (pack.join(FOLDS.member(data, draw)) for draw in range(2))
    assert pack.run(3)[first].finite, "the third slot is empty"
    before = pack.state(second)
    assert pack.run(3, slots=[first])[first].step == 6
    assert same(before, pack.state(second))
