"""The table of one or several reproductions: a row per contender, compared with the published number.

Each study has its own table, with one level (that of its look) and one Holm correction for each of two questions:

* Is there a difference? Every contender against the published number, and every found one against the re-run.
* Is the published number reproduced? Every contender against the margin on its worse side.

A test that is not possible counts with p = 1, so that the number of tests does not depend on the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ladder_search.config import as_mapping
from ladder_search.metrics import Measure
from ladder_search.record.trial import OWN
from ladder_search.reproduction.contenders import Contender
from ladder_search.reproduction.reproduction import Reproduction
from ladder_search.statistics import AgainstTarget, Summary, Verdict, holm, look_level, paired
from ladder_search.studies import Target

FORMAT = "ladder-search reproduction 2"

Comparison = Literal["better", "worse", "no difference shown", "too few seeds", "dropped", "no verdict"]
RowVerdict = Verdict | Literal["no target", "reduced schedule", "dropped", "no verdict"]

NOT_COUNTED = "these runs are in no table yet; reproducing the study again counts one and judges them"
"""Reason for which runs of a killed call have no verdict."""

_MOST_SEEDS = 200  # the most that are recommended


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One contender; errors are values of ``measure`` (fractions for classification)."""

    study: str
    measure: str
    """Row of ``metrics.MEASURES``."""
    reduced: bool
    """Whether it was trained for fewer epochs than published, which precludes a verdict on the published number."""
    epochs: int
    precision: str
    """Precision of the products in training; "": that of each configuration."""
    name: str
    """``published`` or ``proposed``, or the key of the search's trial."""
    search: str | None
    target: Target | None
    seeds: int
    """Number of requested seeds."""
    errors: tuple[float, ...]
    """Errors of the seeds that finished."""
    diverged: tuple[int, ...]
    mean: float | None
    deviation: float | None
    interval: tuple[float, float] | None
    difference: float | None
    """Mean difference to the published configuration over the common seeds; negative is better, or positive if the
    measure rises."""
    p_difference: float | None
    """p-value of the two-sided paired test, corrected."""
    comparison: Comparison | None
    """Comparison with the published configuration; None in its own row."""
    p_target: float | None
    """p-value of Welch's two-sided test against the published number, corrected."""
    p_margin: float | None
    """p-value of Welch's one-sided test against the margin on the worse side of the published number, corrected."""
    verdict: RowVerdict
    withheld: str
    """Reason for "no verdict"."""
    seeds_needed: int | None
    """Seeds needed for a verdict in the next table at equal mean and spread; None: above 200, or not needed."""
    dropped: str
    table: int | None
    """Number of the study's table with these runs; None if they are not counted, and not tested."""
    level: float | None
    """Level of all tests of the study's table."""
    difference_tests: int
    """Number of tests of a difference in Holm's correction."""
    margin_tests: int
    """Number of tests against the margin in Holm's correction."""

    @property
    def n(self) -> int:
        return len(self.errors)

    @property
    def verdict_text(self) -> str:
        """Return the verdict, with a note if the published number is unverified."""
        unverified = self.target is not None and not self.target.verified
        judged = self.verdict in ("reproduced", "better", "worse")
        return f"{self.verdict} (unverified target)" if judged and unverified else self.verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tested:
    """One contender and its tests."""

    contender: Contender
    against: AgainstTarget | None
    p_target: float | None
    """None if the table has no such test."""
    p_margin: float | None
    difference: float | None
    p_difference: float | None
    pairs: int
    """Number of seeds that finished both here and in the re-run."""


def table(reproductions: Iterable[Reproduction]) -> list[Row]:
    """Return the rows in order: each study's published configuration, then the found ones."""
    return [row for reproduction in reproductions for row in _rows(reproduction)]


def table_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table in plain types; every row has the level of its study's table."""
    return {"format": FORMAT, "rows": [{"n": r.n, **as_mapping(r)} for r in rows]}


def _rows(reproduction: Reproduction) -> list[Row]:
    tests = [_test(reproduction, contender) for contender in reproduction.contenders]
    return [_row(reproduction, tests, place) for place in range(len(tests))]


def _corrected(tests: Sequence[_Tested]) -> list[_Tested]:
    """Return the tests of a study's table with Holm-corrected p-values."""
    differences = _holm([t.p_target for t in tests] + [t.p_difference for t in tests])
    margins = _holm([t.p_margin for t in tests])
    return [
        replace(tested, p_target=p_target, p_margin=p_margin, p_difference=p_difference)
        for tested, p_target, p_margin, p_difference in zip(
            tests, differences[: len(tests)], margins, differences[len(tests) :], strict=True
        )
    ]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    corrected = iter(holm(p for p in p_values if p is not None))
    return [None if p is None else next(corrected) for p in p_values]


