"""Label splits: which training images are labelled, unlabelled and held out. A split is data, made once from a seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.permutation import permutations
from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_json
from ladder_search.errors import DataError, SettingError

SPLIT_TAG = 0
"""Tag of the permutation that a split is cut from; the batch streams have other tags."""

FORMAT = "ladder-search split 1"
"""First entry of a split file; the number goes up when the layout changes."""
LIMIT = 1 << 28
"""Bytes that a split file may have: tens of millions of rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Rows of the training set, as int64 index arrays in permuted order."""

    labelled: NDArray[np.int64]
    """[n_labelled], class-balanced unless all labels are used; every one is also in ``unlabelled``."""

    unlabelled: NDArray[np.int64]
    """[n - n_validation], the rows whose pixels are trained on."""

    validation: NDArray[np.int64]
    """[n_validation], the rows that tuning is judged by; disjoint from ``unlabelled``."""


def make_split(
    labels: NDArray[np.integer], *, n_labelled: int | None, n_validation: int, n_classes: int, seed: int
) -> Split:
    """Cut a training set into labelled, unlabelled and validation rows, as the ladder network's own code does.

    All n rows are permuted with the seed. The first n - n_validation are the unlabelled set, the rest the validation
    set. The first n_labelled / n_classes rows of each class in the unlabelled set are the labelled set, in permuted
    order. So, for one seed, the 100 labels are among the 1000, and the labels stay the same with and without a
    validation set.

    Args:
        labels: classes 0..n_classes-1 of the training set, [n].
        n_labelled: number of labels, a multiple of ``n_classes``; None uses every label of the unlabelled set.
        n_validation: rows held out, 0 .. n-1.
        n_classes: number of classes.
        seed: 0 .. 2**64-1.

    Raises:
        SettingError: a number that breaks its rule, or more labels than a class has.
    """
    n = len(labels)
    if n == 0 or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        span = f"{labels.min()}..{labels.max()}" if n else "no labels"
        raise SettingError(f"labels must lie in 0..{n_classes - 1}, got {span}; correct n_classes.")
    if not 0 <= n_validation < n:
        raise SettingError(
            f"data.validation must lie in 0..{n - 1}, so that rows to train on are left, got {n_validation!r}; "
            "hold out fewer."
        )
    order = permutations(n, seed=seed, tag=SPLIT_TAG)[0]
    unlabelled, validation = order[: n - n_validation], order[n - n_validation :]
    labelled = unlabelled if n_labelled is None else _balanced(unlabelled, labels, n_labelled, n_classes)
    return Split(labelled=labelled.copy(), unlabelled=unlabelled.copy(), validation=validation.copy())


def write_split(split: Split, path: Path) -> None:
    """Write ``split`` as JSON, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "labelled": split.labelled.tolist(),
        "unlabelled": split.unlabelled.tolist(),
        "validation": split.validation.tolist(),
    }
    text = json.dumps(content, separators=(",", ":")) + "\n"
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise DataError(f"a split must be written to {path}, which fails ({error}); choose another place.") from error


def read_split(path: Path) -> Split:
    """Read a split that ``write_split`` wrote, and check that it is one.

    Raises:
        DataError: the file is absent, cut short, or holds rows that no split can hold.
    """
    try:
        content = read_json(path, LIMIT)
    except OSError as error:
        raise DataError(f"the split file {path} must be readable ({error}); make the split again.") from error
    except ValueError as error:
        raise DataError(f"the split file {path} must be JSON, found {error}; make the split again.") from error
    fault = _fault(content)
    if fault:
        raise DataError(f"the split file {path} {fault}; make the split again.")
    rows = {name: np.array(content[name], dtype=np.int64) for name in ("labelled", "unlabelled", "validation")}
    return Split(**rows)


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


def _fault(content: object) -> str:
    """Say what is wrong with the content of a split file; an empty text when it is a split."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        return f"must have the format {FORMAT!r}, found {found!r}"
    sets: dict[str, set[int]] = {}
    for name in ("labelled", "unlabelled", "validation"):
        rows = content.get(name)
        if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < 2**63 for row in rows):
            return f"must list whole numbers from 0 under {name!r}, found something else"
        sets[name] = set(rows)
        if len(sets[name]) < len(rows):
            return f"must list each row once under {name!r}, found {len(rows) - len(sets[name])} repeated"
    if not sets["labelled"] or not sets["labelled"] <= sets["unlabelled"]:
        stray = len(sets["labelled"] - sets["unlabelled"])
        return f"must have labelled rows among the unlabelled ones, found {len(sets['labelled'])}, {stray} elsewhere"
    if sets["unlabelled"] & sets["validation"]:
        shared = len(sets["unlabelled"] & sets["validation"])
        return f"must keep validation apart from training, found {shared} rows in both"
    everything = sets["unlabelled"] | sets["validation"]
    if max(everything) >= len(everything):
        return f"must cover rows 0..{len(everything) - 1} without gaps, found row {max(everything)}"
    return ""
