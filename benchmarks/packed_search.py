"""How many trials per minute does a whole search do: packed, one trial per process, and as plain Ray Tune?

Each search is a separate command, timed from the start of its process to its end. Ours is ``search.py`` as typed by a
user: Optuna's random sampler with its journal, records, checkpoints, and tracking to MLflow's SQLite store until the
store is complete. The rivals (``benchmarks.rivals``) are Ray Tune with the same list of configurations, one process per
core, a plain loop, eager or compiled, nothing recorded. With FIFO all sides do the same work. With ASHA (the same rungs
and reduction) the stopped trials depend on their order; the table has the epochs that each side trained. Run the script
twice, so that compilers find their results on disk.

CPU times are those of the search's processes, sampled twice a second; "idle" is that of the machine during the search,
and meaningful only without other load. In the tables of memory, "private" is memory of this process alone, and "shared"
its mapping of the object store, which contains the training set once per node; the first run compiles, later ones load
programs from disk and have a lower peak.

    python -m benchmarks.packed_search
    python -m benchmarks.packed_search --study mnist-100-full --trials 2 --epochs 1 --rounds 1 --no-rivals
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import optuna

from benchmarks import searches
from benchmarks.measure import Option, Report, Row, benchmark, machine_seconds, say, spread_cells
from benchmarks.rivals import Ended, Plan
from ladder_search.cores import usable_cores
from ladder_search.data import datasets
from ladder_search.driver.samplers import sampler_for
from ladder_search.driver.schedulers import rungs
from ladder_search.driver.settings import SearchSettings
from ladder_search.driver.space import SearchSpace
from ladder_search.models import find_family
from ladder_search.record.folder import StudyFolder
from spaces import find_space

LOG = "log"
TRIAL, HOST, COMPILER, RAY = "trial", "host of a pack", "compiler", "Ray's own"
ROLES = {
    TRIAL: ("Trainable",),
    HOST: ("ray::PackHost",),
    "desk": ("ray::Desk",),
    "driver": ("search.py",),
    "writer": ("ladder_search.tracking.writer",),
    COMPILER: ("torch/_inductor", "g++", "cc1plus", "collect2", "/ld ", "/as "),
    RAY: (),
}
"""Kind of process -> parts of its command line."""
SOLO = "ladder-search --slots 1"
EAGER, COMPILED = "Ray Tune, plain loop", "Ray Tune, plain loop compiled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    trials: dict[str, Ended]
    begun: float
    wall: float
    cpu: float
    idle: float
    """Unused share of the machine's cores during the search."""
    said: list[str]
    """Its output about packs."""
    references: list[str]
    """Keys of the paper's points."""
    memory: dict[tuple[str, int], list[int]]
    """See ``Watch.memory``."""

    @property
    def per_minute(self) -> float:
        return 60 * len(self.trials) / self.wall

    @property
    def before(self) -> float:
        """Seconds until the start of the first trial."""
        return min(trial["begun"] for trial in self.trials.values()) - self.begun

    @property
    def after(self) -> float:
        """Seconds after the end of the last trial."""
        return self.begun + self.wall - max(trial["ended"] for trial in self.trials.values())

    @property
    def epochs(self) -> int:
        return sum(trial["epochs"] for trial in self.trials.values())


class Watch(searches.Watching):
    """Samples the CPU time and the memory of all processes that a command starts (Linux)."""

    def __init__(self) -> None:
        self._cpu: dict[int, float] = {}
        self.memory: dict[tuple[str, int], list[int]] = {}
        """(role, process) -> peaks of its resident, private and shared bytes."""

    def look(self) -> None:
        family = searches.descendants(os.getpid())
        for pid in family:
            self._cpu[pid] = max(self._cpu.get(pid, 0.0), searches.cpu_seconds(pid))
            sizes, key = searches.memory(pid), (_role(pid, family), pid)
            if sizes is not None:
                now = [sizes[name] for name in ("VmHWM", "RssAnon", "RssShmem")]
                self.memory[key] = [max(pair) for pair in zip(self.memory.get(key, now), now, strict=True)]

    @property
    def cpu(self) -> float:
        return sum(self._cpu.values())


def _role(pid: int, family: Mapping[int, tuple[int, str]]) -> str:
    parent, command = family[pid]
    for role, parts in ROLES.items():
        for part in parts:
            if part in command:
                # The compiler's helpers are forks of the training process and keep its name.
                forked = role in (TRIAL, HOST) and part in family.get(parent, (0, ""))[1]
                return COMPILER if forked else role
    return RAY