def _test(reproduction: Reproduction, contender: Contender) -> _Tested:
    target, summary = reproduction.of.target, _summary(contender)
    testable = target is not None and not target.withheld and not reproduction.reduced
    against = AgainstTarget.of(summary, target) if testable and summary and target and not contender.dropped else None
    p_target, p_margin = (against.p, against.p_margin) if against else ((1.0, 1.0) if testable else (None, None))
    difference = p_difference = None
    published = reproduction.contenders[0].errors
    common = sorted(contender.errors.keys() & published.keys())
    if contender.name not in OWN:
        pairs = [[errors[seed] for seed in common] for errors in (contender.errors, published)]
        p_difference = 1.0 if contender.dropped else paired(*pairs)
        difference = Summary.of(pairs[0]).mean - Summary.of(pairs[1]).mean if common else None
    return _Tested(
        contender=contender,
        against=against,
        p_target=p_target,
        p_margin=p_margin,
        difference=difference,
        p_difference=p_difference,
        pairs=len(common),
    )


def _row(reproduction: Reproduction, tests: Sequence[_Tested], place: int) -> Row:
    corrected, number = _corrected(tests), reproduction.table_number
    tested, level = corrected[place], None if number is None else look_level(number)
    contender, comparable = tested.contender, tested.against is not None
    study, summary = reproduction.of, _summary(contender)
    verdict, withheld = _verdict(reproduction, tested, level)
    needed = _seeds_needed(reproduction, tests, place) if comparable and verdict == "not enough seeds" else None
    p_difference = tested.p_difference if tested.difference is not None and not contender.dropped else None
    return Row(
        study=study.name,
        measure=study.measure.name,
        reduced=reproduction.reduced,
        epochs=reproduction.epochs,
        precision=reproduction.precision,
        name=contender.name,
        search=contender.search,
        target=study.target,
        seeds=len(reproduction.seeds),
        errors=tuple(contender.errors.values()),
        diverged=contender.diverged,
        mean=summary.mean if summary else None,
        deviation=summary.deviation if summary and summary.n > 1 else None,
        interval=summary.interval() if summary else None,
        difference=tested.difference,
        p_difference=p_difference,
        comparison=_comparison(tested, study.measure, level),
        p_target=tested.p_target if comparable else None,
        p_margin=tested.p_margin if comparable else None,
        verdict=verdict,
        withheld=withheld,
        seeds_needed=needed,
        dropped=contender.dropped,
        table=number,
        level=level,
        difference_tests=sum(p is not None for one in tests for p in (one.p_target, one.p_difference)),
        margin_tests=sum(one.p_margin is not None for one in tests),
    )


def _verdict(reproduction: Reproduction, tested: _Tested, level: float | None) -> tuple[RowVerdict, str]:
    """Return the verdict on the published number, and the reason for having none."""
    target = reproduction.of.target
    if tested.contender.dropped:
        return "dropped", ""
    if target is None:
        return "no target", ""
    if reproduction.reduced:
        return "reduced schedule", ""
    if target.withheld:
        return "no verdict", target.withheld
    if level is None:
        return "no verdict", NOT_COUNTED
    if tested.against is None or tested.p_target is None or tested.p_margin is None:
        return "not enough seeds", ""
    return tested.against.verdict(p=tested.p_target, p_margin=tested.p_margin, level=level), ""


def _seeds_needed(reproduction: Reproduction, tests: Sequence[_Tested], place: int) -> int | None:
    """Return the number of seeds for which the next table has a verdict if means and spreads stay the same."""
    tested, level = tests[place], reproduction.next_level
    assert tested.against is not None
    seeds = range(tested.against.own.n + 1, _MOST_SEEDS + 1)
    for n, (p, p_margin) in zip(seeds, tested.against.p_values(seeds), strict=True):
        if min(p, p_margin) < level:  # a correction only increases p
            more = [*tests[:place], replace(tested, p_target=p, p_margin=p_margin), *tests[place + 1 :]]
            if _verdict(reproduction, _corrected(more)[place], level)[0] != "not enough seeds":
                return n
    return None


def _comparison(tested: _Tested, measure: Measure, level: float | None) -> Comparison | None:
    if tested.contender.name in OWN:
        return None
    if tested.contender.dropped:
        return "dropped"
    if tested.p_difference is None or tested.difference is None or tested.pairs < 2:
        return "too few seeds"
    if level is None:
        return "no verdict"
    if tested.p_difference >= level:
        return "no difference shown"
    return "better" if measure.loss(tested.difference) < 0 else "worse"


def _summary(contender: Contender) -> Summary | None:
    errors = list(contender.errors.values())
    return Summary.of(errors) if errors else None
