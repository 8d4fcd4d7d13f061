"""Packs of K on one device: trials per hour, compared with one process per trial on the same device.

    captured             every step and every evaluation is a replayed CUDA graph, as in a search on a GPU
    compiled, captured   the same for programs compiled by inductor
    eager, compiled      every operation is a launch; the only ways on a CPU

Whole epochs are timed, with batches, noise and schedule as in a search, on random images of the study's size. The rival
is the plain PyTorch loop in N processes (``crew.py``), on a GPU with and without CUDA's Multi-Process Service. Joining,
leaving, checkpoints and memory are also measured. The script needs only torch and numpy; run it from the root of a
checkout. It takes less than 8 minutes on a GPU and prints each line as soon as it is measured; failures are printed and
skipped.

    python -m benchmarks.gpu_packs
    python -m benchmarks.gpu_packs --device cpu --study digits-100
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.crew import Crew, CrewError, Program, mps
from benchmarks.gpu_sections import TEN
from benchmarks.measure import Option, Report, Row, benchmark, check_device, say
from benchmarks.scene import STUDIES, Precision, Scene, ways_of

LIMIT_SECONDS = 450.0
"""No line begins after this time, and each ends by about then."""
GRACE_SECONDS = 15.0
"""Additional time for a line in the middle of a long operation, such as a compilation."""
MEMBERS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048)
WORTH = 1.03
"""The sweep ends unless a larger pack improves the rate by this factor."""
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
FORMS = ("eager", "captured", "reduce-overhead")
COUNTS = (1, 2, 4, 8, 16)
WINDOW_SECONDS = 2.0
"""Length of the common window in which all processes train; evaluations take another quarter of it."""
AIMS = {"without MPS": 30.0, "under MPS": 10.0}


@dataclass(slots=True)
class Section:
    """One table: its lines are measured in turn, each printed when it is complete, and failures are skipped."""

    crew: Crew
    end: float
    """Time of the last possible start of a line, of ``time.monotonic``."""
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def line(self, name: str, measure: Callable[[], list[Row]]) -> Row | None:
        """Add the measured rows and return the last; add a problem and return None if that fails."""
        if self.crew.lost:
            return None
        try:
            if time.monotonic() > self.end:
                raise CrewError("left out, the time was up")
            rows = measure()
        except CrewError as error:
            self.problem(f"{name}: {error}")
            return None
        for row in rows:
            cells = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
            say(", ".join(f"{name} {cell}" for name, cell in zip(row, cells, strict=True)))
        self.rows += rows
        return rows[-1]

    def ask(self, name: str, verb: str, **arguments: object) -> Row | None:
        """Add the rows of one of ``gpu_sections``, measured in the first process."""

        def measure() -> list[Row]:
            rows: list[Row] = self.crew.ask(1, verb, self.end + GRACE_SECONDS, **arguments)[0]
            return rows

        return self.line(name, measure)

    def problem(self, text: str) -> None:
        self.problems.append(text)
        say(text)


class Benchmark:
    """Runs sections in separate processes and reports their tables, until a time."""

    def __init__(self, report: Report, study: str, device: str, *, quick: bool, limit: float) -> None:
        self.study, self.device, self.quick = study, device, quick
        self._report = report
        self._end = time.monotonic() + limit
        self._crew: Crew | None = None

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    @contextmanager
    def section(self, title: str, limit: float, crew: Crew | None = None) -> Iterator[Section]:
        """Yield a section of at most about ``limit`` seconds, with its own process unless it has a crew; report it."""
        if crew is None:
            crew = self._crew = self._crew or Crew(Scene(self.study, self.device, quick=self.quick), (1,))
        section = Section(crew, min(self._end, time.monotonic() + limit))
        try:
            yield section
        finally:
            if section.rows:
                self._report.table(title, section.rows)
            for problem in section.problems:
                self._report.note(f"{title}: {problem}")
            if crew.lost or not self.quick:  # a quick run uses one process, because starting one takes longer
                self.stop()

    def measure(self, title: str, limit: float, verb: str, **arguments: object) -> list[Row]:
        """Run a section of one line."""
        with self.section(title, limit) as section:
            section.ask(verb, verb, **arguments)
        return section.rows

    def sweep(self, title: str, limit: float, way: str, members: Sequence[int], *, to_the_end: bool) -> list[Row]:
        """Time packs of ``members`` in order; ``to_the_end`` includes larger packs without gain."""
        last, failures = 0.0, 0
        with self.section(f"{title}, {way}", limit) as section:
            for slots in members:
                row = section.ask(f"K={slots}", "epochs", slots=slots, way=way, precision="float32")
                if row is None:
                    failures += 1
                    if failures == 2:  # out of memory, or this way does not work here
                        break
                    continue
                rate, failures = number(row, "member-steps per s"), 0
                if rate < last * WORTH and not to_the_end:
                    section.problem(f"no bigger pack was tried, K={slots} does {rate / last:.2f} times the last rate")
                    break
                last = rate
        return section.rows

    def rivals(self, *, under_mps: bool) -> list[Row]:
        """Time the plain loop in each form, in more processes as long as they increase the rate."""
        on_cpu, under = self.device == "cpu", "under MPS" if under_mps else "without MPS"
        counts = COUNTS[:2] if self.quick or on_cpu else COUNTS
        # Quick runs do not compile; a CPU has no graphs.
        forms = FORMS[:1] if on_cpu else FORMS[:2] if self.quick else FORMS
        try:
            with ExitStack() as stack:
                environment, check = stack.enter_context(mps()) if under_mps else ({}, lambda: None)
                crew = Crew(Scene(self.study, self.device), counts, environment=environment)
                stack.callback(crew.close)
                limit = 80.0 if under_mps else 110.0  # the second reuses programs compiled by the first
                with self.section(f"The plain loop in N processes, {under}", limit, crew) as section:
                    for form in forms:
                        fastest = 0.0
                        for n in counts:
                            row = section.line(f"{form}, {n} processes", partial(self._loops, section, form, n, check))
                            if row is None or number(row, "steps per s") <= fastest:
                                break
                            fastest = number(row, "steps per s")
        except CrewError as error:
            self._report.note(f"The plain loop in N processes, {under}: left out, {error}")
            return []
        return [{**row, "under": under} for row in section.rows]

    def _loops(self, section: Section, form: str, n: int, check: Callable[[], None]) -> list[Row]:
        program, window = Program(way=form), 0.3 if self.quick else WINDOW_SECONDS
        until, spec = section.end + GRACE_SECONDS, Scene(self.study, "cpu").spec()
        section.crew.prepare(program, n, until)
        check()
        trained = section.crew.repeat(program, "train", n, window, until)
        evaluated = section.crew.repeat(program, "evaluate", n, window / 4, until)
        rate = sum(turn.done / turn.wall for turn in trained)
        seconds = sum(turn.wall / turn.done for turn in evaluated) / n
        row: Row = {
            "form": form,
            "processes": n,
            "steps per s": rate,
            "ms per step of one": n / rate * 1e3,
            "evaluation, ms": seconds * 1e3,
            "trials per hour": n * 3600 / (spec.total_steps * n / rate + spec.training.epochs * seconds),
        }
        return [row]

    def stop(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None


def number(row: Row, column: str) -> float:
    return float(row[column] or 0)


def best(rows: Iterable[Row], column: str) -> Row | None:
    return max(rows, key=lambda row: number(row, column), default=None)


def ratios(ours: Sequence[Row], others: Sequence[Row], ten: Sequence[Row]) -> list[Row]:
    """Return the table of ratios to the rivals."""
    rows: list[Row] = []

    def compare(what: str, packs: str, own: float, rival: str, its: float, aim: float) -> None:
        rows.append(
            {"what": what, "ours": packs, "is": own, "rival": rival, "its": its, "ratio": own / its, "aim": aim}
        )

    per_hour, per_second, gain = "trials per hour", "steps per s", "times as fast as in turn"
    our_best = best(ours, per_hour)
    for under, aim in AIMS.items():
        rival = best((row for row in others if row["under"] == under), per_hour)
        if our_best is not None and rival is not None:
            packs, loops = f"K={our_best['K']}, {our_best['way']}", f"{rival['processes']} x {rival['form']}"
            compare(f"{per_hour}, {under}", packs, number(our_best, per_hour), loops, number(rival, per_hour), aim)
    alone = best((row for row in ours if row["K"] == 1), f"member-{per_second}")
    loop = best((row for row in others if row["processes"] == 1), per_second)
    if alone is not None and loop is not None:
        own, its = number(alone, f"member-{per_second}"), number(loop, per_second)
        compare(f"{per_second} of one trial", f"K=1, {alone['way']}", own, str(loop["form"]), its, 1.0)
    seeds = best(ten, gain)
    if seeds is not None:
        compare("ten seeds, extrapolated", str(seeds["program"]), number(seeds, gain), "ten runs in turn", 1.0, 30.0)
    return rows


def run_all(bench: Benchmark, report: Report, members: Sequence[int]) -> None:
    """Run all sections in descending order of importance."""
    ways = ways_of(bench.device, quick=bench.quick)
    title, seeds = f"{bench.study}: packs of K on {bench.device}", f"Ten seeds of final training, {TEN} members"
    ours = bench.sweep(title, 110, ways[0], members, to_the_end=False)
    others = bench.rivals(under_mps=False)
    if bench.device == "cuda":
        others += bench.rivals(under_mps=True)
    ten = bench.measure(f"{seeds}, {ways[0]}", 40, "ten_seeds", way=ways[0])
    top = best(ours, "trials per hour")
    slots = int(top["K"] or 1) if top is not None else members[-1]
    # One compilation per K, the best first.
    few = list(dict.fromkeys((slots, 1, *(k for k in (64, 16) if k in members))))
    compiled = "compiled, captured" if bench.device == "cuda" else "compiled"
    if compiled in ways:
        ours += bench.sweep(title, 60, compiled, few, to_the_end=True)
    top = best(ours, "trials per hour")
    way, at = (str(top["way"]), int(top["K"] or 1)) if top is not None else (ways[0], slots)
    with bench.section(f"Precision, {way}", 75) as section:
        for precision in PRECISIONS:
            section.ask(precision, "epochs", slots=at, way=way, precision=precision)
    with bench.section("Joining and leaving", 30) as section:
        for k in few[:1] + [k for k in (16,) if k in few[1:]]:
            section.ask(f"K={k}", "moves", way=ways[0], slots=k)
    bench.measure("A member's checkpoint", 30, "checkpoints", way=ways[0])
    if compiled in ways:
        ten += bench.measure(f"{seeds}, {compiled}", 50, "ten_seeds", way=compiled)
    if "eager" in ways[1:]:
        ours += bench.sweep(title, 30, "eager", few[::-1], to_the_end=True)
    table = ratios(ours, others, ten)
    if table:
        report.table("What was to be reached (float32 on both sides)", table)


@benchmark(
    "How many trials per hour does one device train, in packs and as one process per trial?",
    Option("--device", "where", "cuda", how={"choices": ("cuda", "cpu")}),
    Option("--study", "whose trials", STUDIES[0], STUDIES[1], {"choices": STUDIES}),
    Option("--members", "members of a pack", MEMBERS, (1, 2), {"type": int, "nargs": "+", "metavar": "K"}),
    Option("--limit", "seconds for all", LIMIT_SECONDS),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    # On termination from outside, end the processes and the service started here.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    check_device(options.device)
    bench = Benchmark(report, options.study, options.device, quick=options.quick, limit=options.limit)
    members = MEMBERS[:3] if options.device == "cpu" and options.members is MEMBERS else options.members
    try:
        run_all(bench, report, members)
    finally:
        bench.stop()
    report.note("The rival's processes are those of Ray Tune with fractional GPUs, without the costs of Ray itself.")


if __name__ == "__main__":
    main()
