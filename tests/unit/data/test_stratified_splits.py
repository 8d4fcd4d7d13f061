"""Splits whose validation rows come out of the labelled rows: the rules by hand, shares, folds, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from ladder_search.data.dataset import Dataset
from ladder_search.data.permutation import permutations
from ladder_search.data.splits import Split, fold_splits, make_split, stratified_split
from ladder_search.errors import SettingError

LABELS = np.repeat([0, 1, 2, -1], [60, 25, 5, 110])
"""90 labelled rows of 200 in three classes of unequal size."""
ORDER = permutations(200, seed=1, tag=0)[0].tolist()


def split(**changes: Any) -> Split:
    return stratified_split(LABELS, **{"n_labelled": None, "validation": 0, "n_classes": 3, "seed": 1} | changes)


def folds(**changes: Any) -> list[Split]:
    return fold_splits(LABELS, **{"n_labelled": None, "folds": 5, "n_classes": 3, "seed": 1} | changes)


def counts(rows: np.ndarray) -> list[int]:
    return [int(number) for number in np.bincount(LABELS[rows], minlength=3)]


def test_labels_are_the_first_of_each_class_in_permuted_order() -> None:
    found = split(n_labelled=18)
    # Webster's rule with a seat for each class first: 60, 25 and 5 of 90 are 12, 5 and 1 of 18.
    assert counts(found.labelled) == [12, 5, 1]
    expected = {row for c, n in enumerate((12, 5, 1)) for row in [row for row in ORDER if LABELS[row] == c][:n]}
    assert found.labelled.tolist() == [row for row in ORDER if row in expected]
    assert found.unlabelled.tolist() == ORDER and not len(found.validation)


def test_all_labels_are_used_by_default() -> None:
    assert split().labelled.tolist() == [row for row in ORDER if LABELS[row] >= 0]


@pytest.mark.parametrize("seed", range(1, 6))
def test_few_labels_are_among_more_labels(seed: int) -> None:
    taken: set[int] = set()
    for n in range(3, 91):
        labelled = set(split(n_labelled=n, seed=seed).labelled.tolist())
        assert taken < labelled and len(labelled) == n and min(counts(np.array(sorted(labelled)))) >= 1
        taken = labelled


@pytest.mark.parametrize(
    ("validation", "held_out"), [(0.2, [12, 5, 1]), (18, [12, 5, 1]), (0.5, [30, 12, 3]), (3, [1, 1, 1])]
)
def test_validation_rows_keep_the_shares(validation: float, held_out: list[int]) -> None:
    found = split(validation=validation)
    assert counts(found.validation) == held_out
    assert sorted([*found.labelled, *found.validation]) == np.flatnonzero(LABELS >= 0).tolist()
    assert sorted([*found.unlabelled, *found.validation]) == list(range(200))
    assert set(found.labelled) <= set(found.unlabelled)


def test_validation_comes_out_of_the_labels_that_are_not_hidden() -> None:
    every, some = split(n_labelled=40), split(n_labelled=40, validation=0.25)
    assert sorted([*some.labelled, *some.validation]) == sorted(every.labelled) and len(some.validation) == 10


def test_each_class_keeps_a_label_to_train_on() -> None:
    assert counts(split(validation=87).labelled) == [1, 1, 1]


def test_folds_are_those_of_scikit_learn_in_size_and_shares() -> None:
    found = folds()
    labelled = LABELS[LABELS >= 0]
    parts = [np.bincount(labelled[part]).tolist() for _, part in StratifiedKFold(5).split(labelled, labelled)]
    assert sorted(counts(one.validation) for one in found) == sorted(parts)
    assert sorted(np.concatenate([one.validation for one in found])) == np.flatnonzero(LABELS >= 0).tolist()
    for one in found:
        assert sorted([*one.labelled, *one.validation]) == np.flatnonzero(LABELS >= 0).tolist()
        assert sorted([*one.unlabelled, *one.validation]) == list(range(200))
        assert one.sizes.equal and (one.sizes.labelled, one.sizes.unlabelled, one.sizes.validation) == (72, 182, 18)


def test_folds_of_unequal_size_state_the_sizes_that_they_share() -> None:
    found = folds(folds=4)
    assert sorted(len(one.validation) for one in found) == [22, 22, 23, 23]
    for one in found:
        assert one.sizes == found[0].sizes and not one.sizes.equal
        assert (one.sizes.labelled, one.sizes.unlabelled, one.sizes.validation) == (67, 177, 23)


def test_other_seeds_give_other_labels_and_folds() -> None:
    assert split(n_labelled=30).labelled.tolist() != split(n_labelled=30, seed=2).labelled.tolist()
    assert folds()[0].validation.tolist() != folds(seed=2)[0].validation.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_labelled": 2}, "at least 1 for each of the 3 classes, got 2; choose 3 or more"),
        ({"n_labelled": 91}, "at most the 90 labelled rows of the training set, got 91"),
        ({"validation": 0.001}, "got 0.001, which is 0 of 90 labelled rows of 3 .* from 0.012 to 0.966"),
        ({"validation": 0.99}, "which is 89 of 90 labelled rows of 3 classes; choose a share from"),
        ({"validation": 88}, "88 of 90 labelled rows of 3 classes; hold out at most 87"),
        ({"n_labelled": 3, "validation": 0.3}, "1 of 3 labelled rows of 3 classes; label more rows, or hold out none"),
        ({"n_classes": 4, "names": ("a", "b", "c", "d")}, "class 'd' has none; label one"),
    ],
)  # fmt: skip
def test_splits_that_leave_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        split(**changes)


def test_a_class_with_fewer_labels_than_folds_is_refused() -> None:
    with pytest.raises(
        SettingError, match=r"data.folds=6 needs 6 labels of each class, and class 'rare' has 5; choose at most 5"
    ):
        folds(folds=6, names=("many", "some", "rare"))
    with pytest.raises(SettingError, match="class 2 has 1; choose no folds"):
        folds(folds=2, n_labelled=10)


def test_a_published_data_set_keeps_its_rule_for_numbers_of_rows_and_balances_labels_for_shares() -> None:
    classes = np.tile(np.arange(10), 30)
    data = Dataset(
        name="table", train_x=np.zeros((300, 2), np.uint8), train_y=classes.astype(np.uint8), test_x=np.zeros((0, 2)),
        test_y=classes[:0], full_scale=1.0, n_classes=10, digest="",
    )  # fmt: skip
    published = make_split(classes, n_labelled=50, n_validation=60, n_classes=10, seed=4)
    found = data.split(n_labelled=50, validation=60, seed=4)
    assert all(
        np.array_equal(getattr(found, part), getattr(published, part))
        for part in ("labelled", "unlabelled", "validation")
    )
    share = data.split(n_labelled=50, validation=0.2, seed=4)
    assert (
        np.bincount(classes[share.labelled]).tolist() == [4] * 10
        and np.bincount(classes[share.validation]).tolist() == [1] * 10
    )
    fold = data.split(n_labelled=50, validation=0, folds=5, fold=3, seed=4)
    assert np.bincount(classes[fold.labelled]).tolist() == [4] * 10 and len(fold.unlabelled) == 290
