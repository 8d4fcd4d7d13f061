"""The reproduction table: every published row with what this code reached, made from kept results alone.

A folder of kept results holds copies of ``race.json`` (``ladder-search reproduce``) and of ``ordering.json``
(``ladder-search ordering``) under names of their own, and optionally ``costs.json`` (``reproductions/costs.py``) with
the floating-point operations of one training per study. Other files are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder_search.console.tables import Table
from ladder_search.disk.documents import LIMIT, refused
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.disk.foreign import read_json
from ladder_search.errors import StudyFolderError
from ladder_search.metrics import Measure
from ladder_search.ordering import judging
from ladder_search.record.trial import PUBLISHED
from ladder_search.reproduction import reproduction as races
from ladder_search.reproduction.table import table
from ladder_search.statistics import Summary
from ladder_search.studies import STUDIES, Study
from ladder_search.wording import NOTHING

COSTS, PAGE = "costs.json", "rows.md"
HEADER = ("study", "published", "n", "result", "95 % interval", "verdict", "core-hours a seed", "commit", "command")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one file holds of one study's published configuration."""

    study: str
    epochs: int | None
    """Length of a reduced schedule; None: the study's own."""
    precision: str = ""
    values: Mapping[int, float]
    """Seed -> value of the study's measure on the test set, without seeds that diverged."""
    diverged: int
    seeds: int
    """Number of requested seeds."""
    verdict: str
    core_hours: float | None = None
    """Processor time of one seed; None if it was not measured."""
    commits: tuple[str, ...] = ()
    command: str

    @property
    def weight(self) -> tuple[bool, int]:
        """Sort key: full schedules before reduced ones, then more seeds before fewer."""
        return self.epochs is None, len(self.values)


def read_results(folder: Path) -> list[Result]:
    """Return the results of all files in ``folder`` that have any, sorted by study.

    Raise ``StudyFolderError`` if ``folder`` has none, ``CheckpointError`` if a file of a known format is damaged.
    """
    results = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with refused(path, "be readable JSON", "copy it again or remove it"):
            document = read_json(path, LIMIT)
        kind = document.get("format") if isinstance(document, dict) else None
        if kind == races.FORMAT:
            results += _of_race(races.read_reproduction_file(path))
        elif kind == judging.FORMAT:
            with refused(path, "be an ordering", "copy it again or remove it"):
                results += _of_ordering(document)
    if not results:
        raise StudyFolderError(
            f"the reproduction table is made from copies of {races.FILE} and ordering.json, and {folder} has none; "
            "name a folder with some."
        )
    return sorted(results, key=lambda result: result.study)


def read_costs(folder: Path) -> dict[str, float]:
    """Return study -> floating-point operations of one training; empty without a file."""
    path = folder / COSTS
    if not path.is_file():
        return {}
    with refused(path, "map studies to operations", "run reproductions/costs.py again"):
        return {str(name): float(flops) for name, flops in read_json(path, LIMIT)["flops"].items()}


def published_rows(results: Sequence[Result], costs: Mapping[str, float], *, run: bool | None = None) -> Table:
    """Return the table of all studies with a target, in the order of the papers' tables.

    Args:
        costs: see ``read_costs``.
        run: True: only rows with a result; False: only rows without; None: all.
    """
    best = {result.study: result for result in sorted(results, key=lambda result: result.weight)}
    rate = _rate(best.values(), costs)
    rows = []
    for study in STUDIES.values():
        if study.target is None or run not in (None, study.name in best):
            continue
        if study.name in best:
            rows.append(_cells(study, best[study.name]))
        else:
            hours = costs[study.name] / rate if rate and study.name in costs else None
            estimate = NOTHING if hours is None else f"about {_hours(hours)}"
            command = f"`ladder-search reproduce {study.name}`"
            cells = (str(study.target), NOTHING, "not run", NOTHING, NOTHING, estimate, NOTHING, command)
            rows.append((f"`{study.name}`", *cells))
    return Table(header=HEADER, rows=rows)


def page(results: Sequence[Result], costs: Mapping[str, float]) -> str:
    """Return the table as a page of Markdown: rows with a result, then the others."""
    run, rest = (published_rows(results, costs, run=run) for run in (True, False))
    lines = [
        "# Reproduction table",
        "",
        "Every row with a published number. Values are mean ± standard deviation over n seeds; each seed draws labels, "
        "weights, noise and batches anew. Numbers marked unverified could not be confirmed in a source that was "
        "readable. Made by `ladder-search report --rows FOLDER` from the files in FOLDER.",
        "",
        f"## Rows with a result: {len(run.rows)}",
        "",
        *run.markdown(),
        "A commit with + is a changed working tree; – means that it was not recorded.",
        "",
        f"## Rows not run: {len(rest.rows)}",
        "",
        *rest.markdown(),
        "Estimated core-hours follow from the floating-point operations of the row and the mean rate of the measured "
        "rows above. Convolutions, recurrences and evaluations have other rates: the estimate is a magnitude. – means "
        "that the data set was not available, or that no row is measured.",
    ]
    return "\n".join(lines) + "\n"


