"""Learning speed of several configurations: accuracy after each epoch, areas, transfer scores and paired tests.

Source: Rusu et al. 2016, section 4 (the transfer score is the area under the learning curve divided by that of a column
trained from scratch). All comparisons pair equal seeds, which have equal label draws. For a study whose measure is not
its error the curves are those of the measure, in its own direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from ladder_search.config import as_mapping
from ladder_search.errors import CheckpointError
from ladder_search.final.results import FinalResult
from ladder_search.metrics import EPOCH, ERROR, TEST_ERROR, Measure
from ladder_search.statistics import holm, paired

MARKS = (1, 3, 10)
"""Epochs after which accuracies are reported, in addition to the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    name: str
    title: str
    curves: Mapping[int, tuple[float, ...]]
    """Seed -> test accuracy (a fraction) or measure after each of ``points``, without seeds that diverged."""
    diverged: tuple[int, ...] = ()
    measure: Measure = ERROR
    at: tuple[int, ...] | None = None
    """Epochs of the curves' points; None: all epochs, 1..E."""

    @classmethod
    def of(cls, name: str, title: str, result: FinalResult) -> Learning:
        """Return the curves of a final training; raise ``CheckpointError`` if an epoch has no test error."""
        for outcome in result.outcomes:
            if outcome.test_error is not None and any(TEST_ERROR not in row for row in outcome.epochs):
                raise CheckpointError(
                    f"a comparison needs a test error for every epoch and the kept training of {name} has them for "
                    "some only; choose another output folder."
                )
        return replace(cls._common(name, title, [result]), at=None)

    @classmethod
    def where_told(cls, name: str, title: str, results: Sequence[FinalResult]) -> Learning | None:
        """Return the curves at the epochs for which all seeds have a test error; None without any."""
        learning = cls._common(name, title, results)
        return learning if learning.at else None

    @classmethod
    def _common(cls, name: str, title: str, results: Sequence[FinalResult]) -> Learning:
        outcomes = [outcome for result in results for outcome in result.outcomes]
        measure = results[0].spec.measure
        errors = {
            outcome.seed: {int(row[EPOCH]): row[TEST_ERROR] for row in outcome.epochs if TEST_ERROR in row}
            for outcome in outcomes
            if outcome.test_error is not None
        }
        epochs = sorted(set.intersection(*map(set, errors.values()))) if errors else []
        return cls(
            name=name,
            title=title,
            curves={
                seed: tuple(1.0 - rows[epoch] if measure == ERROR else rows[epoch] for epoch in epochs)
                for seed, rows in errors.items()
            },
            diverged=tuple(outcome.seed for outcome in outcomes if outcome.test_error is None),
            measure=measure,
            at=tuple(epochs),
        )

    @property
    def rises(self) -> bool:
        """Whether higher curves are better: accuracies, and measures of which more is better."""
        return self.measure == ERROR or self.measure.rises

    @property
    def kind(self) -> str:
        """Quantity of the curves: "accuracy", or the measure's name."""
        return "accuracy" if self.measure == ERROR else self.measure.name

    @property
    def epochs(self) -> int:
        return min((len(curve) for curve in self.curves.values()), default=0)

    @property
    def points(self) -> tuple[int, ...]:
        """Epochs of the curves' points."""
        return tuple(range(1, self.epochs + 1)) if self.at is None else self.at

    def after(self, epoch: int) -> dict[int, float]:
        """Return seed -> value of the curve after ``epoch``, one of ``points``."""
        place = epoch - 1 if self.at is None else self.at.index(epoch)
        return {seed: curve[place] for seed, curve in self.curves.items()}

    @property
    def area(self) -> dict[int, float]:
        """Return seed -> area under the curve divided by the epochs, the mean value during learning."""
        return {seed: fmean(curve) for seed, curve in self.curves.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Comparison of two configurations on common seeds."""

    what: str
    """Either "area" or "epoch N"."""
    better: str
    worse: str
    """The configuration with the worse mean."""
    mean: float
    """Absolute mean difference."""
    sd: float
    n: int
    p_holm: float
    """p-value of the two-sided paired t-test, Holm-corrected over all pairs of configurations for this ``what``."""


def marks(all_: Sequence[Learning]) -> list[int]:
    """Return the epochs of reported accuracies: 1, 3, 10 and the last common one; empty without a curve."""
    last = min((one.epochs for one in all_ if one.curves), default=0)
    return sorted({*(mark for mark in MARKS if mark < last), last}) if last else []


def differences(all_: Sequence[Learning], what: str) -> list[Difference]:
    """Compare all pairs with two or more common seeds by ``area`` or ``epoch N``. Holm's correction includes the
    skipped pairs, so that the number of tests does not depend on divergence."""
    epoch = 0 if what == "area" else int(what.removeprefix("epoch "))
    values = {one.name: one.area if not epoch else one.after(epoch) for one in all_}
    rises = all(one.rises for one in all_)
    pairs = []
    for a, b in combinations(values, 2):
        common = sorted(values[a].keys() & values[b].keys())
        apart = [values[a][seed] - values[b][seed] for seed in common]
        if len(apart) < 2:
            continue
        first, second = (a, b) if (fmean(apart) >= 0) == rises else (b, a)
        p = paired([values[a][seed] for seed in common], [values[b][seed] for seed in common])
        pairs.append((first, second, abs(fmean(apart)), stdev(apart), len(apart), p))
    skipped = math.comb(len(values), 2) - len(pairs)
    corrected = holm([*(one[-1] for one in pairs), *[1.0] * skipped])
    return [
        Difference(what=what, better=first, worse=second, mean=mean, sd=sd, n=n, p_holm=p)
        for (first, second, mean, sd, n, _), p in zip(pairs, corrected, strict=False)
    ]


def transfer_scores(all_: Sequence[Learning], reference: str) -> dict[str, float]:
    """Return each configuration's mean area divided by the reference's, on common seeds."""
    base = next(one for one in all_ if one.name == reference).area
    scores = {}
    for one in all_:
        common = one.area.keys() & base.keys()
        if common:
            scores[one.name] = fmean(one.area[s] for s in common) / fmean(base[s] for s in common)
    return scores


def as_json(all_: Sequence[Learning], reference: str) -> dict[str, Any]:
    """Return curves and tests in plain types."""
    return {
        "reference": reference,
        "curves": {
            one.name: {
                "title": one.title,
                one.kind: {str(seed): list(curve) for seed, curve in one.curves.items()},
                "diverged": list(one.diverged),
            }
            for one in all_
        },
        "transfer": transfer_scores(all_, reference),
        "differences": [
            as_mapping(one)
            for what in ("area", *(f"epoch {mark}" for mark in marks(all_)))
            for one in differences(all_, what)
        ],
    }
