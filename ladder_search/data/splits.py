"""Label splits: labelled, unlabelled and held-out training images, as a function of a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.permutation import permutations
from ladder_search.errors import SettingError

SPLIT_TAG = 0
"""Tag of the permutation of a split, distinct from those of the batch streams."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Rows of the training set, as int64 index arrays in permuted order."""

    labelled: NDArray[np.int64]
    """[n_labelled], class-balanced unless all labels are used; all are also in ``unlabelled``."""
    unlabelled: NDArray[np.int64]
    """[n - n_validation], rows whose pixels are trained on."""
    validation: NDArray[np.int64]
    """[n_validation], rows for tuning; disjoint from ``unlabelled``."""


def make_split(
    labels: NDArray[np.integer], *, n_labelled: int | None, n_validation: int, n_classes: int, seed: int
) -> Split:
    """Split a training set into labelled, unlabelled and validation rows like the ladder network's original code.

    All n rows are permuted with the seed. The first n - n_validation are unlabelled, the rest is for validation. The
    first n_labelled / n_classes unlabelled rows of each class are labelled, in permuted order. For one seed, the 100
    labels are therefore among the 1000, and the same with and without a validation set.

    Args:
        labels: classes 0..n_classes-1 of the training set, [n].
        n_labelled: number of labels, a multiple of ``n_classes``; None: all labels of the unlabelled set.
        n_validation: held-out rows, 0 .. n-1.
        seed: 0 .. 2**64-1.

    Raise ``SettingError`` if a number is out of range, or a class has too few rows.
    """
    n = len(labels)
    assert n and int(labels.max()) < n_classes, (n, n_classes)
    if not 0 <= n_validation < n:
        raise SettingError(
            f"data.validation must lie in 0..{n - 1}, so that rows to train on are left, got {n_validation!r}; "
            "hold out fewer."
        )
    order = permutations(n, seed=seed, tag=SPLIT_TAG)[0]
    unlabelled, validation = order[: n - n_validation], order[n - n_validation :]
    labelled = unlabelled if n_labelled is None else _balanced(unlabelled, labels, n_labelled, n_classes)
    return Split(labelled=labelled.copy(), unlabelled=unlabelled.copy(), validation=validation.copy())


def _balanced(
    rows: NDArray[np.int64], labels: NDArray[np.integer], n_labelled: int, n_classes: int
) -> NDArray[np.int64]:
    """Return the first ``n_labelled / n_classes`` of each class among ``rows``, in the order of ``rows``."""
    if n_labelled < 1 or n_labelled % n_classes:
        near = max(1, round(n_labelled / n_classes)) * n_classes
        raise SettingError(
            f"data.labels must be a positive multiple of the {n_classes} classes, got {n_labelled!r}; choose {near}."
        )
    per_class = n_labelled // n_classes
    classes = labels[rows]
    counts = np.bincount(classes, minlength=n_classes)
    if counts.min() < per_class:
        rarest = int(counts.argmin())
        raise SettingError(
            f"data.labels={n_labelled} needs {per_class} labels of each class, and class {rarest} has {counts[rarest]} "
            f"in the training part; choose at most {counts[rarest] * n_classes}, or null for all labels."
        )
    places = [np.flatnonzero(classes == c)[:per_class] for c in range(n_classes)]
    return rows[np.sort(np.concatenate(places))]
