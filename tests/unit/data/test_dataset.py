"""Data sets of arrays in memory: types, names of classes, splits, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ladder_search.data.dataset import Dataset
from ladder_search.errors import DataError

X = np.arange(36, dtype=float).reshape(12, 3)
Y = np.array([0, 1, -1] * 4)


def test_numbers_become_float32_and_pixels_stay() -> None:
    data = Dataset.of_arrays(X, Y, classes=("no", "yes"), test_x=X[:2], test_y=Y[:2])
    assert data.train_x.dtype == data.test_x.dtype == np.float32 and data.full_scale == 1.0
    assert data.train_y.tolist() == Y.tolist() and data.classes == ("no", "yes") and data.n_classes == 2
    assert data.example_shape == (3,)
    pixels = Dataset.of_arrays(np.zeros((12, 4, 4), np.uint8), Y, full_scale=255.0)
    assert pixels.train_x.dtype == np.uint8 and pixels.numbers == 16 and len(pixels.test_x) == 0
    assert pixels.test_x.shape == (0, 4, 4)


def test_the_digest_is_that_of_the_content() -> None:
    assert Dataset.of_arrays(X, Y).digest == Dataset.of_arrays(X.copy(), Y.astype(np.int8)).digest
    assert Dataset.of_arrays(X, Y).digest != Dataset.of_arrays(X + 1, Y).digest


def test_there_may_be_more_than_256_classes() -> None:
    data = Dataset.of_arrays(np.zeros((600, 2)), np.arange(600) // 2)
    assert data.n_classes == 300
    split = data.split(n_labelled=None, validation=0.5, seed=1)
    assert sorted(data.train_y[split.labelled]) == sorted(data.train_y[split.validation]) == list(range(300))


def test_rows_without_a_label_are_unlabelled_and_all_labels_are_used() -> None:
    split = Dataset.of_arrays(X, Y).split(n_labelled=None, validation=0, seed=3)
    assert sorted(split.labelled) == np.flatnonzero(Y >= 0).tolist() and sorted(split.unlabelled) == list(range(12))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y[:5]}, r"training part needs one class per row .* got rows \(12, 3\) and classes \(5,\)"),
        ({"test_x": np.zeros((2, 4)), "test_y": Y[:2]}, r"test part needs .* rows of the shape \(3,\)"),
        ({"y": np.full(12, -1)}, "2 classes or more, got 0"),
        ({"y": np.zeros(12, int)}, "2 classes or more, got 1"),
        ({"y": np.tile([0, 1, -2], 4)}, "or -1 for a row without a label, got -2 to 1"),
        ({"classes": ("a", "b"), "y": Y + 1}, "from 0 to 1, .* got 0 to 2"),
        ({"y": Y.astype(float)}, "must be whole numbers, got an array of float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.of_arrays(**{"x": X, "y": Y} | changes)
