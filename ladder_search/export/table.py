"""The table of one or several reproductions: every contender a row, beside the published number.

Holm's correction runs over the rows of the table, once for the comparisons with the published numbers and once for
those of found with published configurations. A table with other rows has other corrections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ladder_search.config import as_mapping
from ladder_search.export.contenders import Contender
from ladder_search.export.reproduction import Reproduction
from ladder_search.export.statistics import LEVEL, AgainstTarget, Summary, Verdict, holm, paired
from ladder_search.record import PUBLISHED
from ladder_search.studies import Target, find_study

Comparison = Literal["better", "worse", "no difference shown", "too few seeds", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One contender. Errors are what ``measure`` says; those of classifications are fractions."""

    study: str
    measure: str
    """Row of ``metrics.MEASURES``."""
    reduced: bool
    """Trained for fewer epochs than published: no verdict on the published number."""
    epochs: int
    name: str
    """``published``, or the key of the search's trial."""
    search: str | None
    target: Target | None
    seeds: int
    """Asked for."""
    errors: tuple[float, ...]
    """Of the seeds that finished."""
    diverged: tuple[int, ...]
    mean: float | None
    deviation: float | None
    interval: tuple[float, float] | None
    """Student's, 95 %."""
    difference: float | None
    """Mean difference to the published configuration over the common seeds; below 0 it is better."""
    p_difference: float | None
    """Of the paired test, corrected."""
    comparison: Comparison | None
    """With the published configuration; None in its own row."""
    p_target: float | None
    """Of Welch's test against the published number, corrected."""
    verdict: Verdict | Literal["no target", "reduced schedule", "dropped"]
    seeds_needed: int | None
    """For a verdict, if mean and spread stayed; None: more than 200, or there is one."""
    dropped: str

    @property
    def n(self) -> int:
        return len(self.errors)

    @property
    def verdict_text(self) -> str:
        """The verdict, and whether what it is held against could be confirmed."""
        unverified = self.target is not None and not self.target.verified
        judged = self.verdict in ("reproduced", "better", "worse")
        return f"{self.verdict} (unverified target)" if judged and unverified else self.verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tested:
    reproduction: Reproduction
    contender: Contender
    against: AgainstTarget | None
    difference: float | None
    p: float | None


def table(reproductions: Iterable[Reproduction]) -> list[Row]:
    """Return the rows, in the order given: each study's published configuration and what was found."""
    tested = [_test(reproduction, c) for reproduction in reproductions for c in reproduction.contenders]
    by_target = iter(holm([t.against.p for t in tested if t.against]))
    by_pairs = iter(holm([t.p for t in tested if t.p is not None]))
    return [_row(t, next(by_target) if t.against else None, None if t.p is None else next(by_pairs)) for t in tested]


def table_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table as plain data."""
    return {
        "format": "ladder-search reproduction 1",
        "level": LEVEL,
        "rows": [{"n": r.n, **as_mapping(r)} for r in rows],
    }


def _test(reproduction: Reproduction, contender: Contender) -> _Tested:
    target, own = find_study(reproduction.study).target, _summary(contender)
    judged = own is not None and target is not None and not reproduction.reduced and not contender.dropped
    difference = p = None
    if contender.name != PUBLISHED:
        published = reproduction.contenders[0].errors
        common = sorted(contender.errors.keys() & published.keys())
        if common:
            pairs = [[errors[seed] for seed in common] for errors in (contender.errors, published)]
            difference, p = Summary.of(pairs[0]).mean - Summary.of(pairs[1]).mean, paired(*pairs)
    return _Tested(
        reproduction=reproduction,
        contender=contender,
        against=AgainstTarget.of(own, target) if judged and own and target else None,
        difference=difference,
        p=p,
    )


def _row(tested: _Tested, p_target: float | None, p_difference: float | None) -> Row:
    reproduction, contender = tested.reproduction, tested.contender
    study, own = find_study(reproduction.study), _summary(contender)
    target = study.target
    verdict: Any = "not enough seeds"
    needed = None
    if contender.dropped:
        verdict = "dropped"
    elif target is None:
        verdict = "no target"
    elif reproduction.reduced:
        verdict = "reduced schedule"
    elif tested.against:
        verdict = tested.against.verdict(p_target, reproduction.level)
        needed = tested.against.seeds_needed(reproduction.level) if verdict == "not enough seeds" else None
    return Row(
        study=study.name,
        measure=study.measure.name,
        reduced=reproduction.reduced,
        epochs=reproduction.epochs,
        name=contender.name,
        search=contender.search,
        target=target,
        seeds=len(reproduction.seeds),
        errors=tuple(contender.errors.values()),
        diverged=contender.diverged,
        mean=own.mean if own else None,
        deviation=own.deviation if own and own.n > 1 else None,
        interval=own.interval() if own else None,
        difference=tested.difference,
        p_difference=p_difference,
        comparison=_comparison(tested, p_difference),
        p_target=p_target,
        verdict=verdict,
        seeds_needed=needed,
        dropped=contender.dropped,
    )


def _comparison(tested: _Tested, p: float | None) -> Comparison | None:
    if tested.contender.name == PUBLISHED:
        return None
    if tested.contender.dropped:
        return "dropped"
    if p is None or tested.difference is None or len(tested.contender.errors) < 2:
        return "too few seeds"
    if p >= tested.reproduction.level:
        return "no difference shown"
    return "better" if tested.difference < 0 else "worse"


def _summary(contender: Contender) -> Summary | None:
    errors = list(contender.errors.values())
    return Summary.of(errors) if errors else None
