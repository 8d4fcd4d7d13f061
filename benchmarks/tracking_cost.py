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

import argparse
import io
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback

from benchmarks import searches
from benchmarks.measure import Option, Report, Row, benchmark, spread_cells
from benchmarks.searches import Resettable
from benchmarks.stored import lost_and_doubled, stored_points
from ladder_search import metrics
from ladder_search.console import Console
from ladder_search.driver.callback import SearchCallback
from ladder_search.driver.halt import Halt
from ladder_search.driver.ledger import Ledger
from ladder_search.driver.progress import Progress
from ladder_search.record.folder import StudyFolder
from ladder_search.studies import find_study
from ladder_search.tracking import DatasetInput, NullTracker, SpoolTracker, Tracker
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    seconds: float
    starting: float = 0.0
    """Seconds from opening the tracker until it is ready."""
    storing: float = 0.0
    """Seconds from the end of the search until the store is complete."""
    writer_cpu: float = 0.0
    """CPU seconds of the writer process between the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    trials: int
    reports: int
    burn: float


def search(folder: Path, size: Size, callbacks: Sequence[tune.Callback] = ()) -> float:
    """Run the same configurations in every search; return its seconds."""
    space = {
        **{"number": tune.grid_search(list(range(size.trials))), "name": "", "params": {"training/lr": 0.001}},
        **{"key": tune.sample_from(lambda spec: f"t{spec.config.number:04d}"), "device": "cpu"},
        **{"settings": find_study("digits-100").trial().as_mapping(), "reports": size.reports, "burn": size.burn},
    }
    return searches.fit(Working, folder, space, callbacks=callbacks, reuse_actors=True)[0]


def with_tracker(folder: Path, size: Size, tracker: Tracker) -> float:
    study_folder = StudyFolder(folder / "study")
    study_folder.create({})
    callback = SearchCallback(
        search=SEARCH,
        folder=study_folder,
        ledger=Ledger(study_folder.running),
        tracker=tracker,
        progress=Progress(find_study("digits-100"), size.trials, 2, Console(file=io.StringIO())),
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
    seconds = with_tracker(folder, size, tracker)
    used = searches.cpu_seconds(writer) - cpu
    start = time.perf_counter()
    if not tracker.close() or tracker.problems():
        raise RuntimeError(f"not everything was stored: {tracker.problems()}")
    return Outcome(seconds=seconds, starting=starting, storing=time.perf_counter() - start, writer_cpu=used)


def ray_mlflow(folder: Path, size: Size) -> Outcome:
    from ladder_search.tracking.mlflow_store import open_store  # imports MLflow, as Ray's callback does

    store = default_store(folder)
    start = time.perf_counter()
    open_store(store, EXPERIMENT, folder / "spool", "")
    starting = time.perf_counter() - start
    callback = MLflowLoggerCallback(tracking_uri=store, experiment_name=EXPERIMENT)
    return Outcome(seconds=search(folder, size, [callback]), starting=starting)


def check(store: str, size: Size) -> Row:
    """Compare a store with the reports of a ladder-search run's trials."""
    epochs = range(1, size.reports * EPOCHS_PER_REPORT + 1)
    keys = [f"t{number:04d}" for number in range(size.trials)]
    values = {(key, name, epoch): value(key, name, epoch) for key in keys for name in NAMES for epoch in epochs}
    values |= {(key, metrics.STEP, epoch): epoch * 10.0 for key in keys for epoch in epochs}
    expected = {(f"{SEARCH}/{key}", name, epoch): number for (key, name, epoch), number in values.items()}
    lost, doubled = lost_and_doubled(expected, stored_points(store, EXPERIMENT))
    return {"points expected": len(expected), "lost or wrong": lost, "doubled": doubled}


OURS, RECORDS, RAY = "ladder-search", "records only", "Ray + MLflow"
KINDS: dict[str, Callable[[Path, Size], Outcome]] = {
    "no callback": lambda folder, size: Outcome(seconds=search(folder, size)),
    RECORDS: lambda folder, size: Outcome(seconds=with_tracker(folder, size, NullTracker())),
    OURS: spool,
    RAY: ray_mlflow,
}


@benchmark(
    "What does tracking cost a search?",
    Option("--rounds", "searches of every kind", 2, 1),
    Option("--trials", "trials of a search", 8, 4),
    Option("--burn", "CPU seconds between two reports", 0.25),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    # A trial of the studies on digits has ten reports of ten epochs.
    size = Size(trials=options.trials, reports=2 if options.quick else 10, burn=options.burn)
    outcomes: dict[str, list[Outcome]] = {kind: [] for kind in KINDS}
    stored: list[Row] = []
    for number in range(options.rounds):
        for kind, run in KINDS.items():
            with searches.prepared() as folder:
                outcomes[kind].append(run(folder, size))
                if kind == OURS:
                    stored.append({"search": number + 1, **check(default_store(folder), size)})
                elif kind == RAY:
                    report.note(f"{RAY} stored {len(stored_points(default_store(folder), EXPERIMENT))} points.")

    def over(these: list[Outcome], other: str) -> float:
        return median(a.seconds / b.seconds for a, b in zip(these, outcomes[other], strict=True))

    rows: list[Row] = [
        {
            "tracking": kind,
            **spread_cells("search, s", [one.seconds for one in these]),
            "over records only": over(these, RECORDS),
            "over ladder-search": over(these, OURS),
            "made ready in, s": median(one.starting for one in these),
            "stored after, s": median(one.storing for one in these),
            "writer's CPU s": median(one.writer_cpu for one in these),
            "n": len(these),
        }
        for kind, these in outcomes.items()
    ]
    work = size.trials * size.reports * size.burn
    report.table(f"{size.trials} trials x {size.reports} reports x {size.burn:g} CPU s = {work:.0f} CPU s", rows)
    report.table("What is in the store of ladder-search", stored)


if __name__ == "__main__":
    main()
