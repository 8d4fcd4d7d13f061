"""Memory of a search: peaks of a trial's process, of the driver and of the tracking writer, and their shared memory.

Whole searches with the real trainable, eager and compiled, of two trials at a time, and of eight that share packs;
every process is sampled in ``/proc`` (Linux) ten times a second. "private" is memory of this process alone; "shared" is
its mapping of the object store, which contains the training set once per node. The first run compiles in the trial's
process; later runs use the compiler's cache on disk and have a lower peak, so the table includes the duration.

    python -m benchmarks.trial_memory
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import searches
from benchmarks.measure import Option, Row, benchmark
from ladder_search.data import datasets
from ladder_search.driver.search import run_search
from ladder_search.driver.settings import SearchSettings
from spaces import find_space
from trainables import PackTrainable

OVERRIDES: dict[str, dict[str, Any]] = {
    # 50,000 held-out images leave 10,000 to train on: shorter epochs with the same step and the same images in memory.
    "mnist-100-full": {"data": {"validation": 50_000}},
    "digits-100": {},
}
EPOCHS = {"mnist-100-full": 1, "digits-100": 20}
TRIAL, HOST, DESK = "trial", "host of a pack", "desk"
WRITER, COMPILER, RAY = "writer", "compiler", "Ray's own"
PACKED = 4
"""Trials of a shared pack."""
_COMPILERS = ("torch/_inductor", "g++", "cc1plus", "collect2", "/ld ", "/as ")


@dataclass(slots=True)
class Peak:
    """Peak values of one process, in bytes."""

    resident: int = 0
    private: int = 0
    shared: int = 0


class Watcher(searches.Watching):
    """Samples this process and its descendants."""

    period = 0.1

    def __init__(self) -> None:
        self.peaks: dict[tuple[str, int], Peak] = {}

    def __enter__(self) -> Self:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak of this process
        return super().__enter__()

    def look(self) -> None:
        family = searches.descendants(os.getpid())
        for pid in (os.getpid(), *family):
            role = _role(pid, family) if pid in family else "driver"
            sizes = _sizes(pid)
            if sizes is None:
                continue
            peak = self.peaks.setdefault((role, pid), Peak())
            peak.resident = max(peak.resident, sizes["VmHWM"])
            peak.private = max(peak.private, sizes["RssAnon"])
            peak.shared = max(peak.shared, sizes["RssShmem"])

    def of(self, role: str) -> list[Peak]:
        return [peak for (peak_role, _), peak in self.peaks.items() if peak_role == role]


def _role(pid: int, family: Mapping[int, tuple[int, str]]) -> str:
    parent, command = family[pid]
    for name, role in (("Trainable", TRIAL), ("PackHost", HOST), ("Desk", DESK)):
        if f"ray::{name}" in command or (role == TRIAL and name in command):
            # The compiler's helpers are forks of the training process and keep its name.
            return COMPILER if parent in family and name in family[parent][1] else role
    if "ladder_search.tracking.writer" in command:
        return WRITER
    return COMPILER if any(part in command for part in _COMPILERS) else RAY


def _sizes(pid: int) -> dict[str, int] | None:
    """Return peak and present sizes of a process in bytes; None if it has ended."""
    try:
        lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    sizes = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}
    return sizes if {"VmHWM", "RssAnon", "RssShmem"} <= sizes.keys() else None


def watch(study: str, *, compiled: bool, trials: int, slots: int) -> list[Row]:
    """Run one search and return a line per kind of process."""
    watcher = Watcher()
    start = time.perf_counter()
    with searches.prepared() as folder, watcher:
        settings = SearchSettings(
            study=study,
            trials=trials,
            slots=slots,
            compile="on" if compiled else "off",
            epochs=EPOCHS[study],
            overrides=OVERRIDES[study],
            scheduler="fifo",
            root=str(folder),
            name="search",
        )
        result = run_search(settings, trainable=PackTrainable, find_space=find_space, console=searches.quiet())
    if [record.state for record in result.records].count("COMPLETE") != trials:
        raise RuntimeError(f"not all trials were trained: {[record.reason for record in result.records]}")
    rows: list[Row] = []
    for role in (TRIAL, HOST, DESK, "driver", WRITER, COMPILER, RAY):
        peaks = watcher.of(role)
        if peaks:
            rows.append(
                {
                    "study": study,
                    "trials in a pack": slots,
                    "step": "compiled" if compiled else "eager",
                    "process": role,
                    "processes": len(peaks),
                    "peak MiB": _mib(max(peak.resident for peak in peaks)),
                    "private MiB": _mib(max(peak.private for peak in peaks)),
                    "shared MiB": _mib(max(peak.shared for peak in peaks)),
                    "all of them, private MiB": _mib(sum(peak.private for peak in peaks)),
                    "search, s": time.perf_counter() - start,
                }
            )
    return rows


def _mib(size: int) -> float:
    return size / 2**20


OPTIONS = (
    Option("--trials", "trials of every search", 2),
    Option("--no-compile", "leave the compiled step out", False),
)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "How much memory does a search take?"
    with benchmark(question, __doc__, *OPTIONS, one_process=False, arguments=arguments) as (report, options):
        studies = ("digits-100",) if options.quick else tuple(OVERRIDES)
        for name in dict.fromkeys(study.partition("-")[0] for study in studies):
            dataset = datasets.load(name)
            report.note(
                f"{name}: the training set is {_mib(dataset.train_x.nbytes + dataset.train_y.nbytes):.1f} MiB, "
                "once per node in the object store."
            )
        rows: list[Row] = []
        for compiled in (False,) if options.quick or options.no_compile else (False, True):
            for study in studies:
                rows += watch(study, compiled=compiled, trials=options.trials, slots=1)
            if not options.quick:
                packed = max(options.trials, 2 * PACKED)
                rows += watch("digits-100", compiled=compiled, trials=packed, slots=PACKED)
        report.table("Memory by kind of process (the largest of its kind)", rows)


if __name__ == "__main__":
    main()
