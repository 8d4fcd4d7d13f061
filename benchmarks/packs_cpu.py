"""Packs on a CPU: what a member costs in a pack of K, in time and memory, and what joining, leaving, checkpoints cost.

One thread, both sizes, eager and compiled. All packs live in one process and take turns; memory is the peak of
processes that hold one pack each. With ``--output FILE.json`` the curves are drawn in ``FILE.svg``.

    python -m benchmarks.packs_cpu
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks import workloads
from benchmarks.measure import Report, Row, Spread, interleaved, parser, seconds, spread_cells
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.pack import Pack

MEMBERS = {"digits": (1, 2, 4, 8, 16, 32), "mnist": (1, 2, 4, 8)}
TURN_SECONDS = {"digits": 0.15, "mnist": 0.5}
"""Aim for the length of one pack's turn in a round."""

STEPS = 5
"""Steps that a pack is timed over where one slot's hand-over is compared with them."""


def sweep(
    report: Report, size: str, members: Sequence[int], *, rounds: int, compiled: bool
) -> tuple[dict[str, Pack], list[Row]]:
    """Measure member-steps of every K and print their table; returns the packs and the table."""
    data = workloads.training_data(size, torch.device("cpu"))
    programs = ("eager", "compiled") if compiled else ("eager",)
    packs = {
        f"{program} K={k}": workloads.full_pack(size, data, k, compiled=program == "compiled")
        for program in programs
        for k in members
    }
    first = {name: seconds(workloads.runner(pack, 1)) for name, pack in packs.items()}
    member_step = seconds(workloads.runner(packs["eager K=1"], 3)) / 3
    steps = {k: max(1, round(TURN_SECONDS[size] / member_step / k)) for k in members}
    times = interleaved({name: workloads.runner(pack, steps[pack.slots]) for name, pack in packs.items()}, rounds)
    rows: list[Row] = []
    for name, taken in times.items():
        program, k = name.split(" K=")
        wall, cpu = taken.per(steps[int(k)] * int(k))
        alone = times[f"{program} K=1"]
        ratio = taken.over(alone) * steps[1] / (steps[int(k)] * int(k))
        rows.append(
            {
                "program": program,
                "K": int(k),
                **spread_cells("ms per member-step", wall),
                "CPU ms": cpu.median,
                "times the steps of K=1": 1.0 / ratio,
                "first step, s": first[name],
                "n": wall.n,
            }
        )
    report.table(f"{size}: one member's step in a pack of K", rows)
    return packs, rows


def moves(size: str, pack: Pack, rounds: int) -> Row:
    """What it costs to hand a slot over, in milliseconds and in steps of the whole pack."""
    slot = pack.active[0]
    kept = pack.state(slot)
    spec = workloads.member(size)

    def join(fresh: bool) -> Callable[[], object]:
        def swap() -> None:
            pack.leave(slot)
            pack.join(spec, state=None if fresh else kept)

        return swap

    def timed_with_warm_up() -> dict[str, Spread]:
        turns: dict[str, Callable[[], object]] = {
            "step": lambda: pack.run(STEPS),
            "new": join(fresh=True),
            "moved": join(fresh=False),
            "copied": lambda: pack.state(slot),
        }
        for run in turns.values():
            run()
        times = interleaved(turns, rounds)
        return {name: taken.per(STEPS if name == "step" else 1)[1] for name, taken in times.items()}

    cpu = timed_with_warm_up()
    step = cpu["step"].median
    return {
        "size": size,
        "K": pack.slots,
        "step of the pack, ms": step,
        "leave + join new, ms": cpu["new"].median,
        "in steps": cpu["new"].median / step,
        "leave + join with state, ms": cpu["moved"].median,
        "in steps ": cpu["moved"].median / step,
        "copy of the state, ms": cpu["copied"].median,
        "n": rounds,
    }


def peak(size: str, slots: int, compiled: bool, pipe: Connection) -> None:
    """In a process of its own: send its peak in bytes before there is a pack and after some steps of it."""

    def resident() -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    torch.set_num_threads(1)
    data = workloads.training_data(size, torch.device("cpu"))
    before = resident()
    workloads.full_pack(size, data, slots, compiled=compiled).run(STEPS)
    pipe.send((before, resident()))


