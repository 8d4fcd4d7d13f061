"""A long search on a shared team server: MLflow's server on PostgreSQL, both started here, and trials without work.

The search is ``run_search`` as in ``search.py``. Afterwards lost and duplicated points, and duplicated or RUNNING runs
are counted in PostgreSQL's tables. The memory of the sending process is sampled during the search; at the end the
queries of MLflow's pages that filter by a tag are timed.

    python -m benchmarks.postgres_store
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from mlflow.tracking import MlflowClient

from benchmarks import searches
from benchmarks.measure import Option, Report, Row, benchmark, seconds
from benchmarks.searches import Resettable
from benchmarks.servers import mlflow_server, postgres
from benchmarks.stored import lost_and_doubled, stored_points, stored_runs
from benchmarks.tracking_cost import value
from ladder_search import metrics
from ladder_search.tracking.folder import SpoolFolder, load_ack, load_status
from ladder_search.tracking.writer import sync

STUDY = "digits-100"
EPOCHS = 5
NAMES = (metrics.VALIDATION_ERROR, metrics.COST, metrics.LEARNING_RATE, metrics.STEP)
"""With these, a trial of five epochs has 20 points."""
QUERIES = 20


class Reporting(Resettable):
    """Reports one epoch per step, with reproducible values."""

    def step(self) -> dict[str, Any]:
        self.steps += 1
        row = {metrics.EPOCH: self.steps, **{name: reported(self.config["key"], name, self.steps) for name in NAMES}}
        return {**row, metrics.HISTORY: [row], metrics.DIVERGED: False, "done": self.steps == EPOCHS}


def reported(key: str, name: str, epoch: int) -> float:
    return 10.0 * epoch if name == metrics.STEP else value(key, name, epoch) / 20  # below the threshold of failure


class WriterMemory(searches.Watching):
    """Samples the resident memory of the writer process with the number of stored runs."""

    def __init__(self, spool: Path) -> None:
        self.samples: list[tuple[int, float]] = []
        """Pairs (runs stored, MiB)."""
        self._folder = SpoolFolder(spool)

    def look(self) -> None:
        ack, pid = load_ack(self._folder), load_status(self._folder).pid
        sizes = None if ack is None or pid in (0, os.getpid()) else searches.memory(pid)
        if ack is not None and sizes is not None:
            self.samples.append((len(ack.runs), sizes["VmRSS"] / 2**20))

    def rows(self, trials: int) -> list[Row]:
        """Return the memory at each quarter of the stored runs, with the peak until then."""
        result: list[Row] = []
        for quarter in (1, 2, 3, 4):
            goal = trials * quarter // 4
            until = [mib for runs, mib in self.samples if runs <= goal]
            result.append({"trials stored": goal, "memory, MiB": until[-1], "peak so far, MiB": max(until)})
        return result


def counted(store: str, trials: int) -> Row:
    """Compare PostgreSQL's tables with the reports of the trials."""
    prefix = f"{STUDY}/{searches.NAME}"
    keys = [f"{prefix}/t{number:04d}" for number in range(trials)]
    expected = {
        (key, name, epoch): reported(key.rpartition("/")[2], name, epoch)
        for key in keys
        for name in NAMES
        for epoch in range(1, EPOCHS + 1)
    }
    runs = stored_runs(store, STUDY)
    points = [point for point in stored_points(store, STUDY) if point[0] != f"{prefix}/search"]
    lost, doubled = lost_and_doubled(expected, points)
    return {
        "runs": len(runs),
        "runs missing": len({*keys, f"{prefix}/search"} - {run.key for run in runs}),
        "left RUNNING": sum(run.status == "RUNNING" for run in runs),
        "not FINISHED": sum(run.status != "FINISHED" for run in runs),
        "points expected": len(expected),
        "lost": lost,
        "doubled": doubled,
    }


def latencies(address: str, store: str, trials: int) -> list[Row]:
    """Time searches by tag: on the server, as used by MLflow's pages, and in the database."""
    one, many = f"tags.trial = 't{trials // 2:04d}'", f"tags.study = '{STUDY}'"
    table: list[Row] = []
    for what, place, most in (("the server", address, 100), ("PostgreSQL", store, 1000)):
        client = MlflowClient(place)
        experiment = client.get_experiment_by_name(STUDY)
        assert experiment is not None
        for query, rows in ((one, 100), (many, most)):
            search = partial(client.search_runs, [experiment.experiment_id], query, max_results=rows)
            times = [seconds(search) for _ in range(QUERIES)]
            table.append(
                {"of": what, "filter": query, "runs": len(search()), "s": median(times), "worst, s": max(times)}
            )
    return table


@benchmark(
    "Does a long search on a shared server with PostgreSQL arrive whole?",
    Option("--trials", "trials of the search", 2000, 40),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    trials = options.trials
    with searches.prepared() as folder, postgres() as store, mlflow_server(store, folder) as server:
        spool = folder / searches.NAME / "spool"
        start = time.perf_counter()
        with WriterMemory(spool) as memory:
            fixed = {"study": STUDY, "epochs": EPOCHS, "sampler": "random", "scheduler": "fifo"}
            result = searches.run_ours(folder, Reporting, trials=trials, tracking=server.address, **fixed)
        duration = time.perf_counter() - start
        ends = sorted(path.stat().st_mtime for path in result.folder.trials.glob("t*.json"))
        start = time.perf_counter()
        report.note(f"The search said that all is stored. Sync then: {sync(spool, server.address)}.")
        row: Row = {
            "trials": len(result.records),
            "trials per minute": 60 * (len(ends) - 1) / (ends[-1] - ends[0]),
            "first to last trial, s": ends[-1] - ends[0],
            "whole search, s": duration,
            "sync afterwards, s": time.perf_counter() - start,
        }
        report.table("The search", [row])
        report.table("What PostgreSQL holds", [counted(store, trials)])
        report.table("The writer process", memory.rows(trials))
        report.table(f"Search by tag (median of {QUERIES})", latencies(server.address, store, trials))


if __name__ == "__main__":
    main()
