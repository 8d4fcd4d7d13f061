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

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from benchmarks import crew
from benchmarks.gpu_sections import TEN, brief, serve
from benchmarks.measure import Option, Report, Row, benchmark, check_device
from benchmarks.scene import WORKLOADS, ways_of

LIMIT_SECONDS = 450.0
"""No section begins after this time, and each ends by about then."""
GRACE_SECONDS = 15.0
"""Additional time for a section in the middle of a long operation, such as a compilation."""
MEMBERS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048)
AIMS = {"without MPS": 30.0, "under MPS": 10.0}


class Benchmark:
    """Runs sections in separate processes and collects their results."""

    def __init__(self, report: Report, study: str, device: str, *, quick: bool, limit: float) -> None:
        self._report, self._of, self._quick = report, (study, device, quick), quick
        self._end = time.monotonic() + limit
        self._process: Any = None
        self._pipe: Any = None

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def section(self, title: str, name: str, limit: float, **arguments: object) -> list[Row]:
        """Run a section of ``gpu_sections`` for at most about ``limit`` seconds; print its table and return it."""

        def run(tell: Callable[[str, Any], None], until: float) -> None:
            self._start()
            try:
                self._pipe.send((name, until, arguments))
                while self._pipe.poll(max(0.0, until + GRACE_SECONDS - time.monotonic())):
                    kind, value = self._pipe.recv()
                    if kind == "end":
                        break
                    tell(kind, value)
                else:
                    tell("problem", f"{title}: cut off, the time was up")
                    self.stop(kill=True)
            except (EOFError, OSError):
                self._process.join()
                tell("problem", f"{title}: its process died with exit status {self._process.exitcode}")
                self.stop(kill=True)
            if not self._quick:  # a quick run uses one process, because starting one takes longer than its work
                self.stop()

        return self.measured(title, limit, run)

    def measured(self, title: str, limit: float, run: Callable[[Callable[[str, Any], None], float], None]) -> list[Row]:
        """Run ``run(tell, until)``, which reports lines; print their table and return it."""
        rows: list[Row] = []
        problems: list[str] = []

        def tell(kind: str, value: Any) -> None:
            if kind == "row":
                rows.append(value)
                value = ", ".join(
                    f"{name.strip()} {cell:.4g}" if isinstance(cell, float) else f"{name.strip()} {cell}"
                    for name, cell in value.items()
                )
            else:
                problems.append(value)
            print(f"[{self.seconds_left:4.0f} s left] {value}", file=sys.stderr, flush=True)

        if self.seconds_left < 5:
            tell("problem", f"{title}: left out, the time was up")
        else:
            try:
                run(tell, time.monotonic() + min(limit, self.seconds_left))
            except Exception as error:  # continue with the others
                tell("problem", f"{title}: {brief(error)}")
        if rows:
            self._report.table(title, rows)
        for problem in problems:
            self._report.note(problem)
        return rows

    def stop(self, *, kill: bool = False) -> None:
        if self._process is None:
            return
        if not kill:
            with suppress(OSError):
                self._pipe.send(None)
            self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process = None

    def _start(self) -> None:
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *self._of))
        self._process.start()
        theirs.close()


def best(rows: Iterable[Row], column: str) -> Row | None:
    return max(rows, key=lambda row: float(row[column] or 0.0), default=None)


def rivals(bench: Benchmark, study: str, device: str, *, quick: bool, under_mps: bool) -> list[Row]:
    """Measure and print the tables of the rival."""
    options: dict[str, Any] = {
        "counts": crew.COUNTS[:2] if quick or device == "cpu" else crew.COUNTS,
        # Quick runs do not compile; a CPU has no graphs.
        "forms": ("eager",) if device == "cpu" else crew.FORMS[:2] if quick else crew.FORMS,
        "window": 0.3 if quick else crew.WINDOW_SECONDS,
        "under": "under MPS" if under_mps else "without MPS",
    }

    def run(tell: Callable[[str, Any], None], until: float) -> None:
        options.update(tell=tell, until=until)
        if not under_mps:
            crew.measure(study, device, environment={}, check=lambda: None, **options)
            return
        try:
            with crew.mps() as (environment, check):
                crew.measure(study, device, environment=environment, check=check, **options)
        except crew.CrewError as error:
            tell("problem", f"rival under MPS: left out, {error}")

    limit = 80.0 if under_mps else 110.0  # the second reuses programs compiled by the first
    return bench.measured(f"The plain loop in N processes, {options['under']}", limit, run)


