"""When a race looks, whom it drops, and how rarely it drops the wrong one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ladder_search.reproduction import race
from ladder_search.reproduction.race import LEVEL, dropped, looks
from ladder_search.statistics import paired

SEEDS = range(1001, 1013)


def errors(**lists: list[float]) -> dict[str, dict[int, float]]:
    return {name: dict(zip(SEEDS, values, strict=False)) for name, values in lists.items()}


def test_looks_come_at_twice_the_seeds() -> None:
    assert looks(10) == (3, 6, 10) and looks(12) == (3, 6, 12) and looks(13) == (3, 6, 12, 13)
    assert looks(1) == (1,) and looks(3) == (3,)
    assert looks(20)[:3] == looks(40)[:3], "more seeds later change no look of before"


def test_who_is_clearly_worse_leaves_and_the_published_one_never_does() -> None:
    far = errors(published=[0.010, 0.012, 0.011], bad=[0.110, 0.1121, 0.1109], good=[0.0090, 0.0111, 0.0100])
    assert dropped(far, far, "published", 1, 2) == {"bad": "published"}
    swapped = errors(published=[0.110, 0.1121, 0.1109], good=[0.010, 0.012, 0.011])
    assert dropped(swapped, swapped, "published", 1, 1) == {}


def test_who_has_left_beats_nobody() -> None:
    far = errors(published=[0.110, 0.112, 0.111], left=[0.010, 0.0121, 0.0109], other=[0.1101, 0.1119, 0.1110])
    assert dropped(far, ["published", "other"], "published", 1, 2) == {}
    assert dropped(far, far, "published", 1, 2) == {"other": "left"}


def test_seeds_that_diverged_are_left_out_of_the_pairs() -> None:
    found = errors(published=[0.010, 0.012, 0.011], bad=[0.110, 0.1121, 0.1109])
    del found["bad"][1002], found["published"][1003]
    assert dropped(found, found, "published", 1, 1) == {}, "one pair is left"
    assert dropped({**found, "bad": {}}, found, "published", 1, 1) == {}


@pytest.mark.parametrize("images", [None, 500], ids=["continuous", "counts of 500 images"])
def test_a_contender_as_good_as_all_others_is_rarely_dropped(
    images: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three found and the published one, all equal, three looks: at most 1 % of the races drop anyone."""
    rng, races, seeds = np.random.default_rng(0), 700, 12
    names = ("published", "a", "b", "c")
    draws = rng.normal(0.04, 0.008, (races, 1, seeds))  # the label draw's part, common to all
    values = np.clip(draws + rng.normal(0, 0.006, (races, len(names), seeds)), 0, 1)
    if images:
        values = np.round(values * images) / images
    dropping = np.zeros(races, dtype=bool)
    for look, count in enumerate((3, 6, 12), start=1):
        seen = values[:, :, :count]
        differences = (seen[:, :, None] - seen[:, None, :]).reshape(-1, count)
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = differences.mean(1) / (differences.std(1, ddof=1) / count**0.5)
        # SciPy takes a third of a millisecond for each of 19,000 tests; the levels, at most 0.06 %, need few of them.
        close = {bytes(row) for row in differences[~(statistic < stats.t.isf(0.05, count - 1))]}

        def quick(a: list[float], b: list[float], *, close: set[bytes] = close, **kind: Any) -> float:
            return paired(a, b, **kind) if bytes(np.subtract(a, b)) in close else 1.0

        monkeypatch.setattr(race, "paired", quick)
        lists = [errors(**dict(zip(names, rows, strict=True))) for rows in seen.tolist()]
        dropping |= [bool(dropped(found, names, "published", look, 3)) for found in lists]
    # Twice the standard error of a rate of 1 % in 700 races is 0.75 %.
    assert dropping.mean() <= LEVEL + 0.0075


def test_a_contender_that_is_worse_by_three_deviations_leaves_early() -> None:
    rng, gone = np.random.default_rng(0), 0
    for _ in range(100):
        draw = rng.normal(0.04, 0.008, 6)
        found = errors(published=list(draw + rng.normal(0, 0.006, 6)), bad=list(draw + 0.03 + rng.normal(0, 0.006, 6)))
        gone += bool(dropped(found, found, "published", 2, 1))
    assert gone >= 80
