"""Which arrangement of processes, threads, pack size and compiling does the most training on the cores of one machine?

An arrangement is P processes of T threads, each with a pack of K members or with the plain loop of ``solo_step``, eager
or compiled, in float32 or with bfloat16 products. Its figure is the member-steps per second of all its processes
together. Rivals: one plain loop per core. Batches, noise and the interval's read-back are part of every step.

All arrangements live side by side and take turns; in a turn its processes start together and are counted over a common
window, to the last interval that ended in it, so that each one was disturbed by the others all the time.

    python -m benchmarks.cpu_arrangements
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Literal

# One compile worker: the processes would each start one per core. Before torch is imported.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch

from benchmarks import workloads
from benchmarks.measure import Report, Row, Spread, parser, seconds, spread_cells
from benchmarks.solo_step import PlainLoop
from ladder_search.cores import usable_cores

STEPS = {"digits": 10, "mnist": 10}
"""Steps of one call, between which nothing is read back: an epoch of the study on digits; MNIST's 500 would not fit
into a window."""

Kind = Literal["plain foreach", "plain fused", "pack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """One way of using the machine."""

    kind: Kind = "pack"
    processes: int = 2
    threads: int = 1
    members: int = 1
    compiled: bool = False
    precision: str = "float32"

    @property
    def program(self) -> tuple[Kind, int, bool, str]:
        """What one of its processes runs."""
        return self.kind, self.members, self.compiled, self.precision

    @property
    def name(self) -> str:
        what = self.kind if self.kind != "pack" else f"pack of {self.members}"
        how = "compiled" if self.compiled else "eager"
        return f"{self.processes} x {self.threads} thread(s), {what}, {how}, {self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one process did in one turn: member-steps, and the wall and CPU seconds they took."""

    steps: int
    wall: float
    cpu: float


def arrangements(cores: int, members: Sequence[int], *, compiled: bool, bf16: bool) -> list[Arrangement]:
    """Rivals first, then packs: one process per core, one process on one core, one process with all cores."""
    programs = (False, True) if compiled else (False,)
    found: list[Arrangement] = []
    for processes in dict.fromkeys((cores, 1)):
        found += [Arrangement(kind=kind, processes=processes) for kind in ("plain foreach", "plain fused")]
        if compiled:
            found.append(Arrangement(kind="plain fused", processes=processes, compiled=True))
    for precision in ("float32", "bf16") if bf16 else ("float32",):
        own = [Arrangement(members=k, compiled=c, precision=precision) for c in programs for k in members]
        found += [replace(one, processes=cores) for one in own]
        found += [replace(one, processes=1) for one in own if one.members == 1]
        found += [replace(one, processes=1, threads=cores) for one in own if one.compiled]
    return list(dict.fromkeys(found))


def make(size: str, program: tuple[Kind, int, bool, str]) -> Callable[[int], object]:
    """Return ``run(steps)`` of one process's program."""
    kind, members, compiled, precision = program
    spec, data = workloads.member(size), workloads.training_data(size, torch.device("cpu"))
    if kind != "pack":
        return PlainLoop(spec, data, adam=kind.removeprefix("plain "), compiled=compiled).run
    return workloads.full_pack(size, data, members, compiled=compiled, precision=precision).run


def work(size: str, threads: int, start: Any, pipe: Connection) -> None:
    """A process: prepares programs and runs them in turns until told to stop."""
    torch.set_num_threads(threads)
    runs: dict[tuple[Kind, int, bool, str], Callable[[int], object]] = {}
    pipe.send(None)
    while (order := pipe.recv()) is not None:
        program, window, together = order
        if program not in runs:
            runs[program] = make(size, program)
            pipe.send(seconds(lambda program=program: runs[program](STEPS[size])))  # type: ignore[misc]
            continue
        run, done = runs[program], 0
        if together:
            start.wait()
        begun, cpu_begun = time.perf_counter(), time.process_time()
        turn = Turn(steps=0, wall=0.0, cpu=0.0)
        while True:
            run(STEPS[size])
            wall = time.perf_counter() - begun
            if wall > window and done:
                break
            done += STEPS[size] * program[1]
            turn = Turn(steps=done, wall=wall, cpu=time.process_time() - cpu_begun)
        pipe.send(turn)


