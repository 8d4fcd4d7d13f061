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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ray import tune

from ladder_search.console import Console
from ladder_search.driver import cluster

if TYPE_CHECKING:  # the rival's searches do without the driver
    from ladder_search.driver.search import SearchResult

ROOT = Path(__file__).resolve().parents[1]
NAME = "search"
STATE = "state.json"


@contextmanager
def prepared() -> Iterator[Path]:
    """Yield a temporary folder for results; Ray's processes find the checkout and join no other cluster."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ladder-search-benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def run_ours(folder: Path, trainable: type[tune.Trainable], **settings: Any) -> SearchResult:
    """Run a search of the whole platform, as ``search.py`` does; raise ``RuntimeError`` unless all is stored."""
    # Imported here, because the rival's searches do without.
    from ladder_search.driver.search import run_search
    from ladder_search.driver.settings import SearchSettings
    from spaces import find_space

    chosen = SearchSettings(root=str(folder), name=NAME, **settings)
    console = Console(file=io.StringIO())
    result = run_search(chosen, trainable=trainable, find_space=find_space, console=console)
    if len(result.records) != chosen.trials or not result.stored or result.problems:
        reasons = [record.reason for record in result.records]
        raise RuntimeError(f"{len(reasons)} of {chosen.trials} trials, stored: {result.stored}, {result.problems}")
    return result


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTrial:
    """One ended trial of a plain Tune experiment; times are seconds since 1970."""

    config: dict[str, Any]
    result: dict[str, Any]
    begun: float
    ended: float


class _Recorder(tune.Callback):
    """Records the ended trials; costs microseconds."""

    def __init__(self) -> None:
        self.trials: list[EndedTrial] = []
        self._begun: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._begun.setdefault(trial.trial_id, time.time())

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        begun, ended = self._begun[trial.trial_id], time.time()
        self.trials.append(EndedTrial(config=trial.config, result=trial.last_result, begun=begun, ended=ended))


def fit(
    trainable: Any, folder: Path, param_space: dict[str, Any], *, callbacks: Sequence[tune.Callback] = (), **how: Any
) -> tuple[float, list[EndedTrial]]:
    """Run a plain Tune experiment, one CPU core per trial, on its own Ray; return the seconds of ``fit`` alone and the
    trials in the order of their ends."""
    recorder = _Recorder()
    with cluster.connected(None, print), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space=param_space,
            tune_config=tune.TuneConfig(**how),
            run_config=tune.RunConfig(
                name="experiment",
                storage_path=str(folder),
                callbacks=[recorder, *callbacks],
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, num_to_keep=1),
            ),
        )
        start = time.perf_counter()
        results = tuner.fit()
        duration = time.perf_counter() - start
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trial(s) failed, the first with: {results.errors[0]}")
    return duration, recorder.trials


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


def memory(pid: int) -> dict[str, int] | None:
    """Return peak (VmHWM) and present sizes of a process in bytes, as named by Linux; None if it has ended."""
    try:
        lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    sizes = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}
    return sizes if "VmHWM" in sizes else None
