"""The cost of tracking for a search: the same trials with four kinds of tracking, and the content of the stores.

    no callback      Tune alone
    records only     our callback with a tracker that discards everything
    ladder-search    our callback, the spool and its writer process, which sends to SQLite
    Ray + MLflow     Ray's MLflowLoggerCallback, which logs to SQLite inside Tune's event loop

A report costs a trial a fixed amount of CPU time and has 12 metrics of 10 epochs; Ray's callback stores the last epoch
only. Databases exist and the writer runs before the clock starts; that time, once per search, and the time from the end
of the search until all is stored are reported separately.

    python -m benchmarks.tracking_cost
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search import Searcher

from benchmarks import searches
from benchmarks.measure import Option, Row, Spread, benchmark, spread_cells
from benchmarks.searches import Resettable
from benchmarks.stored import lost_and_doubled, stored_points
from ladder_search import metrics
from ladder_search.driver.callback import SearchCallback
from ladder_search.driver.halt import Halt
from ladder_search.driver.ledger import Ledger
from ladder_search.driver.progress import Progress
from ladder_search.record.folder import StudyFolder
from ladder_search.studies import find_study
from ladder_search.tracking import DatasetInput, MetricPoint, NullTracker, SpoolTracker, Tracker
from ladder_search.tracking.address import default_store
from ladder_search.tracking.folder import SpoolFolder, load_status

EXPERIMENT, SEARCH = "benchmark", "benchmark/search"
EPOCHS_PER_REPORT = 10
NAMES = (
    *(metrics.VALIDATION_ERROR, metrics.COST, metrics.COST_SUPERVISED, metrics.LEARNING_RATE, metrics.STEP_TIME_MS),
    *(metrics.cost_denoising(layer) for layer in range(7)),
)
"""The 12 metrics that a ladder trial reports for every epoch; its step counts as a thirteenth."""
DATA = DatasetInput(name="digits", digest="0" * 64, rows={"labelled": 100})


def value(key: str, name: str, epoch: int) -> float:
    """Return the value that a trial reports, which can be recomputed to check the store."""
    return random.Random(f"{key} {name} {epoch}").random()


class Working(Resettable):
    """Uses CPU time, not wall time, and reports, so that a tracker that takes the core has a cost."""

    def step(self) -> dict[str, Any]:
        key, reports, burn = (self.config[name] for name in ("key", "reports", "burn"))
        until = time.process_time() + burn
        while time.process_time() < until:
            sum(range(20_000))
        self.steps += 1
        last = self.steps * EPOCHS_PER_REPORT
        history = [
            {metrics.EPOCH: epoch, metrics.STEP: epoch * 10, **{name: value(key, name, epoch) for name in NAMES}}
            for epoch in range(last - EPOCHS_PER_REPORT + 1, last + 1)
        ]
        return {**history[-1], metrics.HISTORY: history, metrics.DIVERGED: False, "done": self.steps == reports}


class Listed(Searcher):
    """Suggests the same configurations in every search."""

    def __init__(self, trials: int, reports: int, burn: float) -> None:
        super().__init__(metric=metrics.VALIDATION_ERROR, mode="min")
        settings = {**find_study("digits-100").trial().as_mapping()}
        self._left = [
            {
                **{"key": f"t{number:04d}", "number": number, "name": "", "params": {"training/lr": 0.001}},
                **{"settings": settings, "device": "cpu", "reports": reports, "burn": burn},
            }
            for number in range(trials)
        ]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        return self._left.pop(0) if self._left else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    seconds: float
    starting: float = 0.0
    """Seconds from opening the tracker until it is ready."""
    storing: float = 0.0
    """Seconds from the end of the search until the store is complete."""
    writer_cpu: float = 0.0
    """CPU seconds of the writer process between the two."""
    database: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    trials: int
    reports: int
    burn: float


def search(folder: Path, size: Size, callbacks: list[tune.Callback]) -> float:
    listed = Listed(size.trials, size.reports, size.burn)
    return searches.fit(
        Working, folder, callbacks=callbacks, search_alg=listed, num_samples=size.trials, reuse_actors=True
    )


def with_tracker(folder: Path, size: Size, tracker: Tracker) -> float:
    study_folder = StudyFolder(folder / "study")
    study_folder.create({})
    callback = SearchCallback(
        search=SEARCH,
        folder=study_folder,
        ledger=Ledger(study_folder.running),
        tracker=tracker,
        progress=Progress(find_study("digits-100"), size.trials, 2, searches.quiet()),
        epochs=size.reports * EPOCHS_PER_REPORT,
        tags={"study": "digits-100"},
        dataset=DATA,
        reasons={},
        halt=Halt(None),
    )
    tracker.start_run(f"{SEARCH}/search", name="search", params={}, tags={})
    duration = search(folder, size, [callback])
    tracker.end_run(f"{SEARCH}/search", "FINISHED")
    if callback.problems:
        raise RuntimeError(f"the callback had problems: {callback.problems[:3]}")
    return duration


def no_callback(folder: Path, size: Size) -> Outcome:
    return Outcome(seconds=search(folder, size, []))


def records_only(folder: Path, size: Size) -> Outcome:
    return Outcome(seconds=with_tracker(folder, size, NullTracker()))


def spool(folder: Path, size: Size) -> Outcome:
    store = default_store(folder)
    start = time.perf_counter()
    tracker = SpoolTracker(folder / "spool", store, EXPERIMENT)
    tracker.start_run("benchmark/ready", name="ready", params={}, tags={})
    while tracker.run_id("benchmark/ready") is None:
        time.sleep(0.05)
    tracker.end_run("benchmark/ready", "FINISHED")
    starting = time.perf_counter() - start
    writer = load_status(SpoolFolder(folder / "spool")).pid
    cpu = searches.cpu_seconds(writer)
    outcome = with_tracker(folder, size, tracker)
    used = searches.cpu_seconds(writer) - cpu
    start = time.perf_counter()
    if not tracker.close() or tracker.problems():
        raise RuntimeError(f"not everything was stored: {tracker.problems()}")
    storing = time.perf_counter() - start
    return Outcome(seconds=outcome, starting=starting, storing=storing, writer_cpu=used, database=folder / "mlflow.db")


def ray_mlflow(folder: Path, size: Size) -> Outcome:
    from ladder_search.tracking.mlflow_store import open_store  # imports MLflow, as Ray's callback does

    store = default_store(folder)
    start = time.perf_counter()
    open_store(store, EXPERIMENT, folder / "spool", "")
    starting = time.perf_counter() - start
    callback = MLflowLoggerCallback(tracking_uri=store, experiment_name=EXPERIMENT)
    return Outcome(seconds=search(folder, size, [callback]), starting=starting, database=folder / "mlflow.db")


def check(database: Path, size: Size) -> Row:
    """Compare a store with the reports of a ladder-search run's trials."""
    epochs = range(1, size.reports * EPOCHS_PER_REPORT + 1)
    keys = [f"t{number:04d}" for number in range(size.trials)]
    values = {(key, name, epoch): value(key, name, epoch) for key in keys for name in NAMES for epoch in epochs}
    values |= {(key, metrics.STEP, epoch): epoch * 10.0 for key in keys for epoch in epochs}
    expected = {(f"{SEARCH}/{key}", name, epoch): number for (key, name, epoch), number in values.items()}
    lost, doubled = lost_and_doubled(expected, stored_points(f"sqlite:///{database}", EXPERIMENT))
    return {"points expected": len(expected), "lost or wrong": lost, "doubled": doubled}


