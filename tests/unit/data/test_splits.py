"""Label splits: the rule by hand, stability over processes and time, messages, files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.data.permutation import permutations
from ladder_search.data.splits import Split, make_split
from ladder_search.errors import SettingError

LABELS = np.tile(np.arange(10, dtype=np.uint8), 30)


def split(**changes: Any) -> Split:
    return make_split(LABELS, **{"n_labelled": 20, "n_validation": 50, "n_classes": 10, "seed": 1} | changes)


def test_the_rule_by_hand() -> None:
    found = split()
    order = permutations(300, seed=1, tag=0)[0].tolist()
    assert found.unlabelled.tolist() == order[:250]
    assert found.validation.tolist() == order[250:]
    expected, taken = [], dict.fromkeys(range(10), 0)
    for row in order[:250]:
        if taken[row % 10] < 2:
            expected.append(row)
            taken[row % 10] += 1
    assert found.labelled.tolist() == expected


def test_permutations_are_the_order_of_the_generators_raw_output() -> None:
    raw = np.random.PCG64(np.random.SeedSequence([7, 3, 5])).random_raw(3 * 20)
    seed = 7 + 3 * 2**32
    for number in range(3):
        keys = [int(key) for key in raw[20 * number : 20 * number + 20]]
        expected = sorted(range(20), key=keys.__getitem__)
        assert permutations(20, seed=seed, tag=5, first=number)[0].tolist() == expected


def test_permutations_stay_what_they_are() -> None:
    # Made with NumPy 2.4; any NumPy must give the same, or published splits change.
    assert permutations(10, seed=1, tag=0, count=2).tolist() == GOLDEN
    assert permutations(1, seed=1, tag=0).tolist() == [[0]]


GOLDEN = [[9, 2, 4, 7, 5, 0, 8, 6, 3, 1], [6, 8, 9, 4, 2, 7, 5, 1, 0, 3]]


def test_a_fresh_process_makes_the_same_split() -> None:
    code = (
        "import numpy as np; from ladder_search.data.splits import make_split; "
        "s = make_split(np.tile(np.arange(10), 30), n_labelled=20, n_validation=50, n_classes=10, seed=1); "
        "print(*s.labelled, *s.unlabelled, *s.validation)"
    )
    root = Path(__file__).parents[3]
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    here = split()
    assert printed.split() == [str(row) for row in [*here.labelled, *here.unlabelled, *here.validation]]


def test_unlike_seeds_give_unlike_splits() -> None:
    first, second = split(seed=1), split(seed=2)
    assert set(first.labelled) != set(second.labelled)
    assert set(first.validation) != set(second.validation)
    assert split(seed=2**32).unlabelled.tolist() != split(seed=0).unlabelled.tolist()


def test_fewer_labels_are_among_the_more_and_validation_does_not_change_them() -> None:
    assert set(split(n_labelled=10).labelled) < set(split(n_labelled=50).labelled)
    assert split(n_validation=0).labelled.tolist() == split(n_validation=50).labelled.tolist()


def test_all_labels() -> None:
    found = split(n_labelled=None, n_validation=0)
    assert found.labelled.tolist() == found.unlabelled.tolist()
    assert len(found.labelled) == 300 and len(found.validation) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_labelled": 25}, "data.labels must be a positive multiple of the 10 classes, got 25; choose 20"),
        ({"n_labelled": 0}, "got 0; choose 10"),
        ({"n_labelled": -10}, "got -10; choose 10"),
        ({"n_labelled": 300}, r"needs 30 labels of each class, and class \d has \d+ .* or null for all labels"),
        ({"n_validation": 300}, r"data.validation must lie in 0..299, .*, got 300; hold out fewer"),
        ({"n_validation": -1}, "got -1"),
        ({"seed": -1}, "a seed must be a whole number"),
        ({"seed": 2**64}, "a seed must be a whole number"),
    ],
)
def test_a_number_that_breaks_its_rule(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        split(**changes)
