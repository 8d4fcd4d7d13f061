"""Ranking and summary of an ended search.

Errors are validation errors, which rank configurations but do not estimate the test errors of papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from ladder_search import wording
from ladder_search.metrics import Measure
from ladder_search.record.trial import TrialRecord, TrialState, best_trials
from ladder_search.studies.study import Study, Target
from ladder_search.wording import BASELINE, OWN, finite

STATES: tuple[TrialState, ...] = get_args(TrialState)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSummary:
    """Results of a search; errors are validation values of ``measure``, whatever its direction."""

    measure: Measure
    counts: dict[TrialState, int]
    suggestion: TrialRecord | None
    """Best COMPLETE suggestion of the sampler, or None."""
    own: str
    """Word for the study's own configuration: "published" or "proposed"."""
    published: float | None
    """Error of the study's own configuration; None if it is not COMPLETE."""
    baseline: float | None
    """Error of the supervised baseline; None if it is not COMPLETE."""
    target: Target | None

    @property
    def best(self) -> float | None:
        """The better value of the best suggestion and the published configuration."""
        suggested = self.suggestion.validation_error if self.suggestion else None
        return self.measure.best((value for value in (suggested, self.published) if value is not None), float)

    @property
    def gap_points(self) -> float | None:
        """Gain of the best over the baseline in displayed units (percentage points for errors); positive if better."""
        if self.baseline is None or self.best is None:
            return None
        return self.measure.scale * self.measure.gain(self.best, self.baseline)

    @property
    def gap_relative(self) -> float | None:
        """Gain relative to the baseline: 0.5 halves an error."""
        if not self.baseline or self.best is None:
            return None
        return self.measure.gain(self.best, self.baseline) / abs(self.baseline)


def rank(records: Iterable[TrialRecord], measure: Measure) -> list[TrialRecord]:
    """Return COMPLETE trials as ``best_trials`` orders them, then PRUNED ones (longest first), then FAIL, ties in the
    order of the numbers."""
    every = list(records)
    best = best_trials([record for record in every if is_ranked(record)], measure)

    def place(record: TrialRecord) -> tuple[int, int, int]:
        # Errors after different numbers of epochs are not comparable, but the epochs are.
        return STATES.index(record.state), -wording.epochs_trained(record), record.number

    return [*best, *sorted((record for record in every if not is_ranked(record)), key=place)]


def summary(study: Study, records: Sequence[TrialRecord]) -> SearchSummary:
    ranked = [record for record in rank(records, study.measure) if is_ranked(record)]
    errors: dict[str, float | None] = {}
    for record in ranked:
        errors.setdefault(record.name, record.validation_error)
    return SearchSummary(
        measure=study.measure,
        counts={state: sum(record.state == state for record in records) for state in STATES},
        suggestion=next((record for record in ranked if not record.is_reference), None),
        own=study.own,
        published=next((errors[name] for name in OWN if name in errors), None),
        baseline=errors.get(BASELINE),
        target=study.target,
    )


def is_ranked(record: TrialRecord) -> bool:
    """Whether the trial has an error that is comparable with others."""
    return record.state == "COMPLETE" and finite(record.validation_error)