def memory(size: str, slots: tuple[int, int], *, compiled: bool) -> Row:
    """What a pack takes with few members and with many; the difference is the members'."""
    context, found = multiprocessing.get_context("spawn"), dict[int, tuple[int, int]]()
    for k in slots:
        here, there = context.Pipe()
        process = context.Process(target=peak, args=(size, k, compiled, there))
        process.start()
        there.close()
        found[k] = here.recv()
        process.join()
    few, many = slots
    each = (found[many][1] - found[few][1]) / (many - few)
    state = workloads.full_pack(size, workloads.training_data(size, torch.device("cpu")), 1, compiled=False).state(0)
    held = sum(tensor.nbytes for stack in (state.params, state.first, state.second) for tensor in stack.values())
    return {
        "size": size,
        "program": "compiled" if compiled else "eager",
        "before, MiB": found[few][0] / 2**20,
        f"pack of {few}, MiB": found[few][1] / 2**20,
        f"pack of {many}, MiB": found[many][1] / 2**20,
        "a member more, MiB": each / 2**20,
        "its state, MiB": held / 2**20,
    }


def draw(curves: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw each size's CPU time per member-step against K."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 3.2), layout="constrained")
    for axes, (size, rows) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for program in dict.fromkeys(row["program"] for row in rows):
            points = [(row["K"], row["CPU ms"]) for row in rows if row["program"] == program]
            axes.plot(*zip(*points, strict=True), marker="o", label=program)
        members = list(dict.fromkeys(row["K"] for row in rows))
        axes.set_xscale("log", base=2)
        axes.set_xticks(members, [str(k) for k in members])
        axes.set(title=size, xlabel="members of the pack", ylabel="CPU ms per member-step", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def checkpoints(size: str, pack: Pack, rounds: int) -> Row:
    """What it costs to write a member to disk and to read it back."""
    state = pack.state(pack.active[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "member"
        turns: dict[str, Callable[[], object]] = {
            "write": lambda: write_member(folder, state, {}),
            "read": lambda: read_member(folder),
        }
        times = interleaved(turns, rounds)
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    write, read = times["write"].per(1), times["read"].per(1)
    return {
        "size": size,
        "MB": size_bytes / 1e6,
        **spread_cells("write, ms", write[0]),
        "its CPU ms": write[1].median,
        **spread_cells("read, ms", read[0]),
        "read's CPU ms": read[1].median,
        "n": rounds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="turns of every pack (9; quick: 2)")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report("What does a member's step cost in a pack of K on one CPU core?", given)
    rounds = given.rounds or (2 if given.quick else 9)
    begun = time.perf_counter()
    handed_over: list[Row] = []
    stored: list[Row] = []
    held: list[Row] = []
    curves: dict[str, list[Row]] = {}
    # Quick: no compiling, which takes up to a minute per program the first time.
    programs = ("eager",) if given.quick else ("eager", "compiled")
    # A pack of one has a program of its own: a member more is what follows the second.
    few_and_many = (1, 2) if given.quick else (2, 8)
    for size in ("digits",) if given.quick else ("digits", "mnist"):
        members = (1, 2) if given.quick else MEMBERS[size]
        packs, curves[size] = sweep(report, size, members, rounds=rounds, compiled=not given.quick)
        chosen = (2,) if given.quick else (1, 4, 8)
        for program in programs:
            handed_over += [{"program": program, **moves(size, packs[f"{program} K={k}"], rounds)} for k in chosen]
        stored.append(checkpoints(size, packs[f"eager K={chosen[-1]}"], rounds))
        held += [memory(size, few_and_many, compiled=program == "compiled") for program in programs]
    report.table("Handing a slot over (CPU time)", handed_over)
    report.table("Memory of a process with one pack (its peak)", held)
    report.table("A member's checkpoint (wall time includes waiting until the disk has it)", stored)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)
    if given.output is not None:
        draw(curves, given.output.with_suffix(".svg"))


if __name__ == "__main__":
    main()