def cost_per_call(calls: int) -> list[Row]:
    """Return the microseconds that a search spends on a call of the tracker; nothing is sent meanwhile."""
    now = int(time.time() * 1000)
    with tempfile.TemporaryDirectory() as name:
        tracker = SpoolTracker(Path(name) / "spool", default_store(Path(name)), EXPERIMENT, start_writer=False)
        points = [
            MetricPoint(name=metric, value=0.1 * epoch, step=epoch, time_ms=now)
            for epoch in range(EPOCHS_PER_REPORT)
            for metric in NAMES
        ]
        params = {f"model/{number}": 0.1 for number in range(20)}
        kinds: dict[str, Callable[[str], None]] = {
            "start_run, 20 parameters": lambda key: tracker.start_run(key, name=key, params=params, tags={"a": "b"}),
            f"log_metrics, {len(points)} points": lambda key: tracker.log_metrics(key, points),
            f"log_metrics, {len(NAMES)} points": lambda key: tracker.log_metrics(key, points[: len(NAMES)]),
            "set_tags": lambda key: tracker.set_tags(key, {"status": "COMPLETE"}),
            "end_run": lambda key: tracker.end_run(key, "FINISHED"),
        }
        durations: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(calls):
            for kind, call in kinds.items():
                start = time.perf_counter()
                call(f"{SEARCH}/t{number:04d}")
                durations[kind].append((time.perf_counter() - start) * 1e6)
        tracker.close()
    return [
        {"call": kind, "µs": statistics.median(values), "99 %, µs": sorted(values)[int(0.99 * calls)], "n": calls}
        for kind, values in durations.items()
    ]


