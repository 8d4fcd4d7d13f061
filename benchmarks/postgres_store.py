"""A long search on a shared team server: MLflow's server on PostgreSQL, both started here, and trials without work.

The search is ``run_search`` as in ``search.py``. Afterwards lost and duplicated points, and duplicated or RUNNING runs
are counted in PostgreSQL's tables. The memory of the sending process is sampled during the search; at the end the
queries of MLflow's pages that filter by a tag are timed.

    python -m benchmarks.postgres_store
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from benchmarks import searches
from benchmarks.measure import Option, Row, benchmark
from benchmarks.searches import Resettable
from benchmarks.servers import mlflow_server, postgres
from benchmarks.stored import lost_and_doubled, stored_points, stored_runs
from benchmarks.tracking_cost import value
from ladder_search import metrics
from ladder_search.driver.search import run_search
from ladder_search.driver.settings import SearchSettings
from ladder_search.tracking.folder import SpoolFolder, load_ack, load_status
from ladder_search.tracking.writer import sync
from spaces import find_space

STUDY, NAME = "digits-100", "long"
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


class WriterMemory(threading.Thread):
    """Samples the resident memory of the writer process with the number of stored runs."""

    def __init__(self, spool: Path) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[int, float]] = []
        """Pairs (runs stored, MiB)."""
        self._folder, self._over = SpoolFolder(spool), threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.5):
            ack, pid = load_ack(self._folder), load_status(self._folder).pid
            if ack is not None and pid not in (0, os.getpid()) and (mib := resident_mib(pid)):
                self.samples.append((len(ack.runs), mib))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def rows(self, trials: int) -> list[Row]:
        """Return the memory at each quarter of the stored runs, with the peak until then."""
        result: list[Row] = []
        for quarter in (1, 2, 3, 4):
            goal = trials * quarter // 4
            until = [mib for runs, mib in self.samples if runs <= goal]
            result.append({"trials stored": goal, "memory, MiB": until[-1], "peak so far, MiB": max(until)})
        return result


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def counted(store: str, trials: int) -> Row:
    """Compare PostgreSQL's tables with the reports of the trials."""
    prefix = f"{STUDY}/{NAME}"
    keys = [f"{prefix}/t{number:04d}" for number in range(trials)]
    expected = {
        (key, name, epoch): reported(key.rpartition("/")[2], name, epoch)
        for key in keys
        for name in NAMES
        for epoch in range(1, EPOCHS + 1)
    }
    runs = stored_runs(store, STUDY)
    states = Counter(run.status for run in runs)
    points = [point for point in stored_points(store, STUDY) if point[0] != f"{prefix}/search"]
    lost, doubled = lost_and_doubled(expected, points)
    keys.append(f"{prefix}/search")
    return {
        "runs": len(runs),
        "runs missing": len(set(keys) - {run.key for run in runs}),
        "runs too many": len(runs) - len({run.key for run in runs}.intersection(keys)),
        "left RUNNING": states["RUNNING"],
        "not FINISHED": len(runs) - states["FINISHED"],
        "without parent": sum(run.parent is None for run in runs) - 1,
        "points expected": len(expected),
        "lost": lost,
        "doubled": doubled,
    }


def latencies(address: str, store: str, trials: int) -> list[Row]:
    """Time searches by tag: on the server, as used by MLflow's pages, and in the database."""
    one, many = f"tags.trial = 't{trials // 2:04d}'", f"tags.study = '{STUDY}'"
    table: list[Row] = []
    for what, place, expected in (
        ("the server", address, ((one, 100), (many, 100))),
        ("PostgreSQL", store, ((one, 100), (many, 1000))),
    ):
        client = MlflowClient(place)
        experiment = client.get_experiment_by_name(STUDY)
        assert experiment is not None
        for query, rows in expected:
            times, runs = [], 0
            for _ in range(QUERIES):
                start = time.perf_counter()
                runs = len(client.search_runs([experiment.experiment_id], query, max_results=rows))
                times.append(time.perf_counter() - start)
            table.append(
                {"of": what, "filter": query, "runs": runs, "s": statistics.median(times), "worst, s": max(times)}
            )
    return table


OPTIONS = (Option("--trials", "trials of the search", 2000, 40),)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "Does a long search on a shared server with PostgreSQL arrive whole?"
    with benchmark(question, __doc__, *OPTIONS, one_process=False, arguments=arguments) as (report, options):
        trials = options.trials
        with searches.prepared() as folder, postgres() as store, mlflow_server(store, folder) as server:
            spool = folder / NAME / "spool"
            memory = WriterMemory(spool)
            memory.start()
            settings = SearchSettings(
                study=STUDY,
                trials=trials,
                epochs=EPOCHS,
                sampler="random",
                scheduler="fifo",
                root=str(folder),
                name=NAME,
                tracking=server.address,
            )
            start = time.perf_counter()
            result = run_search(settings, trainable=Reporting, find_space=find_space, console=searches.quiet())
            duration = time.perf_counter() - start
            memory.stop()
            ends = sorted(path.stat().st_mtime for path in result.folder.trials.glob("t*.json"))
            start = time.perf_counter()
            report.note(
                f"The search said that all is stored: {result.stored}. Sync then: {sync(spool, server.address)}."
            )
            syncing = time.perf_counter() - start
            if result.problems:
                report.note(f"Problems of the search: {result.problems[:3]}")
            report.table(
                "The search",
                [
                    {
                        "trials": len(result.records),
                        "trials per minute": 60 * (len(ends) - 1) / (ends[-1] - ends[0]),
                        "first to last trial, s": ends[-1] - ends[0],
                        "whole search, s": duration,
                        "sync afterwards, s": syncing,
                    }
                ],
            )
            report.table("What PostgreSQL holds", [counted(store, trials)])
            report.table("The writer process", memory.rows(trials))
            report.table(f"Search by tag (median of {QUERIES})", latencies(server.address, store, trials))


if __name__ == "__main__":
    main()
