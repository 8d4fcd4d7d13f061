"""The summary of a search: its trials ranked, and the best compared with paper, baseline and target.

Errors are validation errors; they rank configurations within a search and are not the test error of a paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ladder_search import wording
from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.metrics import ERROR, Measure
from ladder_search.ranking import STATES, SearchSummary, is_ranked, rank, summary
from ladder_search.record.trial import TrialRecord
from ladder_search.report.winner import interval, sentence
from ladder_search.studies.study import Study
from ladder_search.wording import BASELINE, NOTHING

_OTHER_COLUMNS = 67
"""Width of the table's other columns when errors are percentages, in characters, without that of the intervals."""
_INTERVAL_COLUMN = 18
_WIDE = 100
"""Width of a console, in characters, from which the table has intervals."""


def summary_lines(study: Study, records: Sequence[TrialRecord]) -> list[str]:
    s = summary(study, records)
    chosen = (
        [f"{s.suggestion.key} chose {wording.assignments(s.suggestion.params)}."]
        if s.suggestion and s.suggestion.params
        else []
    )
    own = next((record for record in records if record.name == s.own and is_ranked(record)), None)
    tested = [sentence(records, s.suggestion, own, s.measure)] if s.suggestion and own else []
    baseline = _baseline_line(study, records, s)
    return [_suggestion_line(s), *tested, *chosen, baseline, *_target_lines(s), _counts_line(s)]


def leaderboard(study: Study, records: Sequence[TrialRecord], *, top: int = 10, intervals: bool = True) -> Table:
    """Return a table of the best ``top`` trials and of all reference trials; n is the number of label draws."""
    measure = study.measure
    rows = [(place, r) for place, r in enumerate(rank(records, measure), 1) if place <= top or r.is_reference]
    interval_title = ("95 % interval",) if intervals else ()
    return Table(
        header=("#", "trial", "name", measure.title, *interval_title, "n", "epochs", "state", "parameters", "time"),
        rows=[
            (
                str(place) if is_ranked(r) else NOTHING,
                r.key,
                r.name,
                measure.text(r.validation_error),
                *((_interval(r, measure),) if intervals else ()),
                str(r.draws),
                str(wording.epochs_trained(r)),
                r.state,
                wording.assignments(r.params),
                wording.duration(r.seconds),
            )
            for place, r in rows
        ],
        left=("trial", "name", "state", "parameters"),
        folded=("name", "parameters"),
        styles=["bold" if r.is_reference else "" if is_ranked(r) else "dim" for _, r in rows],
        title=f"{study.name}: {study.title}",
    )


def print_leaderboard(console: Console, study: Study, records: Sequence[TrialRecord], *, top: int = 10) -> None:
    """Print the table and the summary; names of parameters are omitted if they take too much room."""
    measure, wide = study.measure, console.width >= _WIDE
    table = leaderboard(study, records, top=top, intervals=wide)
    place = table.header.index("parameters")
    room = console.width - _OTHER_COLUMNS - wide * _INTERVAL_COLUMN - len(measure.unit) + len(ERROR.unit)
    names: list[str] = []
    if max((len(row[place]) for row in table.rows), default=0) > room:
        chosen = {r.key: r.params for r in records}
        names = list(dict.fromkeys(name for row in table.rows for name in chosen[row[1]]))
        rows = []
        for row in table.rows:
            values = " ".join(wording.value(chosen[row[1]].get(name, "-")) for name in names)
            rows.append((*row[:place], values if chosen[row[1]] else row[place], *row[place + 1 :]))
        table = replace(
            table, rows=rows, most=[("name", 10)]
        )  # two lines for "supervised baseline", one for the others
    if table.rows:
        table.print(console)
    if names:
        console.print(f"Parameters in order: {', '.join(wording.short_names(names).values())}.")
    for line in summary_lines(study, records):
        console.print(line)


def leaderboard_markdown(study: Study, records: Sequence[TrialRecord], *, top: int = 10) -> str:
    """Return the output of ``print_leaderboard`` as Markdown."""
    table = leaderboard(study, records, top=top)
    sentences = [f"* {sentence}" for sentence in summary_lines(study, records)]
    return "\n".join(
        [f"# {study.name}", "", study.title, "", *(table.markdown() if table.rows else []), *sentences, ""]
    )


def _interval(record: TrialRecord, measure: Measure) -> str:
    bounds = interval(record, measure)
    return NOTHING if bounds is None else f"{measure.number(bounds[0])} .. {measure.text(bounds[1])}"


def _standing(measure: Measure, value: float, other: float) -> str:
    """Compare two values: ``0.14 points above`` for errors of 0.012 and 0.0106."""
    difference = abs(value - other)
    if round(measure.scale * difference, measure.digits) == 0:
        return "equal to"
    return f"{measure.apart(difference)} {'above' if value > other else 'below'}"


def _suggestion_line(s: SearchSummary) -> str:
    published = f"the {s.own} configuration's {s.measure.text(s.published)}"
    if s.suggestion is None or s.suggestion.validation_error is None:
        stands = f"; {published} stands" if s.published is not None else ""
        return f"Best found: no suggestion ran to its end{stands}."
    error = s.suggestion.validation_error
    text = f"Best found: {s.measure.text(error)} validation {s.measure.title} ({s.suggestion.key})"
    if s.published is None:
        return f"{text}; the {s.own} configuration has no result to compare it with."
    return f"{text}, {_standing(s.measure, error, s.published)} {published}."


def _baseline_line(study: Study, records: Sequence[TrialRecord], s: SearchSummary) -> str:
    if s.baseline is None:
        if study.baseline is None and not any(record.name == BASELINE for record in records):
            return "Supervised baseline: this study has none."
        name = f" ({study.baseline})" if isinstance(study.baseline, str) else ""
        return f"Supervised baseline{name}: no result in this search."
    text = f"Supervised baseline: {s.measure.text(s.baseline)}"
    if s.best is None or s.gap_points is None:
        return f"{text}; there is no result to compare with it."
    text += f"; the best trial is {_standing(s.measure, s.best, s.baseline)} it"
    if s.measure != ERROR:
        return f"{text}."
    return f"{text}, {100 * abs(s.gap_relative or 0):.0f} % {'fewer' if s.gap_points > 0 else 'more'} errors."


def _target_lines(s: SearchSummary) -> list[str]:
    if s.target is None:
        return ["Target: none, no paper reports this experiment."]
    title = s.measure.title
    text = f"Target: {s.target} test {title}, {s.target.source}"
    if s.best is None:
        return [f"{text}."]
    return [
        f"{text}; the best validation {title} is {_standing(s.measure, s.best, s.target.error)} it.",
        f"A search's validation {title} is not the paper's test {title}: `ladder-search train` compares the two.",
    ]


def _counts_line(s: SearchSummary) -> str:
    done, stopped, failed = (s.counts[state] for state in STATES)
    total = done + stopped + failed
    if not total:
        return "Trials: none has ended."
    return f"Trials: {total} ended, {done} complete, {stopped} stopped early (PRUNED), {failed} failed (FAIL)."
