"""How far the values of a search can be trusted: intervals, and the test of its winner against the study's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ladder_search.metrics import ERROR, Measure
from ladder_search.record.trial import TrialRecord
from ladder_search.statistics import LEVEL, Summary, paired
from ladder_search.wording import finite


def interval(record: TrialRecord, measure: Measure) -> tuple[float, float] | None:
    """Return the 95 % interval of a trial's value; None if it is unknown.

    Over several label draws it is Student's. On one draw it is Wilson's for the number of wrong validation rows, which
    says nothing of other draws.
    """
    errors = record.draw_errors
    if len(errors) > 1:
        return Summary.of([errors[draw] for draw in sorted(errors)]).interval()
    rows = record.settings.get("data", {}).get("validation")
    value = record.validation_error
    if measure != ERROR or record.draws > 1 or type(rows) is not int or rows < 1 or not finite(value):
        return None
    from scipy.stats import binomtest

    found = binomtest(round(value * rows), rows).proportion_ci(1 - LEVEL, method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The winner against the study's own settings, on the label draws that both were trained on."""

    draws: int
    gain: float
    """Mean gain over the draws; positive if the winner is better."""
    interval: tuple[float, float]
    """Of the gain, at the level divided by the number of suggestions."""
    p: float
    """p-value of the two-sided paired t-test, multiplied by the number of suggestions (Bonferroni): the winner was
    picked as the best of them."""


def compare(winner: TrialRecord, own: TrialRecord, suggestions: int, measure: Measure) -> Comparison | None:
    """Return the comparison; None with fewer than two common draws."""
    draws = sorted(winner.draw_errors.keys() & own.draw_errors.keys())
    if len(draws) < 2:
        return None
    losses = [[measure.loss(record.draw_errors[draw]) for draw in draws] for record in (own, winner)]
    gains = Summary.of([before - after for before, after in zip(*losses, strict=True)])
    level = LEVEL / max(1, suggestions)
    low_high = gains.interval(level)
    assert low_high is not None, "there are two draws or more"
    return Comparison(
        draws=len(draws), gain=gains.mean, interval=low_high, p=min(1.0, max(1, suggestions) * paired(*losses))
    )


def sentence(records: Sequence[TrialRecord], winner: TrialRecord, own: TrialRecord, measure: Measure) -> str:
    """Return what the search shows about its winner ``winner`` against the study's settings ``own``."""
    suggestions = sum(not record.is_reference for record in records)
    found = compare(winner, own, suggestions, measure)
    if found is None:
        return (
            f"No difference between {winner.key} and the {own.name} configuration is tested: there are no values of "
            "two or more single label draws. `ladder-search reproduce` compares them on fresh seeds."
        )
    low, high = found.interval
    text = f"{measure.apart(abs(found.gain))} {'better' if found.gain > 0 else 'worse'}"
    bounds = f"{measure.number(low)} .. {measure.number(high)}, {found.draws} draws, adjusted p {found.p:.2g}"
    verdict = text if found.p < LEVEL else "no difference shown"
    name = f"{winner.key} against the {own.name} configuration"
    return f"{name}, on the same draws, as the best of {suggestions}: {verdict} ({bounds})."
