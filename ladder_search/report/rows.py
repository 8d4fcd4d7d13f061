"""A reproduction's table in words: the same cells and sentences on the console, in Markdown and in HTML."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from ladder_search.console import Console
from ladder_search.driver import wording
from ladder_search.driver.wording import NOTHING
from ladder_search.errors import command_line
from ladder_search.export.reproduction import Reproduction
from ladder_search.export.table import Row
from ladder_search.metrics import MEASURES, Measure
from ladder_search.record import PUBLISHED

ROOT = Path("results")
"""Where searches are looked for, unless told."""

RULE = (
    "Better or worse: Welch's test against the published mean, spread and number of runs finds a difference at 5 %, "
    "after Holm's correction over the rows.",
    "Reproduced: with 95 % confidence the mean is less than one published standard deviation above the published one.",
    "Not enough seeds: neither can be said.",
)


def measures(rows: Iterable[Row]) -> list[Measure]:
    """Return what the rows are judged by, each once."""
    return [MEASURES[name] for name in dict.fromkeys(row.measure for row in rows)]


def header(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the headings of the table's columns."""
    reached = f"test {wording.titles(measures(rows))}"
    return "study", "published", "configuration", "n", reached, "95 % interval", "against the re-run", "verdict"


def cells(row: Row) -> tuple[str, ...]:
    """Return the row's texts, one for each of ``header``."""
    measure = MEASURES[row.measure]
    study = f"{row.study}, reduced to {row.epochs} epochs" if row.reduced else row.study
    spread = "" if row.deviation is None else f" ± {measure.number(row.deviation)}"
    low, high = row.interval or (None, None)
    interval = NOTHING if low is None else f"{measure.number(low)} .. {measure.text(high)}"
    return (
        study,
        str(row.target or "none"),
        "re-run" if row.name == PUBLISHED else f"found {row.name}",
        str(row.n) if row.n >= row.seeds else f"{row.n} of {row.seeds}",
        f"{measure.text(row.mean)}{spread}",
        interval,
        _against(row),
        row.verdict_text,
    )


def sentences(rows: Sequence[Row], reproductions: Sequence[Reproduction], *, root: Path = ROOT) -> list[str]:
    """Return what a reader must know beside the table; ``root`` is where searches are looked for."""
    said = []
    for found in reproductions:
        own = [row for row in rows if (row.study, row.epochs) == (found.study, found.epochs)]
        name = found.study
        if found.reduced:
            said.append(
                f"{name}: a reduced reproduction, every schedule cut to {found.epochs} epochs; it cannot confirm a "
                "number that was trained for longer."
            )
        if own[0].target is None:
            said.append(f"{name}: no paper reports this experiment; found and published settings are compared.")
        elif not own[0].target.verified:
            said.append(f"{name}: the published number could not be confirmed in a source that we could read.")
        if len(own) == 1:
            said.append(
                f"{name}: no found configuration competes. `{command_line('search', name, root=root)}` finds some, and "
                "reproducing the study again adds them."
            )
        else:
            searches = ", ".join(sorted({row.search for row in own if row.search}))
            judged_by = MEASURES[own[0].measure].title
            said.append(f"{name}: found by the search {searches}, in the order of their validation {judged_by}s.")
        if not found.complete:
            said.append(f"{name}: not all seeds are trained yet; the same command goes on where this one ended.")
        if len(found.tables) > 1:
            said.append(
                f"{name}: this is table {len(found.tables)} of the same runs as they grew; each tests at "
                f"{100 * found.level:.3g} %, so that all together keep to 5 %."
            )
        for row in own:
            said.extend(_of_row(row))
    return said


def print_table(
    console: Console, rows: Sequence[Row], reproductions: Sequence[Reproduction], *, root: Path = ROOT
) -> None:
    """Print the table and its sentences: a part for each study, which eighty columns hold."""
    for (study, published), part in itertools.groupby(rows, lambda row: cells(row)[:2]):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        own = list(part)
        headings = header(own)[2:]
        for heading in headings:
            fixed = heading != headings[-2]
            table.add_column(heading, justify="right" if heading == "n" else "left", no_wrap=fixed)
        for row in own:
            table.add_row(*cells(row)[2:], style="dim" if row.dropped else "")
        title = f"{study}, published: {'nothing' if published == 'none' else published}"
        console.print("", title, table, sep="\n")
    rule = RULE if any(row.p_target is not None for row in rows) else ()
    for line in (*sentences(rows, reproductions, root=root), *rule):
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
    name = f"{row.study}, {'re-run' if row.name == PUBLISHED else row.name}"
    said = []
    if row.diverged:
        seeds = ", ".join(map(str, row.diverged))
        said.append(
            f"{name}: {len(row.diverged)} of {row.n + len(row.diverged)} seeds diverged ({seeds}); the mean is "
            "without them."
        )
    if row.dropped:
        said.append(f"{name}: dropped after {row.n + len(row.diverged)} seeds: {row.dropped}.")
    if row.verdict == "not enough seeds" and row.n > 1:
        needed = (
            f"about {row.seeds_needed} would do if mean and spread stay"
            if row.seeds_needed
            else "200 would not do either while the published mean itself is so uncertain"
        )
        said.append(f"{name}: {row.n} seeds are not enough for a verdict; {needed}.")
    return said
