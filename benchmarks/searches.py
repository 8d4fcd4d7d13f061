"""Whole searches for the benchmarks, each with a Ray of its own and in a folder that is removed afterwards."""

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
    """A temporary folder for results; Ray's processes find the checkout and join no other cluster."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ladder-search-benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def quiet() -> Console:
    """A console whose lines nobody reads."""
    return Console(file=io.StringIO())


class Resettable(tune.Trainable):
    """A trial that does no work of its own; subclasses say what a step returns."""

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
    """Notes when each trial ended; costs microseconds."""

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
    """Run a plain Tune experiment, one CPU core per trial, on a Ray of its own; return the seconds of ``fit`` alone."""
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
            begun = time.perf_counter()
            results = tuner.fit()
            taken = time.perf_counter() - begun
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trial(s) failed, the first with: {results.errors[0]}")
    return taken


def process_table() -> dict[int, tuple[int, str]]:
    """Every process of this machine: id -> (its parent's id, its command line)."""
    found: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
                parent = int((path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found[int(path.name)] = (parent, command)
    return found


def descendants() -> dict[int, tuple[int, str]]:
    """This process's children, their children and so on: id -> (its parent's id, its command line)."""
    table = process_table()
    mine, found = {os.getpid()}, dict[int, tuple[int, str]]()
    grown = True
    while grown:
        new = {pid: one for pid, one in table.items() if one[0] in mine and pid not in mine}
        found |= new
        mine |= set(new)
        grown = bool(new)
    return found


class Watching:
    """Looks at something every ``period`` seconds, in a thread of its own, for as long as the context lasts."""

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
        """What is done each time."""
        raise NotImplementedError

    def _watch(self) -> None:
        while not self._stop.wait(self.period):
            self.look()


def cpu_seconds(pid: int) -> float:
    """CPU time that a living process has used so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
