"""Ranking and summary of an ended search.

Errors are validation errors, which rank configurations but do not estimate the test errors of papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from ladder_search import wording
from ladder_search.metrics import Measure
from ladder_search.record.trial import TrialRecord, TrialState
from ladder_search.studies.study import Study, Target
from ladder_search.wording import BASELINE, PUBLISHED, finite

STATES: tuple[TrialState, ...] = get_args(TrialState)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSummary:
    """Results of a search; errors are validation errors in the unit of ``measure``."""

    measure: Measure
    counts: dict[TrialState, int]
    suggestion: TrialRecord | None
    """Best COMPLETE suggestion of the sampler, or None."""
    published: float | None
    """Error of the published configuration; None if it is not COMPLETE."""
    baseline: float | None
    """Error of the supervised baseline; None if it is not COMPLETE."""
    target: Target | None

    @property
    def best(self) -> float | None:
        """The lower error of the best suggestion and the published configuration."""
        suggested = self.suggestion.validation_error if self.suggestion else None
        return min((error for error in (suggested, self.published) if error is not None), default=None)

    @property
    def gap_points(self) -> float | None:
        """Baseline minus best in displayed units (percentage points for errors); positive if the study is better."""
        return None if self.baseline is None or self.best is None else self.measure.scale * (self.baseline - self.best)

    @property
    def gap_relative(self) -> float | None:
        """Relative reduction of the baseline's error: 0.5 halves it."""
        return (self.baseline - self.best) / self.baseline if self.baseline and self.best is not None else None


def rank(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return COMPLETE trials by validation error, then PRUNED ones (longest first), then FAIL; ties by number."""

    def place(record: TrialRecord) -> tuple[int, float, int]:
        if is_ranked(record):
            return 0, record.validation_error or 0.0, record.number
        # Errors after different numbers of epochs are not comparable, but the epochs are.
        return 1 + STATES.index(record.state), -wording.epochs_trained(record), record.number

    return sorted(records, key=place)


def summary(study: Study, records: Sequence[TrialRecord]) -> SearchSummary:
    ranked = [record for record in rank(records) if is_ranked(record)]
    errors: dict[str, float | None] = {}
    for record in ranked:
        errors.setdefault(record.name, record.validation_error)
    return SearchSummary(
        measure=study.measure,
        counts={state: sum(record.state == state for record in records) for state in STATES},
        suggestion=next((record for record in ranked if not record.is_reference), None),
        published=errors.get(PUBLISHED),
        baseline=errors.get(BASELINE),
        target=study.target,
    )


def is_ranked(record: TrialRecord) -> bool:
    """Whether the trial has an error that is comparable with others."""
    return record.state == "COMPLETE" and finite(record.validation_error)