OPTIONS = (
    Option("--rounds", "searches of every kind", 2, 1),
    Option("--trials", "trials of a search", 8, 4),
    Option("--burn", "CPU seconds between two reports", 0.25),
)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "What does tracking cost a search?"
    with benchmark(question, __doc__, *OPTIONS, one_process=False, arguments=arguments) as (report, options):
        # A trial of the studies on digits has ten reports of ten epochs.
        size = Size(trials=options.trials, reports=2 if options.quick else 10, burn=options.burn)
        kinds = {
            "no callback": no_callback,
            "records only": records_only,
            "ladder-search": spool,
            "Ray + MLflow": ray_mlflow,
        }
        outcomes: dict[str, list[Outcome]] = {kind: [] for kind in kinds}
        stored: list[Row] = []
        for number in range(options.rounds):
            for kind, run in kinds.items():
                with searches.prepared() as folder:
                    outcome = run(folder, size)
                    outcomes[kind].append(outcome)
                    if kind == "ladder-search" and outcome.database is not None:
                        stored.append({"search": number + 1, **check(outcome.database, size)})
                    elif outcome.database is not None:
                        n_points = len(stored_points(f"sqlite:///{outcome.database}", EXPERIMENT))
                        report.note(f"Ray + MLflow stored {n_points} points.")
        base = outcomes["records only"]
        ours = outcomes["ladder-search"]
        rows: list[Row] = []
        for kind, these in outcomes.items():
            rows.append(
                {
                    "tracking": kind,
                    **spread_cells("search, s", Spread.of([one.seconds for one in these])),
                    "over records only": _ratio(these, base),
                    "over ladder-search": _ratio(these, ours),
                    "made ready in, s": statistics.median(one.starting for one in these),
                    "stored after, s": statistics.median(one.storing for one in these),
                    "writer's CPU s": statistics.median(one.writer_cpu for one in these),
                    "n": len(these),
                }
            )
        work = size.trials * size.reports * size.burn
        report.table(f"{size.trials} trials x {size.reports} reports x {size.burn:g} CPU s = {work:.0f} CPU s", rows)
        report.table("What is in the store of ladder-search", stored)
        report.table("What a call costs the search", cost_per_call(20 if options.quick else 500))


def _ratio(these: list[Outcome], others: list[Outcome]) -> float:
    return statistics.median(a.seconds / b.seconds for a, b in zip(these, others, strict=True))


if __name__ == "__main__":
    main()
