"""Label splits: labelled, unlabelled and held-out training rows, as a function of a seed.

``make_split`` is the rule of the published experiments, which hold out rows of the whole training set as if all were
labelled. ``stratified_split`` and ``fold_splits`` judge by the labels that there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.permutation import permutations
from ladder_search.errors import SettingError

SPLIT_TAG = 0
"""Tag of the permutation of a split, distinct from those of the batch streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Numbers of rows of a split."""

    labelled: int
    unlabelled: int
    validation: int
    equal: bool = True
    """Whether all folds have the same number of labelled rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Rows of the training set, as int64 index arrays in permuted order."""

    labelled: NDArray[np.int64]
    """[n_labelled]; all are also in ``unlabelled``."""
    unlabelled: NDArray[np.int64]
    """[n - n_validation], rows whose inputs are trained on."""
    validation: NDArray[np.int64]
    """[n_validation], rows for tuning; disjoint from ``unlabelled``."""
    alike: Sizes | None = None
    """Smallest numbers of training rows and largest number of validation rows of all folds; None without folds."""

    def offset(self, rows: int) -> Split:
        """Return the split with ``rows`` added to every index."""
        parts = {name: getattr(self, name) + rows for name in ("labelled", "unlabelled", "validation")}
        return replace(self, **parts)

    @property
    def sizes(self) -> Sizes:
        """Numbers of rows by which batches, epochs and evaluations are made, equal for all folds."""
        own = Sizes(labelled=len(self.labelled), unlabelled=len(self.unlabelled), validation=len(self.validation))
        return self.alike or own


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


def stratified_split(
    labels: NDArray[np.integer],
    *,
    n_labelled: int | None,
    validation: int | float,
    n_classes: int,
    seed: int,
    balanced: bool = False,
    names: Sequence[object] = (),
) -> Split:
    """Split a training set whose validation rows come out of its labelled rows; both keep the shares of the classes.

    All n rows are permuted with the seed. Labels are distributed among the classes by Webster's rule, one for each
    class first, and each class labels its first rows in permuted order; for one seed, 30 labels are therefore among
    the 100. The validation rows are drawn from these in the same way, so that each class with two labels judges before
    any judges twice, and each class keeps a label to train on. All other rows are unlabelled.

    Args:
        labels: classes 0..n_classes-1 of the training set, [n]; -1: no label.
        n_labelled: number of labels, held-out ones included; the others are hidden. None: all.
        validation: held-out labels: a number, or a share in 0..1 of the labels.
        seed: 0 .. 2**64-1.
        balanced: use the same number of labels of each class, as ``make_split`` does.
        names: names of the classes for messages.

    Raise ``SettingError`` if a number is out of range, or a class has too few labels.
    """
    order = permutations(len(labels), seed=seed, tag=SPLIT_TAG)[0]
    chosen = _chosen(order, labels, n_labelled, n_classes, balanced, names)
    held_out = _held_out(chosen, labels, validation, n_classes)
    return _parted(order, chosen, held_out, len(labels))


def fold_splits(
    labels: NDArray[np.integer],
    *,
    n_labelled: int | None,
    folds: int,
    n_classes: int,
    seed: int,
    balanced: bool = False,
    names: Sequence[object] = (),
) -> list[Split]:
    """Return one split per fold: the labelled rows of ``stratified_split`` are divided into ``folds`` parts of equal
    size and equal shares of the classes, up to one row, and split i holds out part i.

    Raise ``SettingError`` as ``stratified_split`` does, or if a class has fewer labels than folds.
    """
    order = permutations(len(labels), seed=seed, tag=SPLIT_TAG)[0]
    chosen = _chosen(order, labels, n_labelled, n_classes, balanced, names)
    counts = np.bincount(labels[chosen], minlength=n_classes)
    if counts.min() < folds:
        rarest = int(counts.argmin())
        raise SettingError(
            f"data.folds={folds} needs {folds} labels of each class, and class {_name(rarest, names)} has "
            f"{counts[rarest]}; choose {f'at most {counts[rarest]} folds' if counts[rarest] > 1 else 'no folds'}, or "
            "label more rows."
        )
    by_class = chosen[np.argsort(labels[chosen], kind="stable")]
    parts = [_in_order(by_class[fold::folds], order) for fold in range(folds)]
    splits = [_parted(order, chosen, part, len(labels)) for part in parts]
    alike = Sizes(
        labelled=min(len(split.labelled) for split in splits),
        unlabelled=min(len(split.unlabelled) for split in splits),
        validation=max(len(split.validation) for split in splits),
        equal=len({len(split.labelled) for split in splits}) == 1,
    )
    return [replace(split, alike=alike) for split in splits]


def _chosen(
    order: NDArray[np.int64],
    labels: NDArray[np.integer],
    n_labelled: int | None,
    n_classes: int,
    balanced: bool,
    names: Sequence[object],
) -> NDArray[np.int64]:
    """Return the rows that are labelled, in permuted order."""
    rows = order[labels[order] >= 0]
    counts = np.bincount(labels[rows], minlength=n_classes)
    assert len(counts) == n_classes, (len(counts), n_classes)
    if counts.min() < 1:
        raise SettingError(
            f"each class needs a labelled row in the training set, and class {_name(int(counts.argmin()), names)} has "
            "none; label one, or leave the class out."
        )
    if n_labelled is None:
        return rows
    if n_labelled > len(rows):
        raise SettingError(
            f"data.labels must be at most the {len(rows)} labelled rows of the training set, got {n_labelled}; "
            "choose fewer, or null for all labels."
        )
    if balanced:
        return _balanced(rows, labels, n_labelled, n_classes)
    if n_labelled < n_classes:
        raise SettingError(
            f"data.labels must be at least 1 for each of the {n_classes} classes, got {n_labelled}; choose "
            f"{n_classes} or more."
        )
    return rows[np.sort(_by_webster(*_ranks(labels[rows]))[:n_labelled])]


def _held_out(
    chosen: NDArray[np.int64], labels: NDArray[np.integer], validation: int | float, n_classes: int
) -> NDArray[np.int64]:
    """Return the validation rows among the labelled rows."""
    n = len(chosen)
    number = round(validation * n) if isinstance(validation, float) else validation
    if validation and not 1 <= number <= n - n_classes:
        most = n - n_classes
        if most < 1:
            remedy = "label more rows, or hold out none"
        elif isinstance(validation, float):
            remedy = f"choose a share from {math.ceil(1000 / n) / 1000:g} to {math.floor(1000 * most / n) / 1000:g}"
        else:
            remedy = f"hold out at most {most}"
        raise SettingError(
            "data.validation must leave 1 labelled row or more to judge by and 1 of each class to train on, got "
            f"{validation}, which is {number} of {n} labelled rows of {n_classes} classes; {remedy}."
        )
    ranks, counts = _ranks(labels[chosen])
    spare = np.flatnonzero(ranks < counts - 1)  # the last one of each class stays
    places = spare[_by_webster(ranks[spare], counts[spare])[:number]]
    return chosen[np.sort(places)]


def _parted(order: NDArray[np.int64], chosen: NDArray[np.int64], held_out: NDArray[np.int64], n: int) -> Split:
    out = np.zeros(n, bool)
    out[held_out] = True
    return Split(labelled=chosen[~out[chosen]], unlabelled=order[~out[order]], validation=held_out.copy())


def _by_webster(ranks: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the rows in an order of which every beginning keeps the shares of the classes (Webster's
    rule), starting with one row of each class. Arguments as returned by ``_ranks``."""
    keys = np.where(ranks == 0, 0.0, (ranks + 0.5) / counts)
    return np.argsort(keys, kind="stable")


def _ranks(classes: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each row how many rows of its class come before it, and the number of rows of its class."""
    by_class = np.argsort(classes, kind="stable")
    counts = np.bincount(classes, minlength=1)
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks = np.empty(len(classes), np.int64)
    ranks[by_class] = np.arange(len(classes)) - np.repeat(firsts, counts)
    return ranks, counts[classes]


def _in_order(rows: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ordered: NDArray[np.int64] = rows[np.argsort(place[rows])]
    return ordered


def _name(number: int, names: Sequence[object]) -> object:
    return repr(names[number]) if names else number
