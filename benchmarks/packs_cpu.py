"""Packs on a CPU: what a member's step costs in a pack of K, and what joining, leaving and checkpoints cost.

One thread, both sizes, eager and compiled. All packs live in one process and take turns.

    python -m benchmarks.packs_cpu
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import workloads
from benchmarks.measure import Report, Row, Spread, interleaved, parser, seconds, spread_cells
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.pack import Pack

MEMBERS = (1, 2, 4, 8)
TURN_SECONDS = {"digits": 0.15, "mnist": 0.5}
"""Aim for the length of one pack's turn in a round."""

STEPS = 5
"""Steps that a pack is timed over where one slot's hand-over is compared with them."""


def sweep(report: Report, size: str, members: Sequence[int], *, rounds: int, compiled: bool) -> dict[str, Pack]:
    """Measure member-steps of every K and print their table; returns the packs."""
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
    return packs


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
    # Quick: no compiling, which takes up to a minute per program the first time.
    for size in ("digits",) if given.quick else ("digits", "mnist"):
        members = (1, 2) if given.quick else MEMBERS
        packs = sweep(report, size, members, rounds=rounds, compiled=not given.quick)
        pack = packs["eager K=2" if given.quick else "compiled K=4"]
        handed_over.append(moves(size, pack, rounds))
        stored.append(checkpoints(size, pack, rounds))
    report.table("Handing a slot over (CPU time)", handed_over)
    report.table("A member's checkpoint (wall time includes waiting until the disk has it)", stored)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
