"""Which arrangement of processes, threads, pack size and compilation has the highest throughput on one machine's cores?

An arrangement is P processes of T threads, each with a pack of K members or with the plain PyTorch loop, eager or
compiled, in float32 or with bfloat16 products. Its figure is the member-steps per second of all its processes,
including batches, noise and the interval's read-back. The rivals are one plain loop per core; ``step.py`` compares
single processes. All arrangements stay
alive and take turns; in a turn the processes start together and are counted over a common window (``crew.py``).

    python -m benchmarks.cpu_arrangements
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

# One compile worker; otherwise each process starts one per core. Set before torch is imported.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

from benchmarks.crew import Crew, Program, Turn
from benchmarks.measure import Option, Report, Row, benchmark, spread_cells
from benchmarks.scene import STUDIES, Scene
from ladder_search.cores import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    program: Program
    processes: int = 2
    threads: int = 1

    @property
    def compiled(self) -> bool:
        return self.program.way == "compiled"

    @property
    def name(self) -> str:
        return f"{self.processes} x {self.threads} thread(s), {self.program.name}"


def arrangements(cores: int, members: Sequence[int], *, compiled: bool, bf16: bool) -> list[Arrangement]:
    """Return the rivals, one per core, then packs: one process per core, and one process with all cores."""
    result = [Arrangement(program=Program(adam=adam), processes=cores) for adam in ("foreach", "fused")]
    if compiled:
        result.append(Arrangement(program=Program(way="compiled"), processes=cores))
    for precision in ("float32", "bf16") if bf16 else ("float32",):
        for way in ("eager", "compiled") if compiled else ("eager",):
            packs = [Arrangement(program=Program(members=k, way=way, precision=precision)) for k in members]
            result += [replace(one, processes=cores) for one in packs]
            result += [replace(one, processes=1, threads=cores) for one in packs if one.compiled]
    return list(dict.fromkeys(result))


Turns = Mapping[Arrangement, Sequence[Sequence[Turn]]]
"""Rounds of every arrangement, each with a turn of every process."""


def measure(
    study: str, all_: Sequence[Arrangement], *, cores: int, rounds: int, window: float
) -> tuple[Turns, dict[Arrangement, float]]:
    """Return the turns of every arrangement, and the seconds until its first steps were complete."""
    turns: dict[Arrangement, list[list[Turn]]] = {one: [] for one in all_}
    with ExitStack() as stack:
        crews = {
            threads: Crew(Scene(study, "cpu"), sorted({1, cores if threads == 1 else 1}), threads=threads)
            for threads in dict.fromkeys(one.threads for one in all_)
        }
        for crew in crews.values():
            stack.callback(crew.close)
        first = {one: crews[one.threads].prepare(one.program, one.processes) for one in all_}
        for _ in range(rounds):
            for one in all_:
                turns[one].append(crews[one.threads].repeat(one.program, "train", one.processes, window))
    return turns, first


def rate(turn: Sequence[Turn]) -> float:
    """Return the member-steps per second of all processes in one turn."""
    return sum(one.done / one.wall for one in turn)


def ratio(turns: Turns, one: Arrangement, other: Arrangement) -> float:
    """Return the median over rounds of the ratio of two arrangements' rates in the same round."""
    return median(rate(a) / rate(b) for a, b in zip(turns[one], turns[other], strict=True))


def compare(report: Report, study: str, all_: Sequence[Arrangement], *, cores: int, rounds: int, window: float) -> None:
    """Measure all arrangements on one study and print their table."""
    turns, first = measure(study, all_, cores=cores, rounds=rounds, window=window)
    rates = {one: [rate(turn) for turn in rounds_of_one] for one, rounds_of_one in turns.items()}

    def rival(compiled: bool) -> Arrangement | None:
        loops = [one for one in all_ if not one.program.members and one.compiled == compiled]
        return max(loops, key=lambda one: median(rates[one]), default=None)

    eager, compiled = rival(False), rival(True)
    rows: list[Row] = []
    for one in all_:
        cpu = median(sum(t.cpu for t in turn) / sum(t.done for t in turn) for turn in turns[one])
        rows.append(
            {
                "processes": one.processes,
                "threads": one.threads,
                "program": one.program.name,
                **spread_cells("member-steps/s", rates[one]),
                "CPU ms": cpu * 1e3,
                "over plain eager": ratio(turns, one, eager) if eager else None,
                "over plain compiled": ratio(turns, one, compiled) if compiled else None,
                "first steps, s": first[one],
                "n": rounds,
            }
        )
    report.table(f"{study}: all processes together, {rounds} turns of {window:g} s", rows)
    for precision in dict.fromkeys(one.program.precision for one in all_):
        ours = [one for one in all_ if one.program.members and one.program.precision == precision]
        best = max(ours, key=lambda one: median(rates[one]))
        against = [f"{ratio(turns, best, other):.2f} x {other.name}" for other in (eager, compiled) if other]
        report.note(f"{study}, fastest in {precision}: {best.name}; {' and '.join(against)}.")


@benchmark(
    "Which arrangement of processes, threads, packs and compiling trains most?",
    Option("--studies", "networks", STUDIES, STUDIES[1:], {"nargs": "+", "choices": STUDIES}),
    Option("--rounds", "turns of every arrangement", 7, 2),
    Option("--window", "seconds of a turn", 6.0, 0.2),
    Option("--members", "sizes of packs", (1, 2, 4, 8), (1, 2), {"type": int, "nargs": "+", "metavar": "K"}),
    Option("--no-compile", "leave compiled programs out", False),
    Option("--no-bf16", "leave bfloat16 products out", False),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    cores = usable_cores()
    # Quick runs do not compile, which takes up to a minute per program the first time.
    compiled, bf16 = not (options.quick or options.no_compile), not (options.quick or options.no_bf16)
    all_ = arrangements(cores, options.members, compiled=compiled, bf16=bf16)
    for study in options.studies:
        compare(report, study, all_, cores=cores, rounds=options.rounds, window=options.window)


if __name__ == "__main__":
    main()