def write_rows(folder: Path, output: Path) -> Path:
    """Write ``page`` for the kept results in ``folder`` to ``output/rows.md`` and return its path; see
    ``read_results`` for the errors."""
    text, path = page(read_results(folder), read_costs(folder)), output / PAGE
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise unwritable(output, error) from error
    return path


def _cells(study: Study, result: Result) -> tuple[str, ...]:
    measure, n = study.measure, len(result.values)
    summary = Summary.of(list(result.values.values()))
    reduced = "" if result.epochs is None else f", {result.epochs} of {study.training.epochs} epochs"
    precision = f", {result.precision}" if result.precision else ""
    diverged = f", {result.diverged} diverged" if result.diverged else ""
    return (
        f"`{study.name}`{reduced}{precision}",
        str(study.target),
        f"{n}{'' if n + result.diverged >= result.seeds else f' of {result.seeds}'}{diverged}",
        measure.text(summary.mean) + (f" ± {measure.number(summary.deviation)}" if n > 1 else ""),
        _interval(summary, measure),
        result.verdict,
        NOTHING if result.core_hours is None else _hours(result.core_hours),
        ", ".join(f"`{commit[:7]}{'+' * commit.endswith('+')}`" for commit in result.commits) or NOTHING,
        f"`{result.command}`",
    )


def _interval(summary: Summary, measure: Measure) -> str:
    interval = summary.interval()
    return NOTHING if interval is None else f"{measure.number(interval[0])} .. {measure.text(interval[1])}"


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"


def _rate(results: Iterable[Result], costs: Mapping[str, float]) -> float | None:
    """Return the operations per core-hour of the measured trainings at full length; None without any."""
    measured = [
        (costs[result.study], result.core_hours)
        for result in results
        if result.epochs is None and result.core_hours and result.study in costs
    ]
    hours = sum(hours for _, hours in measured)
    return sum(flops for flops, _ in measured) / hours if hours else None


def _of_race(race: races.Reproduction) -> list[Result]:
    published = race.contenders[0]
    if not published.errors:
        return []
    (row, *_) = [row for row in table([race]) if row.name == PUBLISHED]
    trained = sum(len(contender.outcomes) for contender in race.contenders)
    options = f" --precision {race.precision}" if race.precision else ""
    options += f" --epochs {race.epochs}" if race.reduced else ""
    return [
        Result(
            study=race.study,
            epochs=race.epochs if race.reduced else None,
            precision=race.precision,
            values=published.errors,
            diverged=len(published.diverged),
            seeds=len(race.seeds),
            verdict=row.verdict_text,
            core_hours=race.cpu_seconds / 3600 / trained if race.complete and race.cpu_seconds else None,
            commits=race.commits,
            command=f"ladder-search reproduce {race.study} --seeds {len(race.seeds)}{options}",
        )
    ]


def _of_ordering(document: Mapping[str, Any]) -> list[Result]:
    results, epochs = [], document["reduced_to_epochs"]
    for name, reached in document["studies"].items():
        study = STUDIES.get(name)
        if study is None or document["measure"] != study.measure.name or not reached["values"]:
            continue  # an iteration of a study, or a study of another version
        options = "" if epochs is None else f" --epochs {epochs}"
        results.append(
            Result(
                study=name,
                epochs=None if epochs is None else int(epochs),
                values={int(seed): float(value) for seed, value in reached["values"].items()},
                diverged=len(reached["diverged"]),
                seeds=len(reached["values"]) + len(reached["diverged"]),
                verdict=_ordering_verdict(study, reduced=epochs is not None),
                command=f"ladder-search ordering {document['ordering']} --seeds {len(document['seeds'])}{options}",
            )
        )
    return results


def _ordering_verdict(study: Study, *, reduced: bool) -> str:
    """Return why the runs of an ordering have no verdict on the published number."""
    if reduced:
        return "reduced schedule"
    if study.target is not None and study.target.withheld:
        return f"no verdict: {study.target.withheld}"
    return "no verdict: the runs were tested by an ordering"
