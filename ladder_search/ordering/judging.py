"""Tests of an ordering: the verdict on each claim over the seeds that all its studies share.

All tests are t-tests of the differences between two studies, seed by seed; a seed gives both the same label draw.

A difference is by how much the first study is better: second minus first, or first minus second if the measure rises.

* "below" (better): one-sided test that the mean difference is above the margin. The claim is held if p is below the
  level, and contradicted if the opposite one-sided test is significant.
* "as good as": two one-sided tests, that the mean difference is above -bound and below it; p is the larger one. The
  claim is contradicted if the difference is outside; the smaller p of the two sides counts twice.

Holm's correction runs over all claims, including untestable ones, separately for held and for contradicted. A table
with more seeds or studies is one more look at growing data, with its own level (``statistics.look_level``): over all
tables of an ordering, a false "held" has probability at most 5 %, and so has a false "contradicted". ``ordering.json``
records the seeds and studies of each table, so that the same table is always tested at the same level.

Files of format 1 are read and converted to format 2. All their tables were tested at 5 %; later tables mention this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ladder_search.config import as_mapping, build
from ladder_search.disk.documents import read_document, refused
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.final.results import FinalResult
from ladder_search.metrics import Measure
from ladder_search.ordering.claims import Claim, Ordering
from ladder_search.statistics import Summary, above, below, holm, look_level

FORMAT = "ladder-search ordering 2"
_FORMAT_1 = "ladder-search ordering 1"
FILE = "ordering.json"

Verdict = Literal["held", "not shown", "contradicted", "not tested"]
Whole = Literal["holds", "not shown", "contradicted", "not tested"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """Results of one study on every seed."""

    study: str
    values: Mapping[int, float]
    """Seed -> the ordering's measure on the test set."""
    diverged: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: str, results: Sequence[FinalResult], measure: str) -> Reached:
        """Collect the measure of final trainings with distinct seeds; raise ``CheckpointError`` if one is missing."""
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
        """All seeds that the study was trained on."""
        return frozenset((*self.values, *self.diverged))

    @property
    def summary(self) -> Summary | None:
        """Summary of the seeds that finished; None without any."""
        return Summary.of([*self.values.values()]) if self.values else None

    def on(self, seeds: frozenset[int]) -> Reached:
        values = {seed: self.values[seed] for seed in sorted(self.values.keys() & seeds)}
        return replace(self, values=values, diverged=tuple(seed for seed in self.diverged if seed in seeds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Studies and seeds of one table of an ordering."""

    seeds: tuple[int, ...]
    studies: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """All testable tables of an ordering, in chronological order."""

    looks: tuple[Look, ...] = ()
    overspent: int = 0
    """Number of tables tested by an earlier version, at 5 % each."""

    def number(self, look: Look) -> int:
        """Return the number of a table, from 1; a new table gets the next number."""
        return self.looks.index(look) + 1 if look in self.looks else len(self.looks) + 1

    def with_look(self, look: Look) -> Looks:
        """Add a new table with two or more seeds."""
        return self if look in self.looks or len(look.seeds) < 2 else replace(self, looks=(*self.looks, look))


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedClaim(Claim):
    number: int
    """Number in the ordering's table, from 1."""
    seeds: tuple[int, ...]
    """Seeds on which both studies finished."""
    left_out: tuple[int, ...]
    """Seeds on which one of them diverged."""
    difference: float | None
    """Mean over the seeds; None without pairs."""
    deviation: float | None
    interval: tuple[float, float] | None
    """Student's 95 % interval of the mean difference."""
    p: float | None
    """p-value of the claim being held; None for fewer than 2 pairs."""
    p_holm: float | None
    p_against_holm: float | None
    """p-value of the claim being contradicted, corrected."""
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedOrdering:
    ordering: Ordering
    epochs: int | None
    """Length of every shortened schedule; None: the studies' own."""
    seeds: tuple[int, ...]
    """Seeds that all studies have in common."""
    reached: tuple[Reached, ...]
    """Results on these seeds, in the ordering's order, without studies that have no result."""
    claims: tuple[JudgedClaim, ...]
    looks: Looks
    """All tables of the ordering, including this one if it is testable."""

    @property
    def number(self) -> int:
        return self.looks.number(Look(seeds=self.seeds, studies=tuple(one.study for one in self.reached)))

    @property
    def level(self) -> float:
        """Level of every test, after Holm's correction."""
        return look_level(self.number)

    @property
    def headline(self) -> str:
        """One-line summary of the tables."""
        cut = "" if self.epochs is None else f", schedules reduced to {self.epochs} epochs"
        seeds = f"{len(self.seeds)} seed{'' if len(self.seeds) == 1 else 's'}"
        return f"{self.ordering.name}{cut}: test {self.ordering.unit.title} over {seeds}"

    @property
    def sides(self) -> str:
        """What a difference is, which is positive if the first study is better."""
        return "first minus second" if self.ordering.unit.rises else "second minus first"

    def relation(self, claim: JudgedClaim) -> str:
        """Return the claim in short: ``rladder < lstm − 0.200 nats``."""
        short, measure = self.ordering.short, self.ordering.unit
        first, second = short[claim.first], short[claim.second]
        if claim.kind == "alike":
            return f"{first} ~ {second} ± {measure.apart(claim.bound)}"
        sign, margin = (">", "+") if measure.rises else ("<", "−")
        return f"{first} {sign} {second}{f' {margin} {measure.apart(claim.bound)}' if claim.bound else ''}"

    @property
    def missing(self) -> tuple[str, ...]:
        present = {one.study for one in self.reached}
        return tuple(name for name in self.ordering.studies if name not in present)

    @property
    def verdict(self) -> Whole:
        verdicts = {claim.verdict for claim in self.claims}
        for worst in ("contradicted", "not tested", "not shown"):
            if worst in verdicts:
                return worst
        return "holds"

    @property
    def values(self) -> dict[str, float | None]:
        """Metric -> value, for the tracking store."""
        values = {f"mean/{one.study}": one.summary.mean if one.summary else None for one in self.reached}
        for claim in self.claims:
            pair = f"{claim.first}/{claim.second}"
            values |= {f"difference/{pair}": claim.difference, f"p_holm/{pair}": claim.p_holm}
        return {**values, "claims_held": sum(claim.verdict == "held" for claim in self.claims)}

    @property
    def digest(self) -> str:
        """Digest of the claims, the seeds and the results on them."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return all values in plain types."""
        ordering = self.ordering
        return {
            "format": FORMAT,
            "ordering": ordering.name,
            "title": ordering.title,
            "source": ordering.source,
            "measure": ordering.measure,
            "table": self.number,
            "level": self.level,
            "looks": [as_mapping(look) for look in self.looks.looks],
            "overspent_looks": self.looks.overspent,
            "reduced_to_epochs": self.epochs,
            "verdict": self.verdict,
            "seeds": list(self.seeds),
            "missing": list(self.missing),
            "studies": {one.study: _plain(one) for one in self.reached},
            "claims": [as_mapping(claim) for claim in self.claims],
        }


def judged(
    ordering: Ordering, found: Sequence[Reached], *, epochs: int | None = None, earlier: Looks | None = None
) -> JudgedOrdering:
    """Test the claims of ``ordering`` on the seeds that all studies in ``found`` share; claims about others are not
    tested.

    ``epochs`` is the length of every shortened schedule, and ``earlier`` contains the earlier tables.
    """
    common = frozenset[int].intersection(*(one.seeds for one in found))
    by_name = {one.study: one.on(common) for one in found}
    present = tuple(name for name in ordering.studies if name in by_name)
    look = Look(seeds=tuple(sorted(common)), studies=present)
    looks = (earlier or Looks()).with_look(look)
    level = look_level(looks.number(look))
    raw = [_differences(claim, by_name, ordering.unit) for claim in ordering.claims]
    p_held = [_p(claim, differences) for claim, differences in zip(ordering.claims, raw, strict=True)]
    against = [_p_against(claim, differences) for claim, differences in zip(ordering.claims, raw, strict=True)]
    held_holm, against_holm = holm(p_held), holm(against)
    claims = []
    for place, claim in enumerate(ordering.claims):
        differences = raw[place]
        summary = Summary.of([*differences.values()]) if differences else None
        testable = summary is not None and summary.n > 1
        verdict: Verdict = "not tested"
        if testable:
            verdict = "held" if held_holm[place] < level else "not shown"
            verdict = "contradicted" if against_holm[place] < level else verdict
        pair = [by_name[name] for name in (claim.first, claim.second) if name in by_name]
        claims.append(
            JudgedClaim(
                **as_mapping(claim),
                number=place + 1,
                seeds=tuple(differences),
                left_out=tuple(sorted({seed for one in pair for seed in one.diverged})),
                difference=summary.mean if summary else None,
                deviation=summary.deviation if summary and testable else None,
                interval=summary.interval() if summary and testable else None,
                p=p_held[place] if testable else None,
                p_holm=held_holm[place] if testable else None,
                p_against_holm=against_holm[place] if testable else None,
                verdict=verdict,
            )
        )
    return JudgedOrdering(
        ordering=ordering,
        epochs=epochs,
        seeds=look.seeds,
        reached=tuple(by_name[name] for name in present),
        claims=tuple(claims),
        looks=looks,
    )


def read_looks(folder: Path, ordering: Ordering, epochs: int | None) -> Looks:
    """Return the earlier tables of ``ordering`` in ``folder``.

    Raises:
        CheckpointError: the file is damaged.
        StudyFolderError: the folder belongs to another ordering or to schedules of another length.
    """
    path = folder / FILE
    if not path.exists():
        return Looks()
    remedy = "choose another -o, or delete the file, and with it the count of its tables"
    with refused(path, "be the table of an ordering", remedy):
        raw = read_document(path, FORMAT, _FORMAT_1)
        pair = (raw["ordering"], raw["reduced_to_epochs"])
        if raw["format"] == FORMAT:
            looks = build(Looks, {"looks": raw["looks"], "overspent": raw["overspent_looks"]})
        else:
            look = build(Look, {"seeds": raw["seeds"], "studies": list(raw["studies"])})
            looks = replace(Looks().with_look(look), overspent=1 if len(look.seeds) > 1 else 0)
    if pair != (ordering.name, epochs):
        raise StudyFolderError(
            f"an ordering needs a folder of its own and {folder} has {pair[0]} with {_length(pair[1])}, not "
            f"{ordering.name} with {_length(epochs)}; choose another -o."
        )
    return looks


def _length(epochs: int | None) -> str:
    return "full schedules" if epochs is None else f"schedules of {epochs} epochs"


def _differences(claim: Claim, found: Mapping[str, Reached], measure: Measure) -> dict[int, float]:
    if not {claim.first, claim.second} <= found.keys():
        return {}
    first, second = found[claim.first].values, found[claim.second].values
    return {seed: measure.gain(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}


def _p(claim: Claim, differences: Mapping[int, float]) -> float:
    values, bound = [*differences.values()], claim.bound
    if claim.kind == "below":
        return above(values, bound)
    return max(above(values, -bound), below(values, bound))


def _p_against(claim: Claim, differences: Mapping[int, float]) -> float:
    values, bound = [*differences.values()], claim.bound
    if claim.kind == "below":
        return below(values, bound)
    return min(1.0, 2 * min(above(values, bound), below(values, -bound)))


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
