"""A reproduction's table as text: the cells and sentences for the console, Markdown and HTML."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ladder_search import wording
from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.errors import command_line
from ladder_search.metrics import MEASURES, Measure
from ladder_search.reproduction.race import LEVEL as RACE_LEVEL
from ladder_search.reproduction.reproduction import Reproduction
from ladder_search.reproduction.table import NOT_COUNTED, Row
from ladder_search.statistics import LEVEL
from ladder_search.wording import NOTHING, OWN, PROPOSED

ROOT = Path("results")
"""Default folder of searches."""


def measures(rows: Iterable[Row]) -> list[Measure]:
    """Return the measures of the rows, without duplicates."""
    return [MEASURES[name] for name in dict.fromkeys(row.measure for row in rows)]


def header(rows: Iterable[Row]) -> tuple[str, ...]:
    rows = list(rows)
    reached = f"test {wording.titles(measures(rows))}"
    against = f"against {_reference(rows)}"
    return "study", "published", "configuration", "n", reached, "95 % interval", against, "verdict"


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row, in the order of ``header``."""
    measure = MEASURES[row.measure]
    study = ", ".join(filter(None, (row.study, f"reduced to {row.epochs} epochs" * row.reduced, row.precision)))
    spread = "" if row.deviation is None else f" ± {measure.number(row.deviation)}"
    low, high = row.interval or (None, None)
    interval = NOTHING if low is None else f"{measure.number(low)} .. {measure.text(high)}"
    return (
        study,
        str(row.target or "none"),
        label(row),
        str(row.n) if row.n >= row.seeds else f"{row.n} of {row.seeds}",
        f"{measure.text(row.mean)}{spread}",
        interval,
        _against(row),
        row.verdict_text,
    )


def label(row: Row) -> str:
    """Return the name of a contender: ``re-run`` of a published one, ``proposed``, or ``found t0007``."""
    return f"found {row.name}" if row.name not in OWN else PROPOSED if row.name == PROPOSED else "re-run"


def _reference(rows: Sequence[Row]) -> str:
    """Return what found configurations are compared with."""
    words = {"the proposed" if row.name == PROPOSED else "the re-run" for row in rows if row.name in OWN}
    return " or ".join(sorted(words, reverse=True)) or "the re-run"


def sentences(rows: Sequence[Row], reproductions: Sequence[Reproduction], *, root: Path = ROOT) -> list[str]:
    """Return the notes below the table; ``root`` is the folder of the searches."""
    lines = []
    for one in reproductions:
        run = (one.study, one.epochs, one.precision)
        part = [row for row in rows if (row.study, row.epochs, row.precision) == run]
        name = one.study
        if one.reduced:
            lines.append(
                f"{name}: a reduced reproduction, every schedule cut to {one.epochs} epochs; it cannot confirm a "
                "number that was trained for longer."
            )
        if one.precision:
            lines.append(f"{name}: matrix products of training in {one.precision}; evaluations are unaffected.")
        if part[0].target is None:
            lines.append(f"{name}: no paper reports this experiment; found and {part[0].name} settings are compared.")
        elif not part[0].target.verified:
            lines.append(f"{name}: the published number could not be confirmed in a source that we could read.")
        if part[0].target is not None and part[0].target.withheld and not one.reduced:
            lines.append(f"{name}: no verdict on the published number: {part[0].target.withheld}.")
        if len(part) == 1:
            lines.append(
                f"{name}: no found configuration competes. `{command_line('search', name, root=root)}` finds some, and "
                "reproducing the study again adds them."
            )
        else:
            searches = ", ".join(sorted({row.search for row in part if row.search}))
            judged_by = MEASURES[part[0].measure].title
            lines.append(f"{name}: found by the search {searches}, in the order of their validation {judged_by}s.")
        if not one.complete:
            lines.append(f"{name}: some seeds are not trained yet; rerun the same command to continue.")
        if one.table_number is None:
            lines.append(f"{name}: no verdict yet: {NOT_COUNTED}.")
        elif len(one.tables) > 1:
            lines.append(
                f"{name}: this is table {one.table_number} of the same runs as they grew; it tests at {_at(part)}."
            )
        if one.overspent_tables:
            lines.append(
                f"{name}: the first {one.overspent_tables} of its tables were made by an earlier version, whose "
                f"levels sum to more than {_percent(LEVEL)}; the rule below holds for the verdicts that are given now."
            )
        for row in part:
            lines.extend(_of_row(row))
    return lines


