"""A tested ordering: what each claim of an ordering comes to over seeds that all its studies were trained on.

Every claim is tested on the differences of two studies' measures, seed by seed: a seed is the same label draw for both,
and both are judged on the same test examples. All tests are t-tests of these differences.

* "below": one-sided, that the mean difference is above the margin. Held where p is below 5 %, contradicted where the
  opposite one-sided test, that it is below the margin, finds so.
* "as good as": two one-sided tests, that the mean difference is above -bound and below it; p is the larger one.
  Contradicted where it is outside; the smaller p of the two sides counts twice.

Holm's correction runs over all claims, once for what is held and once for what is contradicted: that any claim of a
table is called held though it is wrong has at most 5 %. Claims that cannot be tested yet count in it. The ordering
holds where all claims are held. How many seeds there are must not depend on what they gave: a table with more of them
is another look, for which nothing here corrects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ladder_search.config import as_mapping
from ladder_search.errors import CheckpointError
from ladder_search.export.results import FinalResult
from ladder_search.export.statistics import LEVEL, Summary, above, below, holm
from ladder_search.studies.orderings import Claim, Ordering

FORMAT = "ladder-search ordering 1"
FILE = "ordering.json"

Verdict = Literal["held", "not shown", "contradicted", "not tested"]
Whole = Literal["holds", "not shown", "contradicted", "not tested"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """What one study reached on every seed."""

    study: str
    values: Mapping[int, float]
    """Seed -> the ordering's measure on the test set."""
    diverged: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: str, results: Sequence[FinalResult], measure: str) -> Reached:
        """Read the measure of final trainings, each of other seeds.

        Raises:
            CheckpointError: a seed has no such score.
        """
        outcomes = [(outcome, result.spec.measure.name) for result in results for outcome in result.outcomes]
        values = {}
        for outcome, first in outcomes:
            if outcome.test_error is None:
                continue
            scores = {first: outcome.test_error, **outcome.test_scores}
            if measure not in scores:
                raise CheckpointError(
                    f"the ordering needs the {measure} of {study} on the test set and the training of seed "
                    f"{outcome.seed} has only {', '.join(scores)}; train it again."
                )
            values[outcome.seed] = scores[measure]
        return cls(
            study=study,
            values=values,
            diverged=tuple(outcome.seed for outcome, _ in outcomes if outcome.test_error is None),
            devices=tuple(dict.fromkeys(result.device for result in results)),
        )

    @property
    def seeds(self) -> frozenset[int]:
        """All that it was trained on."""
        return frozenset((*self.values, *self.diverged))

    @property
    def summary(self) -> Summary | None:
        """Of the seeds that finished; None where none did."""
        return Summary.of([*self.values.values()]) if self.values else None

    def on(self, seeds: frozenset[int]) -> Reached:
        """What it reached on ``seeds``."""
        return Reached(
            study=self.study,
            values={seed: self.values[seed] for seed in sorted(self.values.keys() & seeds)},
            diverged=tuple(seed for seed in self.diverged if seed in seeds),
            devices=self.devices,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedClaim:
    """What one claim came to."""

    number: int
    """From 1, in the ordering's table."""
    kind: Literal["below", "alike"]
    first: str
    second: str
    text: str
    bound: float
    """Margin of "below", bound of "alike"."""
    seeds: tuple[int, ...]
    """On which both studies finished."""
    left_out: tuple[int, ...]
    """On which one of them diverged."""
    difference: float | None
    """Mean over the seeds, second minus first; None where a study or all pairs are missing."""
    deviation: float | None
    interval: tuple[float, float] | None
    """Student's, 95 %, of the mean difference."""
    p: float | None
    """That the claim is held; None where there are fewer than 2 pairs."""
    p_holm: float | None
    p_against_holm: float | None
    """That it is contradicted, corrected."""
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedOrdering:
    """An ordering and what it came to."""

    ordering: Ordering
    epochs: int | None
    """Length of every schedule where it was cut; None: the studies' own."""
    seeds: tuple[int, ...]
    """That all studies have in common."""
    reached: tuple[Reached, ...]
    """On these seeds, in the ordering's order; studies without a result are left out."""
    claims: tuple[JudgedClaim, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Studies without a result."""
        there = {one.study for one in self.reached}
        return tuple(name for name in self.ordering.studies if name not in there)

    @property
    def verdict(self) -> Whole:
        """Of the whole ordering."""
        found = {claim.verdict for claim in self.claims}
        for worst in ("contradicted", "not tested", "not shown"):
            if worst in found:
                return worst
        return "holds"

    def as_json(self) -> dict[str, Any]:
        """Everything in plain values."""
        ordering = self.ordering
        return {
            "format": FORMAT,
            "ordering": ordering.name,
            "title": ordering.title,
            "source": ordering.source,
            "measure": ordering.measure,
            "level": LEVEL,
            "reduced_to_epochs": self.epochs,
            "verdict": self.verdict,
            "seeds": list(self.seeds),
            "missing": list(self.missing),
            "studies": {one.study: _plain(one) for one in self.reached},
            "claims": [as_mapping(claim) for claim in self.claims],
        }


def judged(ordering: Ordering, found: Sequence[Reached], *, epochs: int | None = None) -> JudgedOrdering:
    """Test the claims of ``ordering`` on the seeds that all of ``found`` were trained on.

    Args:
        found: of the ordering's studies, at least one; claims about others are not tested.
        epochs: length of every schedule where it was cut.
    """
    common = frozenset[int].intersection(*(one.seeds for one in found))
    by_name = {one.study: one.on(common) for one in found}
    raw = [_differences(claim.pair, by_name) for claim in ordering.claims]
    held = [_p(claim, differences) for claim, differences in zip(ordering.claims, raw, strict=True)]
    against = [_p_against(claim, differences) for claim, differences in zip(ordering.claims, raw, strict=True)]
    held_holm, against_holm = holm(held), holm(against)
    claims = []
    for place, claim in enumerate(ordering.claims):
        differences = raw[place]
        own = Summary.of([*differences.values()]) if differences else None
        there = own is not None and own.n > 1
        verdict: Verdict = "not tested"
        if there:
            verdict = "held" if held_holm[place] < LEVEL else "not shown"
            verdict = "contradicted" if against_holm[place] < LEVEL else verdict
        pair = [by_name[name] for name in claim.pair if name in by_name]
        claims.append(
            JudgedClaim(
                number=place + 1,
                kind="below" if isinstance(claim, Claim) else "alike",
                first=claim.pair[0],
                second=claim.pair[1],
                text=claim.text,
                bound=_bound(claim),
                seeds=tuple(differences),
                left_out=tuple(sorted({seed for one in pair for seed in one.diverged})),
                difference=own.mean if own else None,
                deviation=own.deviation if own and there else None,
                interval=own.interval() if own and there else None,
                p=held[place] if there else None,
                p_holm=held_holm[place] if there else None,
                p_against_holm=against_holm[place] if there else None,
                verdict=verdict,
            )
        )
    return JudgedOrdering(
        ordering=ordering,
        epochs=epochs,
        seeds=tuple(sorted(common)),
        reached=tuple(by_name[name] for name in ordering.studies if name in by_name),
        claims=tuple(claims),
    )


def _differences(pair: tuple[str, str], found: Mapping[str, Reached]) -> dict[int, float]:
    if not all(name in found for name in pair):
        return {}
    first, second = (found[name].values for name in pair)
    return {seed: second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())}


def _bound(claim: Any) -> float:
    return float(claim.margin if isinstance(claim, Claim) else claim.within)


def _p(claim: Any, differences: Mapping[int, float]) -> float:
    given, bound = [*differences.values()], _bound(claim)
    if isinstance(claim, Claim):
        return above(given, bound)
    return max(above(given, -bound), below(given, bound))


def _p_against(claim: Any, differences: Mapping[int, float]) -> float:
    given, bound = [*differences.values()], _bound(claim)
    if isinstance(claim, Claim):
        return below(given, bound)
    return min(1.0, 2 * min(above(given, bound), below(given, -bound)))


def _plain(one: Reached) -> dict[str, Any]:
    summary = one.summary
    return {
        "values": {str(seed): value for seed, value in one.values.items()},
        "diverged": list(one.diverged),
        "devices": list(one.devices),
        "mean": summary.mean if summary else None,
        "sd": summary.deviation if summary and summary.n > 1 else None,
        "n": summary.n if summary else 0,
    }
