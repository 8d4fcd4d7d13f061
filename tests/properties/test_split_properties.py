"""Properties that every label split has."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.data.splits import Split, make_split
from ladder_search.errors import SettingError

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

seeds = st.integers(0, 2**64 - 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, int | None]]:
    n_classes = draw(st.integers(1, 6))
    labels = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=80)), np.uint8)
    n_validation = draw(st.integers(0, len(labels) - 1))
    n_labelled = draw(st.none() | st.integers(1, 5).map(lambda per_class: per_class * n_classes))
    return labels, {
        "n_labelled": n_labelled,
        "n_validation": n_validation,
        "n_classes": n_classes,
        "seed": draw(seeds),
    }


def same(a: Split, b: Split) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("labelled", "unlabelled", "validation"))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_a_split_is_balanced_disjoint_contained_and_repeatable(case: tuple[np.ndarray, dict[str, int | None]]) -> None:
    labels, numbers = case
    n_labelled, n_validation, n_classes = numbers["n_labelled"], numbers["n_validation"], numbers["n_classes"]
    assert n_validation is not None and n_classes is not None
    try:
        split = make_split(labels, **numbers)  # type: ignore[arg-type]
    except SettingError:
        assert n_labelled is not None
        unlimited = make_split(labels, **{**numbers, "n_labelled": None})  # type: ignore[arg-type]
        counts = np.bincount(labels[unlimited.unlabelled], minlength=n_classes)
        assert counts.min() < n_labelled // n_classes, "refused though each class has enough"
        return
    assert sorted([*split.unlabelled, *split.validation]) == list(range(len(labels)))
    assert len(split.validation) == n_validation
    assert set(split.labelled) <= set(split.unlabelled)
    assert len(set(split.labelled)) == len(split.labelled)
    if n_labelled is None:
        assert np.array_equal(split.labelled, split.unlabelled)
    else:
        assert (
            np.bincount(labels[split.labelled], minlength=n_classes).tolist() == [n_labelled // n_classes] * n_classes
        )
        places = [split.unlabelled.tolist().index(row) for row in split.labelled]
        assert places == sorted(places), "the labelled rows keep the permuted order"
    assert same(split, make_split(labels, **numbers))  # type: ignore[arg-type]


@given(seeds, seeds)
@settings(max_examples=50, deadline=None)
def test_unlike_seeds_give_unlike_splits(a: int, b: int) -> None:
    hypothesis.assume(a != b)
    labels = np.tile(np.arange(10), 10)
    first, second = (make_split(labels, n_labelled=10, n_validation=20, n_classes=10, seed=seed) for seed in (a, b))
    assert not np.array_equal(first.unlabelled, second.unlabelled)
