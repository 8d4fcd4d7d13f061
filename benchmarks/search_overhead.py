"""The overhead of the platform per trial: seconds per trivial trial of a whole search.

Ours is ``run_search`` as in ``search.py``: Optuna's TPE with its journal, ASHA, records on disk, the spool and its
writer to SQLite. Bare Ray Tune draws at random, without searcher, scheduler, records or loggers. Trials report one to
three times and leave a checkpoint. Starting and ending (Ray, imports, first processes, the first trials of a search)
are reported separately from the seconds per trial.

    python -m benchmarks.search_overhead
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ray import tune

from benchmarks import searches
from benchmarks.measure import Option, Report, Row, benchmark, spread_cells
from benchmarks.searches import Resettable
from ladder_search import metrics

EPOCHS = (34, 67, 100)
"""Epochs at which a trial reports; the first is the rung of the study `digits-100`, where two thirds are stopped."""
STEPS_PER_EPOCH = 10
WARM_UP = 8


class Trivial(Resettable):
    """Reports an error that depends only on its settings."""

    def step(self) -> dict[str, Any]:
        epoch = EPOCHS[self.steps]
        self.steps += 1
        training = self.config.get("settings", {}).get("training", {"lr": self.config.get("lr", 0.001)})
        row = {
            metrics.EPOCH: epoch,
            metrics.STEP: epoch * STEPS_PER_EPOCH,
            metrics.VALIDATION_ERROR: 0.02 + 10 * float(training["lr"]) / epoch,
            metrics.COST: 1.0 / epoch,
        }
        return {**row, metrics.HISTORY: [row], metrics.DIVERGED: False, "done": epoch == EPOCHS[-1]}


def ours(folder: Path, trials: int, sampler: str, trainable: type[Trivial] = Trivial, **more: Any) -> list[float]:
    """Run a search of the whole platform, with ``more`` settings; return the end of each trial, in seconds."""
    result = searches.run_ours(folder, trainable, study="digits-100", trials=trials, sampler=sampler, **more)
    return [path.stat().st_mtime for path in result.folder.trials.glob("t*.json")]


def bare(folder: Path, trials: int, *, reuse: bool) -> list[float]:
    """Run as many trials of bare Ray Tune; return the end of each."""
    space = {"lr": tune.loguniform(5e-4, 5e-3)}
    _, ended = searches.fit(Trivial, folder, space, num_samples=trials, reuse_actors=reuse)
    return [trial.ended for trial in ended]


def timed(run: Callable[[Path], list[float]], warm_up: int) -> tuple[float, float]:
    """Run a search; return the seconds between the ends of its warm-up and of its last trial, and all other seconds."""
    with searches.prepared() as folder:
        start = time.perf_counter()
        ends = sorted(run(folder))
        duration = time.perf_counter() - start
    measured = ends[-1] - ends[warm_up - 1]
    return measured, duration - measured


@benchmark(
    "What does the platform cost a trial that does nothing?",
    Option("--rounds", "searches of every kind", 2, 1),
    Option("--trials", "measured trials of each search", 30, 6),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    measured = options.trials
    fewer = max(4, measured // 3)  # a process per trial takes ten times as long
    reused = "bare Ray Tune, random search, actors reused"
    kinds: dict[str, tuple[int, Callable[[Path], list[float]]]] = {
        "ladder-search (TPE, ASHA, records, tracking)": (measured, lambda f: ours(f, WARM_UP + measured, "tpe")),
        "ladder-search with a random sampler": (measured, lambda f: ours(f, WARM_UP + measured, "random")),
        reused: (measured, lambda f: bare(f, WARM_UP + measured, reuse=True)),
        "bare Ray Tune, random search, a process per trial": (fewer, lambda f: bare(f, WARM_UP + fewer, reuse=False)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(options.rounds):
        for name, (_, run) in kinds.items():
            times[name].append(timed(run, WARM_UP))
    per_trial = {name: [seconds / kinds[name][0] for seconds, _ in of] for name, of in times.items()}
    rows: list[Row] = [
        {
            "search": name,
            **spread_cells("s per trial", per_trial[name]),
            "beyond bare, reused": median(per_trial[name]) - median(per_trial[reused]),
            "start, warm-up and end, s": median(rest for _, rest in times[name]),
            "trials measured": trials * options.rounds,
            "searches": options.rounds,
        }
        for name, (trials, _) in kinds.items()
    ]
    report.table("Seconds per trivial trial (wall time; as many at a time as there are cores)", rows)
    report.note(f"The first {WARM_UP} trials of every search are left out.")


if __name__ == "__main__":
    main()
