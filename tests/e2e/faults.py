"""Faults of a search, each produced for real in a search that runs as a user starts it; the losses are counted.

The fault affects the processes, the disk or the clock of a search while trials train. Afterwards the study folder, the
journal and the store are read: a trial is lost if it did not end as it would have, a metric point if the store lacks
it; a point is doubled if the store has it twice. Epochs are trained again if the last checkpoint was written before the
fault. The numbers of every trial are compared, bit for bit, with those of the same configuration without a fault.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kill_and_resume import Life, environment, optuna_states
from benchmarks.searches import process_table
from benchmarks.stored import Point, lost_and_doubled, stored_points, stored_runs
from ladder_search import metrics
from ladder_search.data import datasets
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from trainables import PackTrainable

SAVED = 50
"""Epochs between two checkpoints of a trial, which also come with its last epoch and with a notice."""
EPOCHS = 160
"""Of 10 updates each."""
NETWORK = (
    "--set=model.widths=64,20,10", "--set=model.lambda_=1000,10,0.1", "--set=model.noise_std=0.3,0.3,0.3",
    "--set=stop.failure_error=1",
)  # fmt: skip
"""A small one: an epoch takes a hundredth of a second; no trial is too bad to go on."""
FIXED_ONLY = ("--trials", "2")
"""The published configuration and the supervised baseline: no trial is stopped early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What a fault has cost."""

    trials_lost: int
    points_lost: int
    points_doubled: int
    epochs_again: int
    """Trained a second time, since the last checkpoint; nowhere recorded twice."""
    differing: int
    """Trials whose numbers are not those of a run without faults."""


class Search(Life):
    """A search that runs, with what is needed to hurt it and to count what that cost."""

    def __init__(
        self, folder: Path, *arguments: str, root: Path | None = None, traces: Path | None = None, **more: str
    ) -> None:
        self.root = root or folder / "results"
        self.study = StudyFolder(self.root / "s")
        traces = traces or folder
        self._trace, self._processes = traces / "epochs.txt", traces / "trials.txt"
        self._packed = "--slots" in arguments
        length = () if "--epochs" in arguments else ("--epochs", str(EPOCHS))
        super().__init__(
            folder,
            *("digits-100", "--name", "s", "--compile", "off", "--root", str(self.root), *NETWORK, *length, *arguments),
            program=("-m", "tests.e2e.watched_search"),
            **watched(traces),
            WATCHED_SAVED=str(SAVED),
            COLUMNS="120",
            **more,
        )

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill("everything")
        self.process.wait()

    def trained(self) -> list[tuple[str, int, int]]:
        """Every epoch trained so far: trial, epoch, process."""
        lines = self._trace.read_text(encoding="utf-8").splitlines() if self._trace.exists() else []
        return [(key, int(epoch), int(pid)) for key, epoch, pid in map(str.split, lines)]

    def processes(self) -> list[tuple[str, int, bool]]:
        """A trial's own process whenever it began to train: trial, process, whether PyTorch is in it."""
        lines = self._processes.read_text(encoding="utf-8").splitlines() if self._processes.exists() else []
        return [(key, int(pid), torch == "1") for key, pid, torch in map(str.split, lines)]

    def wait_for(self, key: str, epoch: int, other_than: int = 0) -> int:
        """Wait until a process other than one has trained the trial to the epoch; return that process."""
        found: list[int] = []

        def reached() -> bool:
            found[:] = [p for of, at, p in self.trained() if of == key and at >= epoch and p != other_than]
            return bool(found)

        self.wait_until(reached)
        assert found, f"{key} did not come to epoch {epoch}:\n{self.out()}"
        return found[-1]

    def losses(self, *, trials: int, failing: int = 0) -> Losses:
        """Count what an ended search of so many trials lost; ``failing`` of them cannot be trained anyway."""
        records = self.study.read_trials()
        expected = {
            (f"digits-100/s/{record.key}", name, row[metrics.EPOCH]): value
            for record in records
            for row in record.epochs
            for name, value in row.items()
            if name != metrics.EPOCH and value is not None
        }
        lost, doubled = lost_and_doubled(expected, self.points())
        trained = self.trained()
        running = sum(not run.ended for run in stored_runs(self._store, "digits-100"))
        running += sum(state in ("RUNNING", "WAITING") for _, state in optuna_states(self.study.journal))
        return Losses(
            trials_lost=trials - failing - sum(record.state != "FAIL" for record in records) + running,
            points_lost=lost + sum(r.epochs[-1][metrics.EPOCH] - len(r.epochs) for r in records if r.epochs),
            points_doubled=doubled,
            epochs_again=len(trained) - len({(key, epoch) for key, epoch, _ in trained}),
            differing=sum(not as_undisturbed(record, packed=self._packed) for record in records),
        )

    def points(self) -> list[Point]:
        """Every metric point that the store has of a trial."""
        return [point for point in stored_points(self._store, "digits-100") if not point[0].endswith("/search")]

    @property
    def _store(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"


def watched(folder: Path) -> dict[str, str]:
    """Where the trials of a search leave their trace."""
    return {"WATCHED_EPOCHS": str(folder / "epochs.txt"), "WATCHED_TRIALS": str(folder / "trials.txt")}


def as_undisturbed(record: TrialRecord, *, packed: bool) -> bool:
    """Whether a trial's numbers are those of the same configuration trained here and now, alone.

    Bit for bit; one of a shared pack, whose sums are taken in another order, to a thousandth in its first 50 updates.
    """
    if not record.epochs:
        return True
    trial = PackTrainable.__new__(PackTrainable)  # without a directory of Ray's
    config = {
        "search": "",
        "key": record.key,
        "settings": record.settings,
        "desk": None,
        "keeper": None,
        "compiled": False,
        "report_every": 10,
        "report_at": [],
        "in_turn": False,
        "until": record.settings["training"]["epochs"],
        "threads": 1,
        "start": None,
    }
    trial.setup({**config, "device": "cpu"}, datasets.load(record.settings["data"]["dataset"]))
    rows: list[dict[str, Any]] = []
    while len(rows) < (5 if packed else len(record.epochs)):
        rows += trial.step()[metrics.HISTORY]
    if packed:
        pairs = zip(record.epochs[:5], rows, strict=False)
        return all(math.isclose(a[metrics.COST], b[metrics.COST], rel_tol=1e-3) for a, b in pairs)

    def numbers(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if name != metrics.STEP_TIME_MS}

    return all(numbers(a) == numbers(b) for a, b in zip(record.epochs, rows, strict=False))


def everything_at_once(folder: Path) -> tuple[Search, Losses]:
    """A notice, two kills, a trial without memory and a clock that steps, in one search of four trials."""
    with Search(folder, "--trials", "4", "--epochs", "100", WATCHED_GREEDY="1", WATCHED_CLOCK="2") as search:
        told = search.wait_for("t0000", 15)
        os.kill(told, signal.SIGTERM)
        os.kill(search.wait_for("t0001", 30), signal.SIGKILL)
        os.kill(search.wait_for("t0000", SAVED + 11, other_than=told), signal.SIGKILL)
        search.ended()
    return search, search.losses(trials=4, failing=1)


def worker_killed(folder: Path, times: int = 4) -> tuple[Search, Losses]:
    """SIGKILL to the process of one trial, each time after its next checkpoint: more often than Ray retries a trial."""
    search = Search(folder, *FIXED_ONLY, "--epochs", str(SAVED * times + 50))
    return _sent(signal.SIGKILL, search, [SAVED * number + SAVED + 11 for number in range(times)], trials=2)


def worker_told_to_leave(folder: Path, times: int = 4) -> tuple[Search, Losses]:
    """SIGTERM to the process of one trial, as with the notice of a spot machine."""
    search = Search(folder, *FIXED_ONLY)
    return _sent(signal.SIGTERM, search, [25 * number + 15 for number in range(times)], trials=2)


PACKED = ("--slots", "2", "--trials", "4", "--scheduler", "fifo")
"""Two trials in a pack: of four, the first and the third share the first core."""


def pack_host_killed(folder: Path, times: int = 2) -> tuple[Search, Losses]:
    """SIGKILL to the process that trains two trials as one pack."""
    search = Search(folder, *PACKED, "--epochs", str(SAVED * times + 50))
    return _sent(signal.SIGKILL, search, [SAVED * number + SAVED + 11 for number in range(times)], trials=4)


def _sent(what: signal.Signals, search: Search, at: Iterable[int], trials: int) -> tuple[Search, Losses]:
    """Send a signal to the process that trains the first trial, a new one each time, when it comes to these epochs."""
    with search:
        pid = 0
        for epoch in at:
            pid = search.wait_for("t0000", epoch, other_than=pid)
            os.kill(pid, what)
        search.ended()
    return search, search.losses(trials=trials)


def packed_trial_killed(folder: Path) -> tuple[Search, Losses]:
    """SIGKILL to the thin process of a trial that shares a pack."""
    with Search(folder, *PACKED) as search:
        search.wait_for("t0000", SAVED + 11)
        os.kill(next(pid for key, pid, _ in search.processes() if key == "t0000"), signal.SIGKILL)
        search.ended()
    return search, search.losses(trials=4)


def out_of_memory(folder: Path) -> tuple[Search, Losses]:
    """One suggestion of four requests more memory than there is."""
    with Search(folder, "--trials", "4", "--epochs", "50", WATCHED_GREEDY="1") as search:
        search.ended()
    return search, search.losses(trials=4, failing=1)


def memory_monitor(folder: Path) -> tuple[Search, Losses]:
    """The machine runs short of memory, and Ray ends the process of a trial to save the rest."""
    used, total = memory()
    monitor = {"RAY_memory_usage_threshold": f"{used / total + 0.1:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    with Search(folder, *FIXED_ONLY, **monitor) as search:
        workers = {search.wait_for("t0000", 30), search.wait_for("t0001", 30)}
        eaten: list[bytes] = []
        while workers <= process_table().keys() and memory()[0] < 0.8 * total:
            eaten.append(os.urandom(2**20) * 100)
        eaten.clear()
        search.ended()
    return search, search.losses(trials=2)


def memory() -> tuple[int, int]:
    """Used and installed memory of this machine in kB."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    available, total = (int(lines[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    return total - available, total


def clock_steps(folder: Path) -> tuple[Search, Losses]:
    """The wall clock of every process jumps by an hour, every two seconds, back and forth."""
    with Search(folder, *FIXED_ONLY, "--epochs", "250", WATCHED_CLOCK="2") as search:
        search.ended()
    return search, search.losses(trials=2)


def disk_full(folder: Path) -> tuple[Search, Losses]:
    """No room on the study's and the store's disk while trials checkpoint and report; later there is some again."""
    with small_disk(folder / "disk") as disk:
        with Search(folder, *FIXED_ONLY, "--epochs", "300", root=disk / "results") as search:
            search.wait_for("t0000", 75)
            filler = fill(disk)
            search.wait_for("t0000", 240)  # a checkpoint, and several rounds of the tracking writer
            filler.unlink()
            search.ended()
        losses = search.losses(trials=2)
        shutil.copytree(disk / "results", folder / "results", ignore=shutil.ignore_patterns("lock", "*.lock"))
        search.root, search.study = folder / "results", StudyFolder(folder / "results" / "s")
    return search, losses


def machine_lost(folder: Path, cluster: Machines) -> tuple[Search, Losses]:
    """A machine of this cluster is gone while it trains the first trial of a search."""
    with on_cluster(folder, cluster) as search:
        cluster.lose(search.wait_for("t0000", SAVED + 11))
        search.ended()
    return search, search.losses(trials=2)


def node_shut_down(folder: Path) -> tuple[Search, Losses]:
    """A machine of a cluster is shut down: SIGTERM to all of its processes at the same time."""
    with machines(folder, 2) as cluster, on_cluster(folder, cluster) as search:
        worker = search.wait_for("t0000", SAVED + 11)
        table = process_table()
        raylet = table[worker][0]
        for pid in [raylet, *(pid for pid, (parent, *_) in table.items() if parent == raylet)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        search.ended()
    return search, search.losses(trials=2)


@dataclass(frozen=True, slots=True)
class Machines:
    """A cluster that runs."""

    address: str
    folder: Path
    """Where trials on it leave their traces."""
    lose: Callable[[int], None]
    """Kill the machine of a process."""
    process: subprocess.Popen[str]
    """What holds it."""


def on_cluster(folder: Path, cluster: Machines, *more: str) -> Search:
    """Start a search that joins a cluster, as its user would."""
    joined = ("--address", cluster.address, "--storage", str(folder / "storage"), "--gpus-per-trial", "1")
    for trace in watched(cluster.folder).values():
        Path(trace).unlink(missing_ok=True)  # of an earlier search
    return Search(folder, *FIXED_ONLY, *joined, *more, traces=cluster.folder, RAY_AUTH_MODE="disabled")


@contextmanager
def machines(folder: Path, count: int, *, gpus: int = 1) -> Iterator[Machines]:
    """A cluster with a head that trains nothing."""
    command = [sys.executable, "-m", "tests.e2e.faults", str(count), str(gpus)]
    given = environment(RAY_AUTH_MODE="disabled", WATCHED_FAKE_GPU="1", **watched(folder))
    with subprocess.Popen(
        command, cwd=folder, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, encoding="utf-8",
    ) as holder:  # fmt: skip
        assert holder.stdin is not None and holder.stdout is not None

        def lose(pid: int) -> None:
            print(process_table()[pid][0], file=holder.stdin, flush=True)

        address = next(line for line in holder.stdout if line.startswith("address ")).split()[1]
        yield Machines(address, folder, lose, holder)


def hold_machines(count: int, gpus: int) -> None:
    """Run a cluster, each node with as many cores as GPUs, until standard input ends.

    Each line of it names a raylet whose machine is to be lost.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=gpus, num_gpus=gpus) for _ in range(count)]
    print("address", cluster.address, flush=True)
    for line in sys.stdin:
        (lost,) = (node for node in nodes if node.all_processes["raylet"][0].process.pid == int(line))
        cluster.remove_node(lost, allow_graceful=False)
    cluster.shutdown()


@contextmanager
def small_disk(place: Path, size: str = "48m") -> Iterator[Path]:
    """A file system of its own, in memory. Raises ``OSError`` where that is not allowed."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        raise PermissionError("a small disk can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, room: int = 8192) -> Path:
    """Leave so many bytes, by default fewer than a checkpoint takes; return the file to remove."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - room)
    return filler


FAULTS: dict[str, Callable[[Path], tuple[Search, Losses]]] = {
    "worker killed (SIGKILL)": worker_killed,
    "worker told to leave (SIGTERM)": worker_told_to_leave,
    "host of a pack killed (SIGKILL)": pack_host_killed,
    "trial in a shared pack killed (SIGKILL)": packed_trial_killed,
    "Ray's memory monitor ends a worker": memory_monitor,
    "trial out of memory": out_of_memory,
    "machine of a cluster shut down": node_shut_down,
    "clock steps by an hour": clock_steps,
}
"""Faults that the slow test alone does; the others have tests of their own."""


if __name__ == "__main__":
    hold_machines(int(sys.argv[1]), int(sys.argv[2]))