def make_plan(settings: SearchSettings) -> Plan:
    """Write the configurations that our search with a random sampler will train, for the rivals."""
    study = settings.resolved_study()
    dataset = datasets.load(study.data)
    spec = study.trial(seed=settings.seed, label_seed=settings.label_seed, draws=settings.draws)
    space = SearchSpace(find_space(find_family(study.family).space), study, spec)
    configurations = [point.settings for point in space.points()][: settings.trials]
    optuna_study = optuna.create_study()
    for number in range(len(configurations), settings.trials):
        optuna_study.sampler = sampler_for("random", settings.seed, number)
        configurations.append(space.settings(optuna_study.ask()))
    epochs, at = study.training.epochs, rungs(study.training.epochs, spec.member(dataset).steps_per_epoch, study.stop)
    return Plan(
        dataset=dataset.name,
        epochs=epochs,
        report_at=sorted({*range(study.report_every, epochs, study.report_every), *at, epochs}),
        rungs=at,
        configurations={f"t{number:04d}": settings for number, settings in enumerate(configurations)},
        scheduler=settings.scheduler,
        compiled=False,
    )


def timed(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a command; return its start, its seconds, its processes' CPU seconds and memory, and the idle share."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    log = folder / LOG
    before, began, clock = machine_seconds(), time.time(), time.perf_counter()
    with Watch() as watch, log.open("w", encoding="utf-8") as output:
        process = subprocess.run(
            [sys.executable, *command], cwd=searches.ROOT, env=environment, stdout=output, stderr=output
        )
        wall = time.perf_counter() - clock
    total, idle = (now - earlier for now, earlier in zip(machine_seconds(), before, strict=True))
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    share = idle / total if total else 0.0
    return {"begun": began, "wall": wall, "cpu": watch.cpu, "memory": watch.memory, "idle": share}


def ours(settings: SearchSettings, slots: str, folder: Path, plan: Plan) -> Searched:
    options = [settings.study, "--trials", str(settings.trials), "--scheduler", settings.scheduler, "--slots", slots]
    if settings.epochs is not None:
        options += ["--epochs", str(settings.epochs)]
    place = ["--sampler", "random", "--root", str(folder), "--name", searches.NAME]
    facts = timed(["search.py", *options, *place], folder)
    study_folder = StudyFolder(folder / searches.NAME)
    records = {record.key: record for record in study_folder.read_trials()}
    trained = {key: record.settings for key, record in records.items()}
    if json.dumps(trained, sort_keys=True) != json.dumps(plan["configurations"], sort_keys=True):
        raise RuntimeError(f"--slots {slots} did not train the configurations of the plan")
    trials: dict[str, Ended] = {}
    for key, record in records.items():
        ended = (study_folder.trials / f"{key}.json").stat().st_mtime
        trials[key] = {
            "key": key,
            "epochs": len(record.epochs),
            "error": record.validation_error if record.validation_error is not None else math.nan,
            "begun": ended - record.seconds,
            "ended": ended,
        }
    said = [line for line in (folder / LOG).read_text(encoding="utf-8").splitlines() if line.startswith("Packs")]
    references = [key for key, record in records.items() if record.is_reference]
    return Searched(trials=trials, said=said, references=references, **facts)


def rival(plan: Plan, folder: Path, *, compiled: bool) -> Searched:
    (folder / "plan.json").write_text(json.dumps({**plan, "compiled": compiled}), encoding="utf-8")
    facts = timed(["-m", "benchmarks.rivals", str(folder)], folder)
    trials = {one["key"]: one for one in json.loads((folder / "result.json").read_text(encoding="utf-8"))}
    return Searched(trials=trials, said=[], references=[], **facts)


def run_side(name: str, settings: SearchSettings, plan: Plan) -> Searched:
    """Run one search of a side in a temporary folder, and check that it did the work."""
    with tempfile.TemporaryDirectory(prefix="ladder-search-benchmark-", ignore_cleanup_errors=True) as place:
        if name in (EAGER, COMPILED):
            result = rival(plan, Path(place), compiled=name == COMPILED)
        else:
            result = ours(settings, name.rpartition(" ")[2], Path(place), plan)
    if len(result.trials) != settings.trials:
        raise RuntimeError(f"{name}: {len(result.trials)} of {settings.trials} trials have ended")
    if settings.scheduler == "fifo" and result.epochs != settings.trials * plan["epochs"]:
        raise RuntimeError(f"{name}: {result.epochs} epochs were trained instead of {settings.trials * plan['epochs']}")
    return result


def table(found: Mapping[str, list[Searched]], cores: int) -> list[Row]:
    """Return one line per side."""

    def over(name: str, other: str) -> float | None:
        if other not in found:
            return None
        return median(a.per_minute / b.per_minute for a, b in zip(found[name], found[other], strict=True))

    return [
        {
            "search": name,
            **spread_cells("trials/min", [one.per_minute for one in runs]),
            "over plain": over(name, EAGER),
            "over compiled": over(name, COMPILED),
            "whole, s": median([one.wall for one in runs]),
            "start, s": median([one.before for one in runs]),
            "trials, s": median([one.wall - one.before - one.after for one in runs]),
            "end, s": median([one.after for one in runs]),
            "epochs": median([one.epochs for one in runs]),
            "CPU s": median([one.cpu for one in runs]),
            "idle": median([one.idle for one in runs]),
            "own CPU / cores": median([one.cpu / one.wall / cores for one in runs]),
            "best error": median([min(trial["error"] for trial in one.trials.values()) for one in runs]),
            "n": len(runs),
        }
        for name, runs in found.items()
    ]


def memory_table(run: Searched) -> list[Row]:
    """Return one line per kind of process."""
    rows: list[Row] = []
    for role in ROLES:
        peaks = [[size / 2**20 for size in sizes] for (of, _), sizes in run.memory.items() if of == role]
        if peaks:
            resident, private, shared = zip(*peaks, strict=True)
            rows.append(
                {
                    "process": role,
                    "processes": len(peaks),
                    "peak MiB": max(resident),
                    "private MiB": max(private),
                    "shared MiB": max(shared),
                    "all of them, private MiB": sum(private),
                }
            )
    return rows


def agreement(packed: Searched, solo: Searched) -> str:
    """Return a text on the ranks of the paper's points, and on the distances between errors of the same trial, without
    trials that one of the two stopped earlier."""

    def order(one: Searched) -> list[str]:
        return sorted(solo.references, key=lambda key: one.trials[key]["error"])

    both = [key for key in solo.trials if solo.trials[key]["epochs"] == packed.trials[key]["epochs"]]
    apart = {key: abs(packed.trials[key]["error"] - solo.trials[key]["error"]) for key in both}
    same = "the same" if order(packed) == order(solo) else "ANOTHER"
    return (
        f"the paper's points rank {same} ({' before '.join(order(packed))}); of {len(both)} trials of equal length "
        f"{sum(value == 0 for value in apart.values())} have the same error, the largest difference is "
        f"{100 * max(apart.values()):.2g} points."
    )


@benchmark(
    "How many trials per minute does a whole search do?",
    Option("--study", "what is searched", "digits-100"),
    Option("--trials", "trials of every search", 64, 4),
    Option("--epochs", "length of a trial (the study's; quick: 10)", None, 10, {"type": int}),
    Option("--rounds", "searches of every side", 3, 1),
    Option("--slots", "sides of ours", ("auto", "1"), ("1",), {"nargs": "+", "metavar": "K"}),
    Option("--schedulers", "schedulers", ("fifo", "asha"), ("fifo",), {"nargs": "+", "choices": ("fifo", "asha")}),
    Option("--no-rivals", "measure ours alone", False),
    Option("--no-compile", "leave the compiled rival out", False),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    # Quick runs do not compile, which takes up to a minute per program the first time.
    rivals = [] if options.no_rivals else [EAGER] if options.quick or options.no_compile else [EAGER, COMPILED]
    sides = [*(f"ladder-search --slots {k}" for k in options.slots), *rivals]
    for scheduler in options.schedulers:
        settings = SearchSettings(
            study=options.study, trials=options.trials, epochs=options.epochs, sampler="random", scheduler=scheduler
        )
        plan = make_plan(settings)
        results: dict[str, list[Searched]] = {name: [] for name in sides}
        for number in range(options.rounds):
            for name in sides:
                results[name].append(run_side(name, settings, plan))
                say(f"{scheduler} {number + 1}: {name}, {results[name][-1].wall:.0f} s")
        title = f"{options.study}, {scheduler}: {options.trials} trials of {plan['epochs']} epochs"
        report.table(title, table(results, usable_cores()))
        for name in sides:
            solo = results.get(SOLO)
            if name not in (EAGER, COMPILED):
                report.table(f"{title}, {name}: memory by kind of process", memory_table(results[name][-1]))
            for line in results[name][-1].said:
                report.note(f"{scheduler}, {name}: {line}")
            if name not in (SOLO, EAGER, COMPILED) and solo:
                report.note(f"{scheduler}, {name} and --slots 1: {agreement(results[name][-1], solo[-1])}")


if __name__ == "__main__":
    main()