def ratios(ours: Sequence[Row], others: Sequence[Row], ten: Sequence[Row]) -> list[Row]:
    """Return the table of ratios to the rivals."""
    rows: list[Row] = []
    our_best = best(ours, "trials per hour")
    for under, aim in AIMS.items():
        rival = best((row for row in others if row["under"] == under), "trials per hour")
        if our_best is not None and rival is not None:
            mine, its = float(our_best["trials per hour"] or 0), float(rival["trials per hour"] or 0)
            what = f"trials per hour, {under}"
            packs, loops = f"K={our_best['K']}, {our_best['way']}", f"{rival['processes']} x {rival['form']}"
            rows.append(_ratio(what, packs, mine, loops, its, aim))
    alone = best((row for row in ours if row["K"] == 1), "member-steps per s")
    loop = best((row for row in others if row["processes"] == 1), "steps per s")
    if alone is not None and loop is not None:
        mine, its = float(alone["member-steps per s"] or 0), float(loop["steps per s"] or 0)
        rows.append(_ratio("steps per s of one trial", f"K=1, {alone['way']}", mine, str(loop["form"]), its, 1.0))
    seeds = best(ten, "times as fast as in turn")
    if seeds is not None:
        mine = float(seeds["times as fast as in turn"] or 0)
        rows.append(_ratio("ten seeds, extrapolated", str(seeds["program"]), mine, "ten runs in turn", 1.0, 30.0))
    return rows


def _ratio(what: str, ours: str, mine: float, rival: str, its: float, aim: float) -> Row:
    return {"what": what, "ours": ours, "is": mine, "rival": rival, "its": its, "ratio": mine / its, "aim": aim}


def run_all(bench: Benchmark, report: Report, study: str, device: str, members: Sequence[int], *, quick: bool) -> None:
    """Run all sections in descending order of importance."""
    ways = ways_of(device, quick=quick)
    title = f"{study}: packs of K on {device}"
    ours = bench.section(f"{title}, {ways[0]}", "sweep", 110, way=ways[0], members=members, to_the_end=False)
    others = rivals(bench, study, device, quick=quick, under_mps=False)
    if device == "cuda":
        others += rivals(bench, study, device, quick=quick, under_mps=True)
    seeds = f"Ten seeds of final training, {TEN} members"
    ten = bench.section(f"{seeds}, {ways[0]}", "ten_seeds", 40, way=ways[0])
    top = best(ours, "trials per hour")
    slots = int(top["K"] or 1) if top is not None else members[-1]
    # One compilation per K, the best first.
    few = list(dict.fromkeys((slots, 1, *(k for k in (64, 16) if k in members))))
    compiled = "compiled, captured" if device == "cuda" else "compiled"
    if compiled in ways:
        ours += bench.section(f"{title}, {compiled}", "sweep", 60, way=compiled, members=few, to_the_end=True)
    top = best(ours, "trials per hour")
    way, at = (str(top["way"]), int(top["K"] or 1)) if top is not None else (ways[0], slots)
    bench.section(f"Precision, {way}", "precisions", 75, way=way, slots=at)
    bench.section("Handing slots over", "moves", 30, way=ways[0], slots=few[:1] + [k for k in (16,) if k in few[1:]])
    bench.section("A member's checkpoint", "checkpoints", 30, way=ways[0])
    if compiled in ways:
        ten += bench.section(f"{seeds}, {compiled}", "ten_seeds", 50, way=compiled)
    if "eager" in ways[1:]:
        ours += bench.section(f"{title}, eager", "sweep", 30, way="eager", members=few[::-1], to_the_end=True)
    table = ratios(ours, others, ten)
    if table:
        report.table("What was to be reached (float32 on both sides)", table)
    fastest = best((row for row in ten if "pack" in str(row["program"])), "times as fast as in turn")
    if fastest is not None:
        seconds = next(float(cell or 0) for name, cell in fastest.items() if name.startswith("seconds for"))
        program = str(fastest["program"]).removeprefix("a pack of ten, ")
        if quick or seconds < bench.seconds_left - 15:
            bench.section("Ten seeds, every step of them", "ten_seeds_for_real", seconds + 30, way=program)
        else:
            report.note(
                f"Ten seeds' {seconds:.0f} s were extrapolated from the window above, not run: no time was left."
            )


OPTIONS = (
    Option("--device", "where", "cuda", how={"choices": ("cuda", "cpu")}),
    Option("--study", "whose trials", "mnist-100-full", "digits-100", {"choices": tuple(WORKLOADS)}),
    Option("--members", "members of a pack", MEMBERS, (1, 2), {"type": int, "nargs": "+", "metavar": "K"}),
    Option("--limit", "seconds for all", LIMIT_SECONDS),
)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "How many trials per hour does one device train, in packs and as one process per trial?"
    # On termination from outside, end the processes and the service started here.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with benchmark(question, __doc__, *OPTIONS, one_process=False, arguments=arguments) as (report, options):
        check_device(options.device)
        bench = Benchmark(report, options.study, options.device, quick=options.quick, limit=options.limit)
        members = MEMBERS[:3] if options.device == "cpu" and options.members is MEMBERS else options.members
        try:
            run_all(bench, report, options.study, options.device, members, quick=options.quick)
        finally:
            bench.stop(kill=True)
        report.note(
            "The rival's processes are those of Ray Tune with fractional GPUs, without the costs of Ray itself."
        )


if __name__ == "__main__":
    main()