@contextmanager
def workers(size: str, all_: Sequence[Arrangement], cores: int) -> Iterator[dict[int, list[Connection]]]:
    """Threads -> pipes to the processes with that many, as many as an arrangement needs."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(cores)
    pipes: dict[int, list[Connection]] = {}
    processes = []
    for threads in dict.fromkeys(one.threads for one in all_):
        for _ in range(max(one.processes for one in all_ if one.threads == threads)):
            here, there = context.Pipe()
            process = context.Process(target=work, args=(size, threads, start, there), daemon=True)
            process.start()
            there.close()
            processes.append(process)
            pipes.setdefault(threads, []).append(here)
    for pipe in (pipe for group in pipes.values() for pipe in group):
        pipe.recv()  # it is ready
    try:
        yield pipes
    finally:
        for pipe in (pipe for group in pipes.values() for pipe in group):
            with suppress(OSError):  # it has died
                pipe.send(None)
        for process in processes:
            process.join(10)
            process.terminate()


def ask(pipes: Sequence[Connection], order: object) -> list[Any]:
    for pipe in pipes:
        pipe.send(order)
    return [pipe.recv() for pipe in pipes]


def measure(
    size: str, all_: Sequence[Arrangement], *, cores: int, rounds: int, window: float
) -> tuple[dict[Arrangement, list[list[Turn]]], dict[Arrangement, float]]:
    """Return the turns of every arrangement (one list of processes per round), and the seconds of its first steps."""
    turns: dict[Arrangement, list[list[Turn]]] = {one: [] for one in all_}
    first: dict[Arrangement, float] = {}
    with workers(size, all_, cores) as pipes:
        prepared: dict[tuple[int, int, object], float] = {}
        for one in all_:
            # One process after the other: the first compiles, the next finds the result on disk.
            for index, pipe in enumerate(pipes[one.threads][: one.processes]):
                key = (one.threads, index, one.program)
                if key not in prepared:
                    prepared[key] = ask([pipe], (one.program, 0.0, False))[0]
            first[one] = prepared[(one.threads, 0, one.program)]
        for _ in range(rounds):
            for one in all_:
                together = one.processes == cores and one.processes > 1
                chosen = pipes[one.threads][: one.processes]
                turns[one].append(ask(chosen, (one.program, window, together)))
    return turns, first


def rate(turn: Sequence[Turn]) -> float:
    """Member-steps per second of all processes of one turn."""
    return sum(one.steps / one.wall for one in turn)


def ratio(turns: Mapping[Arrangement, list[list[Turn]]], one: Arrangement, other: Arrangement) -> float:
    """Median over rounds of one arrangement's rate over the other's in the same round."""
    return statistics.median(rate(a) / rate(b) for a, b in zip(turns[one], turns[other], strict=True))


def compare(report: Report, size: str, all_: Sequence[Arrangement], *, cores: int, rounds: int, window: float) -> None:
    """Measure all arrangements of one size and print their table."""
    turns, first = measure(size, all_, cores=cores, rounds=rounds, window=window)
    rates = {one: Spread.of([rate(turn) for turn in found]) for one, found in turns.items()}

    def rival(processes: int, compiled: bool) -> Arrangement | None:
        found = [o for o in all_ if (o.kind != "pack", o.processes, o.compiled) == (True, processes, compiled)]
        return max(found, key=lambda one: rates[one].median, default=None)

    eager, compiled = rival(cores, False), rival(cores, True)
    rows: list[Row] = []
    for one in all_:
        cpu = statistics.median(sum(t.cpu for t in turn) / sum(t.steps for t in turn) for turn in turns[one])
        rows.append(
            {
                "processes": one.processes,
                "threads": one.threads,
                "program": one.kind,
                "K": one.members if one.kind == "pack" else None,
                "compiled": "yes" if one.compiled else "no",
                "products": one.precision,
                **spread_cells("member-steps/s", rates[one]),
                "CPU ms": cpu * 1e3,
                "over plain eager": ratio(turns, one, eager) if eager else None,
                "over plain compiled": ratio(turns, one, compiled) if compiled else None,
                "first steps, s": first[one],
                "n": rates[one].n,
            }
        )
    report.table(f"{size}: all processes together, {rounds} turns of {window:g} s", rows)
    for precision in dict.fromkeys(one.precision for one in all_):
        ours = [one for one in all_ if one.kind == "pack" and one.precision == precision]
        best = max(ours, key=lambda one: rates[one].median)
        against = [f"{ratio(turns, best, other):.2f} x {other.name}" for other in (eager, compiled) if other]
        report.note(f"{size}, fastest in {precision}: {best.name}; {' and '.join(against)}.")
    for is_compiled in dict.fromkeys(one.compiled for one in all_):
        solo = Arrangement(processes=1, compiled=is_compiled)
        other = rival(1, is_compiled)
        if solo in turns and other is not None:
            how = "compiled" if is_compiled else "eager"
            report.note(f"{size}, one process, {how}: a pack of 1 does {ratio(turns, solo, other):.2f} x {other.name}.")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="turns of every arrangement (7; quick: 2)")
    options.add_argument("--window", type=float, help="seconds of a turn (2 on digits, 6 on MNIST; quick: 0.2)")
    options.add_argument("--sizes", nargs="+", choices=tuple(workloads.WIDTHS), help="networks (both; quick: digits)")
    options.add_argument("--members", type=int, nargs="+", metavar="K", help="sizes of packs (1 2 4 8; quick: 1 2)")
    options.add_argument("--no-compile", action="store_true", help="leave compiled programs out")
    options.add_argument("--no-bf16", action="store_true", help="leave bfloat16 products out")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report("Which arrangement of processes, threads, packs and compiling trains most?", given)
    begun = time.perf_counter()
    cores = usable_cores()
    members = given.members or ((1, 2) if given.quick else (1, 2, 4, 8))
    # Quick: no compiling, which takes up to a minute per program the first time.
    slow = not given.quick
    all_ = arrangements(cores, members, compiled=slow and not given.no_compile, bf16=slow and not given.no_bf16)
    for size in given.sizes or (("digits",) if given.quick else ("digits", "mnist")):
        window = given.window or (0.2 if given.quick else {"digits": 2.0, "mnist": 6.0}[size])
        rounds = given.rounds or (2 if given.quick else 7)
        compare(report, size, all_, cores=cores, rounds=rounds, window=window)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=False)


if __name__ == "__main__":
    main()
