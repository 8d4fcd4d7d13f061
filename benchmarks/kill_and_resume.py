"""Kill a search repeatedly, resume it, and count lost and duplicated results.

One search runs undisturbed. Others with the same seed are killed with SIGKILL at random moments and resumed; each time
the driver, the trial processes, Ray's node process or everything (with the tracking writer) is killed. With one trial
at a time, all must end with bit-identical trials, and the store with every point once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Option, Report, Row, benchmark
from benchmarks.searches import ROOT, descendants
from benchmarks.stored import lost_and_doubled, stored_points, stored_runs

STUDY = "digits-100"
TARGETS = ("driver", "trials", "raylet", "everything")
SEARCH = (
    STUDY, "--name", "s", "--max-concurrent", "1", "--compile", "off", "--set", "model.widths=64,20,10",
    "--set", "model.lambda_=1000,10,0.1", "--set", "model.noise_std=0.3,0.3,0.3",
)  # fmt: skip
"""Trials of a second or two, one at a time."""
LONGEST = 600.0
"""Longest run of the search process, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Comparison of a study folder and its store with those of the undisturbed search."""

    trials_lost: int
    trials_doubled: int
    """Keys with more than one Optuna trial or MLflow run."""
    trials_changed: int
    """Trials with other parameters, other errors or another state."""
    points_lost: int
    """Lost points of our records; ``trials_changed`` verifies that the records are complete."""
    points_doubled: int
    running_left: int
    """Unfinished Optuna trials and MLflow runs."""
    best_equal: bool

    @property
    def perfect(self) -> bool:
        values = asdict(self)
        return bool(values.pop("best_equal")) and not any(values.values())


def examine(broken: Path, whole: Path) -> Found:
    """Compare two ``results`` folders, each with one search ``s`` of the study ``digits-100``."""
    ours, theirs = _records(broken), _records(whole)
    states, store = optuna_states(broken / "s" / "optuna.journal"), f"sqlite:///{broken / 'mlflow.db'}"
    stored = stored_runs(store, STUDY)
    expected = {
        (f"{STUDY}/s/{key}", name, row["epoch"]): value
        for key, record in ours.items()
        for row in record["epochs"]
        for name, value in row.items()
        if name != "epoch" and value is not None
    }
    points = [point for point in stored_points(store, STUDY) if not point[0].endswith("/search")]
    lost, doubled = lost_and_doubled(expected, points)
    counts, runs = Counter(key for key, _ in states), Counter(run.tags.get("trial") for run in stored)
    running = [state for _, state in states if state in ("RUNNING", "WAITING")]
    return Found(
        trials_lost=len(theirs.keys() - ours.keys()),
        trials_doubled=sum(counts[key] > 1 or runs[key] > 1 for key in ours),
        trials_changed=sum(_essence(ours[key]) != _essence(theirs[key]) for key in ours.keys() & theirs.keys()),
        points_lost=lost,
        points_doubled=doubled,
        running_left=len(running) + sum(not run.ended for run in stored),
        best_equal=_best(ours) == _best(theirs),
    )


def _records(results: Path) -> dict[str, dict[str, Any]]:
    records = (
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((results / "s" / "trials").glob("*.json"))
    )
    return {record["key"]: record for record in records}


def _essence(record: dict[str, Any]) -> Any:
    """Return a record without the place and the duration of its training."""
    rows = [{name: value for name, value in row.items() if name != "step_time_ms"} for row in record["epochs"]]
    fields = {name: value for name, value in record.items() if name not in ("seconds", "checkpoint")}
    return {**fields, "epochs": rows}


def _best(records: dict[str, dict[str, Any]]) -> float | None:
    complete = [record["validation_error"] for record in records.values() if record["state"] == "COMPLETE"]
    return min(complete, default=None)


def optuna_states(journal: Path) -> list[tuple[str, str]]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    studies = [optuna.load_study(storage=storage, study_name=name) for name in optuna.get_all_study_names(storage)]
    return [(trial.user_attrs["key"], trial.state.name) for study in studies for trial in study.get_trials()]


def environment(**more: str) -> dict[str, str]:
    """Return a user's environment, with one thread per process."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LADDER_SEARCH_OPT"))}
    return {**base, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def begin(command: list[str], folder: Path, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start an interpreter with arguments in its own session; its output is appended to ``log``."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


class Life:
    """A search in a separate process."""

    begin: Callable[..., Any] = staticmethod(begin)

    def __init__(
        self, folder: Path, *arguments: str, program: Sequence[str] = (str(ROOT / "search.py"),), **more: str
    ) -> None:
        self.folder = folder
        self.log = folder / "out.txt"
        self.log.touch()
        self.start = self.log.stat().st_size
        self.process = self.begin([*program, *arguments], folder, environment(**more), self.log)

    def out(self) -> str:
        return self.log.read_bytes()[self.start :].decode(errors="replace")

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until ``holds`` returns true or the search has ended."""
        end = time.monotonic() + LONGEST
        while not holds() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)

    def kill(self, target: str) -> None:
        """Send SIGKILL to one kind of process, or to everything that the search has started."""
        family = {self.process.pid: ""}
        if target != "driver":
            family |= {pid: command for pid, (_, command) in descendants(self.process.pid).items()}
        if target in ("trials", "raylet"):
            part = "ray::ResourceTrainable" if target == "trials" else "/raylet/raylet "
            family = {pid: name for pid, name in family.items() if part in name[:400].partition(" --")[0] + " "}
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ended(self) -> int:
        return self.process.wait(LONGEST)

    def left(self, wait: float = 20.0, *, but: str = "") -> list[str]:
        """Return command lines of an ended search's processes that remain after ``wait`` seconds, except ``but``."""
        end = time.monotonic() + wait
        while True:
            lines = [line for _, line in descendants(self.process.pid).values()]
            remaining = [line for line in lines if not (but and re.match(but, line))]
            if not remaining or time.monotonic() > end:
                return remaining
            time.sleep(0.2)


def torment(folder: Path, arguments: Sequence[str], kills: int, dice: random.Random, spread: float) -> Row:
    """Run a search in ``folder`` to its end, with ``kills`` kills and resumes; each kill occurs up to ``spread``
    seconds after the search has begun its work, or after the kill of its trial processes. Return what happened."""
    killed: Counter[str] = Counter()
    life, lives = Life(folder, *arguments), 1
    while lives <= kills + 1:
        life.wait_until((folder / "results" / "s" / "study.json").exists)  # from here on the folder contains a study
        if killed.total() < kills:
            time.sleep(dice.uniform(0.0, spread))
            if life.process.poll() is None:
                target = dice.choice(TARGETS)
                life.kill(target)
                killed[target] += 1
                if target == "trials":
                    continue  # Ray starts another process for the trial
        if life.ended() == 0:
            return {**{f"{target} killed": killed[target] for target in TARGETS}, "lives": lives}
        lives += 1
        life = Life(folder, *arguments, "--resume")
    raise RuntimeError(f"the search does not end:\n{life.out()}")


@benchmark(
    "What does a search lose that is killed and resumed?",
    Option("--searches", "searches to interrupt", 4, 1),
    Option("--kills", "kills of each", 4, 1),
    Option("--scheduler", "scheduler of the searches", "asha"),
    Option("--sampler", "sampler of the searches", "tpe"),
    Option("--dice", "seed of moments and targets", 0),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    sizes = ("--trials", "3", "--epochs", "60") if options.quick else ("--trials", "6", "--epochs", "300")
    line = [*SEARCH, *sizes, "--scheduler", options.scheduler, "--sampler", options.sampler]
    dice = random.Random(options.dice)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ladder-search-kills-", ignore_cleanup_errors=True) as place:
        folders = [Path(place) / str(number) for number in range(options.searches + 1)]
        for folder in folders:
            folder.mkdir()
        undisturbed, *broken = folders
        start = time.monotonic()
        life = Life(undisturbed, *line)
        if life.ended() != 0:
            raise SystemExit(life.out())
        duration = time.monotonic() - start
        report.note(f"Undisturbed, `search.py {' '.join(line)}` takes {duration:.0f} s.")
        for number, folder in enumerate(broken, start=1):
            happened = torment(folder, line, options.kills, dice, duration / 2)
            diff = asdict(examine(folder / "results", undisturbed / "results"))
            best = {"best value": "equal" if diff.pop("best_equal") else "another"}
            losses = {name.replace("_", " "): value for name, value in diff.items()}
            rows.append({"search": number, **happened, **losses, **best})
    report.table("Against the undisturbed search", rows)
    report.note(f"{sum(int(row[f'{target} killed'] or 0) for row in rows for target in TARGETS)} kills, SIGKILL each.")


if __name__ == "__main__":
    main()
