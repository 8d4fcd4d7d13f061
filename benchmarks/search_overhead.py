"""The overhead of the platform per trial: seconds per trivial trial of a whole search.

Ours is ``run_search`` as in ``search.py``: Optuna's TPE with its journal, ASHA, records on disk, the spool and its
writer to SQLite. Bare Ray Tune draws at random, without searcher, scheduler, records or loggers. Trials report one to
three times and leave a checkpoint. Starting and ending (Ray, imports, first processes, the first trials of a search)
are reported separately from the seconds per trial.

    python -m benchmarks.search_overhead
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from benchmarks import searches
from benchmarks.measure import Option, Row, Spread, benchmark, spread_cells
from benchmarks.searches import EndTimes, Resettable
from ladder_search import metrics
from ladder_search.driver.search import run_search
from ladder_search.driver.settings import SearchSettings
from spaces import find_space

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
    settings = SearchSettings(
        study="digits-100",
        trials=trials,
        sampler=sampler,  # type: ignore[arg-type]
        root=str(folder),
        name="search",
        **more,
    )
    result = run_search(settings, trainable=trainable, find_space=find_space, console=searches.quiet())
    if len(result.records) != trials or not result.stored or result.problems:
        raise RuntimeError(f"{len(result.records)} of {trials} trials, stored: {result.stored}, {result.problems}")
    return [path.stat().st_mtime for path in result.folder.trials.glob("t*.json")]


def bare(folder: Path, trials: int, *, reuse: bool) -> list[float]:
    """Run as many trials of bare Ray Tune; return the end of each."""
    ends = EndTimes()
    space = {"lr": tune.loguniform(5e-4, 5e-3)}
    searches.fit(Trivial, folder, callbacks=[ends], param_space=space, num_samples=trials, reuse_actors=reuse)
    return ends.ends


OPTIONS = (
    Option("--rounds", "searches of every kind", 2, 1),
    Option("--trials", "measured trials of each search", 30, 6),
)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "What does the platform cost a trial that does nothing?"
    with benchmark(question, __doc__, *OPTIONS, one_process=False, arguments=arguments) as (report, options):
        rounds, measured = options.rounds, options.trials
        fewer = max(4, measured // 3)  # a process per trial takes ten times as long
        kinds: dict[str, tuple[int, Callable[[Path, int], list[float]]]] = {
            "ladder-search (TPE, ASHA, records, tracking)": (measured, lambda f, n: ours(f, n, "tpe")),
            "ladder-search with a random sampler": (measured, lambda f, n: ours(f, n, "random")),
            "bare Ray Tune, random search, actors reused": (measured, lambda f, n: bare(f, n, reuse=True)),
            "bare Ray Tune, random search, a process per trial": (fewer, lambda f, n: bare(f, n, reuse=False)),
        }
        per_trial: dict[str, list[float]] = {name: [] for name in kinds}
        rest: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, (trials, run) in kinds.items():
                with searches.prepared() as folder:
                    started = time.perf_counter()
                    ends = sorted(run(folder, WARM_UP + trials))
                    duration = time.perf_counter() - started
                per_one = (ends[-1] - ends[WARM_UP - 1]) / trials
                per_trial[name].append(per_one)
                rest[name].append(duration - per_one * trials)
        reused = statistics.median(per_trial["bare Ray Tune, random search, actors reused"])
        rows: list[Row] = []
        for name, (trials, _) in kinds.items():
            spread = Spread.of(per_trial[name])
            rows.append(
                {
                    "search": name,
                    **spread_cells("s per trial", spread),
                    "beyond bare, reused": spread.median - reused,
                    "start, warm-up and end, s": statistics.median(rest[name]),
                    "trials measured": trials * rounds,
                    "searches": rounds,
                }
            )
        report.table("Seconds per trivial trial (wall time; as many at a time as there are cores)", rows)
        report.note(f"The first {WARM_UP} trials of every search are left out.")


if __name__ == "__main__":
    main()