def rule(rows: Sequence[Row]) -> list[str]:
    """Return the explanation of the verdicts: tests, corrections and levels."""
    judged = [row for row in rows if row.level is not None]
    against = [row for row in judged if row.p_target is not None]
    compared = [row for row in judged if row.p_difference is not None]
    lines = []
    if against:
        lines.append(
            "Better or worse than the published number: a two-sided test by Welch's statistic against the published "
            "mean, spread and number of runs, with the degrees of freedom of the smaller sample, finds a difference at "
            f"{_at(against)}, after Holm's correction."
        )
    if compared:
        lines.append(
            f"Better or worse than {_reference(rows)}: the two-sided paired t-test over the common seeds finds a "
            f"difference at {_at(compared)}, after Holm's correction."
        )
    if against or compared:
        lines.append(
            f"Holm's correction runs over all tests of a difference in the study's own table: "
            f"{_each([*against, *compared], lambda row: str(row.difference_tests))}."
        )
    if against:
        lines += [
            f"Reproduced: the one-sided test by the same statistic finds at {_at(against)}, after Holm's correction "
            f"over the study's rows ({_each(against, lambda row: str(row.margin_tests))}), that the mean is less than "
            f"a margin above the published one. The margin was fixed beforehand: {_each(against, _margin)}.",
            "Not enough seeds: neither can be said.",
        ]
    if against or compared:
        lines.append(
            f"Table k of a study's runs tests at {_percent(LEVEL)} / (k (k + 1)): however many tables are made of the "
            f"runs as they grow, the chance that any of them claims a difference that is not there is at most "
            f"{_percent(LEVEL)}, and so is the chance of a false reproduction. Each study has these chances of its own."
        )
    if any(row.dropped.startswith("worse") for row in rows):
        lines.append(
            "Dropped as worse: one-sided paired t-tests on the way find so, at levels that sum to "
            f"{_percent(RACE_LEVEL)}: at most so many races drop a contender that is as good as the others."
        )
    return lines


def print_table(
    console: Console, rows: Sequence[Row], reproductions: Sequence[Reproduction], *, root: Path = ROOT
) -> None:
    """Print the table, in parts that fit 80 columns, and its sentences."""
    for (study, published), part in itertools.groupby(rows, lambda row: cells(row)[:2]):
        part_rows = list(part)
        headings = header(part_rows)[2:]
        console.print(f"\n{study}, published: {'nothing' if published == 'none' else published}")
        Table(
            header=headings,
            rows=[cells(row)[2:] for row in part_rows],
            left=[heading for heading in headings if heading != "n"],
            folded=headings[-2:-1],
            styles=["dim" if row.dropped else "" for row in part_rows],
        ).print(console)
    for line in (*sentences(rows, reproductions, root=root), *rule(rows)):
        console.print(line)


def _against(row: Row) -> str:
    if row.comparison is None:
        return NOTHING
    if row.difference is None:
        return row.comparison
    p = "" if row.p_difference is None else f", p = {row.p_difference:.2g}"
    sign = "−" if row.difference < 0 else "+"
    return f"{sign}{MEASURES[row.measure].apart(abs(row.difference))}{p}: {row.comparison}"


def _of_row(row: Row) -> list[str]:
    name = f"{row.study}, {label(row) if row.name in OWN else row.name}"
    lines = []
    if row.diverged:
        seeds = ", ".join(map(str, row.diverged))
        lines.append(
            f"{name}: {len(row.diverged)} of {row.n + len(row.diverged)} seeds diverged ({seeds}); the mean is "
            "without them."
        )
    measure = MEASURES[row.measure]
    if measure.convergence:
        converged = sum(map(measure.converged, row.errors))
        lines.append(f"{name}: converged in {converged} of {row.n + len(row.diverged)} seeds ({measure.convergence}).")
    if row.dropped:
        lines.append(f"{name}: dropped after {row.n + len(row.diverged)} seeds: {row.dropped}.")
    if row.verdict == "not enough seeds" and row.n > 1:
        needed = (
            f"about {row.seeds_needed} would be enough in the next table"
            if row.seeds_needed
            else "in the next table, even 200 would not be enough"
        )
        lines.append(f"{name}: {row.n} seeds are not enough for a verdict; if mean and spread stay, {needed}.")
    return lines


def _percent(level: float) -> str:
    return f"{100 * level:.3g} %"


def _at(rows: Sequence[Row]) -> str:
    """Return the level of each study's table."""
    return _each(rows, lambda row: _percent(row.level or 0.0))


def _each(rows: Sequence[Row], text: Callable[[Row], str]) -> str:
    """Return one text for all rows, or one for every study."""
    by_text: dict[str, dict[str, None]] = {}
    for row in rows:
        by_text.setdefault(text(row), {})[cells(row)[0]] = None
    if len(by_text) == 1:
        return next(iter(by_text))
    return " or ".join(f"{said} ({', '.join(studies)})" for said, studies in by_text.items())


def _margin(row: Row) -> str:
    target = row.target
    assert target is not None and target.largest_excess is not None
    text = MEASURES[row.measure].apart(target.largest_excess)
    return text if target.margin is not None else f"{text}, one published standard deviation"
