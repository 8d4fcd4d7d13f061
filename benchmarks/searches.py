"""Whole searches for the benchmarks, each with its own Ray and in a temporary folder."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from ray import tune

from ladder_search.console import Console
from ladder_search.driver import cluster

ROOT = Path(__file__).resolve().parents[1]
STATE = "state.json"


@contextmanager
def prepared() -> Iterator[Path]:
    """Yield a temporary folder for results; Ray's processes find the checkout and join no other cluster."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ladder-search-benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def quiet() -> Console:
    return Console(file=io.StringIO())


class Resettable(tune.Trainable):
    """A trial without work; subclasses define the result of a step."""

    def setup(self, config: dict[str, Any], dataset: object = None) -> None:
        self.steps = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.steps = 0
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / STATE).write_text(json.dumps({"steps": self.steps}), encoding="utf-8")

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.steps = int(json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))["steps"])


class EndTimes(tune.Callback):
    """Records the end of each trial; costs microseconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ends.append(time.time())


def fit(
    trainable: Any,
    folder: Path,
    *,
    callbacks: list[tune.Callback],
    param_space: Mapping[str, Any] | None = None,
    **how: Any,
) -> float:
    """Run a plain Tune experiment, one CPU core per trial, on its own Ray; return the seconds of ``fit`` alone."""
    with cluster.connected(None, print):
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space=dict(param_space or {}),
            tune_config=tune.TuneConfig(**how),
            run_config=tune.RunConfig(
                name="experiment",
                storage_path=str(folder),
                callbacks=callbacks,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, num_to_keep=1),
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            results = tuner.fit()
            duration = time.perf_counter() - start
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trial(s) failed, the first with: {results.errors[0]}")
    return duration


def process_table() -> dict[int, tuple[int, int, str]]:
    """Return every running process of this machine: id -> (id of its parent, its session, its command line)."""
    processes: dict[int, tuple[int, int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # ended meanwhile
            # The fields after the name in brackets: state, parent, group, session.
            state, parent, _, session, *_ = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if state != "Z":
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                processes[int(path.name)] = int(parent), int(session), command
    return processes


def descendants(root: int) -> dict[int, tuple[int, str]]:
    """Return the descendants of a process or of its session: id -> (id of the parent, command line)."""
    table = process_table()
    family = {pid for pid, (_, session, _) in table.items() if session == root} | {root}
    while more := {pid for pid, (parent, _, _) in table.items() if parent in family} - family:
        family |= more
    return {pid: (table[pid][0], table[pid][2]) for pid in family - {root} if pid in table}


class Watching:
    """Calls ``look`` every ``period`` seconds in a separate thread, as long as the context lasts."""

    period = 0.5

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        raise NotImplementedError

    def _watch(self) -> None:
        while not self._stop.wait(self.period):
            self.look()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a running process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
