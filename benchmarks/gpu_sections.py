"""Sections of the GPU benchmark of packs, each in a separate process that may crash. A section reports a line as soon
as it is measured, skips failures, and starts nothing after its time limit."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from benchmarks.measure import Row, Spread, interleaved, seconds, spread_cells
from benchmarks.plain_loop import PlainLoop
from benchmarks.scene import Precision, Scene, make_pack

TEN = 10
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
EPOCHS_SECONDS = 2.5
"""Epochs are repeated for this time, at most five times."""
EPOCH_SECONDS = 10.0
"""Longest time of an epoch; a longer one is cut."""
MOVES = 3
WORTH = 1.03
"""The sweep ends unless a larger pack improves the rate by this factor."""

Found = TypeVar("Found")
Tell = Callable[[str, Any], None]
"""Called with "row" and a line of the section's table, or with "problem" and the failed measurement with its reason."""


def sweep(
    scene: Scene, tell: Tell, *, way: str, members: Sequence[int], to_the_end: bool, precision: Precision = "float32"
) -> None:
    """Time whole epochs of packs of ``members`` in order; ``to_the_end`` includes larger packs without gain."""
    last, failures = 0.0, 0
    for slots in members:
        row = _tried(f"{way}, {precision}, K={slots}", scene, tell, partial(_epochs, scene, slots, way, precision))
        if row is None:
            failures += 1
            if failures == 2:  # out of memory, or this way does not work here
                return
            continue
        failures = 0
        tell("row", row)
        rate = cast(float, row["member-steps per s"])
        if rate < last * WORTH and not to_the_end:
            tell(
                "problem", f"{way}: no bigger pack was tried, K={slots} does {rate / last:.2f} times what the last did"
            )
            return
        last = rate


def ten_seeds(scene: Scene, tell: Tell, *, way: str) -> None:
    """Compare the final training of ten seeds as a pack of ten with the plain loop, in turns."""
    spec = scene.spec(validation=False)
    # Name -> function that runs steps, steps of a turn, number of times that all steps are needed.
    turns: dict[str, tuple[Callable[[int], object], int, int]] = {}
    for adam in ("foreach", "fused"):
        run = partial(_to_the_end, PlainLoop(spec, scene.data, adam=adam, compiled=False))
        run(2)
        each = seconds(partial(run, 4)) / 4
        turns[f"ten runs in turn, eager, Adam {adam}"] = (run, _fitting(scene, 1.5, each, spec.steps_per_epoch), TEN)
    pack, each = scene.pack(TEN, way, validation=False)
    turns[f"a pack of ten, {way}"] = (pack.run, _fitting(scene, 1.5, each, spec.steps_per_epoch), 1)
    times = interleaved(
        {name: partial(run, steps) for name, (run, steps, _) in turns.items()},
        1 if scene.quick else 3,
    )
    totals = {name: times[name].per(steps, spec.total_steps * runs) for name, (_, steps, runs) in turns.items()}
    rival = min(spread.median for name, (spread, _) in totals.items() if "in turn" in name)
    for name, (spread, _) in totals.items():
        _, steps, runs = turns[name]
        row: Row = {
            "program": name,
            "ms per step": spread.median / spec.total_steps / runs * 1e3,
            **spread_cells(f"seconds for {TEN} x {spec.total_steps} steps, extrapolated", spread),
            "times as fast as in turn": rival / spread.median,
            "steps of a turn": steps,
            "n": spread.n,
        }
        tell("row", row)


def _to_the_end(loop: PlainLoop, steps: int) -> object:
    return loop.run(steps).tolist()  # waits for the device


def ten_seeds_for_real(scene: Scene, tell: Tell, *, way: str) -> None:
    """Run all steps of ten seeds' final training, from scratch, in one pack."""
    specs = [scene.spec(seed, validation=False) for seed in range(1, TEN + 1)]
    pack = make_pack(specs[0], scene.data, TEN, way)
    for spec in specs:
        pack.join(spec)
    length, epoch = specs[0].steps_per_epoch, 0
    epochs = 1 if scene.quick else specs[0].training.epochs
    start = time.perf_counter()
    while epoch < epochs and scene.seconds_left > 0:
        reports = pack.run(length)
        epoch += 1
    row: Row = {
        "program": f"a pack of ten, {way}",
        "epochs": epoch,
        "steps": epoch * length,
        "seconds": time.perf_counter() - start,
        "finite": sum(report.finite for report in reports.values()),
    }
    tell("row", row)


def precisions(scene: Scene, tell: Tell, *, way: str, slots: int) -> None:
    """Measure the speed of each precision at one K."""
    for which in PRECISIONS:
        sweep(scene, tell, way=way, members=(slots,), to_the_end=True, precision=which)


def moves(scene: Scene, tell: Tell, *, way: str, slots: Sequence[int]) -> None:
    """Measure the cost of joining and leaving, in milliseconds and in steps of the whole pack."""
    for k in slots:
        row = _tried(f"joining and leaving at K={k}", scene, tell, partial(_moves, scene, way, k))
        if row is not None:
            tell("row", row)


def _moves(scene: Scene, way: str, slots: int) -> Row:
    (pack, _), spec = scene.pack(slots, way), scene.spec()
    member = pack.state(0)
    quarter = max(1, slots // 4)

    def swap(count: int, state: Any) -> Callable[[], object]:
        def run() -> None:
            for slot in range(count):
                pack.leave(slot)
            for _ in range(count):
                pack.join(spec, state=state)
            scene.wait()

        return run

    steps = 2 if scene.quick else 10
    turns: dict[str, Callable[[], object]] = {
        "step": lambda: pack.run(steps),
        "new": swap(1, None),
        "kept": swap(1, member),
        "copied": lambda: pack.state(0),
        "quarter": swap(quarter, None),
    }
    for run in turns.values():
        run()
    times = {name: spread.per(1)[0].median for name, spread in interleaved(turns, MOVES).items()}
    step = times["step"] / steps
    return {
        "way": way,
        "K": slots,
        "step of the pack, ms": step,
        "leave + join new, ms": times["new"],
        "in steps": times["new"] / step,
        "leave + join with state, ms": times["kept"],
        "in steps ": times["kept"] / step,
        "copy of a state, ms": times["copied"],
        "refill of a quarter, ms": times["quarter"],
        "in steps  ": times["quarter"] / step,
        "n": MOVES,
    }


def checkpoints(scene: Scene, tell: Tell, *, way: str) -> None:
    """Measure the cost of writing and reading a member's checkpoint; a write includes the sync to disk."""
    from ladder_search.training.checkpoint import read_member, write_member  # needs safetensors

    state = scene.pack(1, way)[0].state(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "member"
        turns = {"write": partial(write_member, folder, state, {}), "read": partial(read_member, folder)}
        times = interleaved(turns, MOVES)
        size = sum(path.stat().st_size for path in folder.iterdir())
    row: Row = {"MB": size / 1e6}
    for name, spread in times.items():
        wall, cpu = spread.per(1)
        row |= {**spread_cells(f"{name}, ms", wall), f"CPU ms of the {name}": cpu.median}
    tell("row", {**row, "n": MOVES})


def _epochs(scene: Scene, slots: int, way: str, which: Precision) -> Row:
    before = scene.clear()
    start = time.perf_counter()
    (pack, step), spec = scene.pack(slots, way, precision=which), scene.spec()
    ready = time.perf_counter() - start
    steps = _fitting(scene, EPOCH_SECONDS, step, spec.steps_per_epoch)
    rounds = 2 if scene.quick else max(1, min(5, round(EPOCHS_SECONDS / (steps * step))))
    step_seconds = [seconds(lambda: pack.run(steps)) / steps for _ in range(rounds)]
    evaluated = statistics.median(seconds(pack.validation_errors) for _ in range(3))
    spread, peak = Spread.of([1e3 * t for t in step_seconds]), scene.peak()
    trial = spec.total_steps * spread.median / 1e3 + spec.training.epochs * evaluated
    return {
        "way": way,
        "precision": which,
        "K": slots,
        **spread_cells("ms per step", spread),
        "evaluation, ms": evaluated * 1e3,
        "member-steps per s": slots / spread.median * 1e3,
        "trials per hour": slots * 3600 / trial,
        "peak MiB per member": (peak - before) / slots / 2**20,
        "ready after, s": ready,
        "steps of a turn": steps,
        "n": spread.n,
    }


def _fitting(scene: Scene, wanted: float, each: float, most: int) -> int:
    """Return the number of steps that take ``wanted`` seconds at ``each``, at most ``most``."""
    return max(2, min(most, round((0.05 if scene.quick else wanted) / each)))


def _tried(name: str, scene: Scene, tell: Tell, do: Callable[[], Found]) -> Found | None:
    """Run ``do``; report a problem and return None if the time is up or it fails (memory, missing features)."""
    if scene.seconds_left <= 0:
        tell("problem", f"{name}: left out, the time was up")
        return None
    try:
        return do()
    except Exception as error:
        tell("problem", f"{name}: {brief(error)}")
        return None


def brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


SECTIONS: dict[str, Callable[..., None]] = {
    section.__name__: section for section in (sweep, ten_seeds, ten_seeds_for_real, precisions, moves, checkpoints)
}


def serve(pipe: Connection, study: str, device: str, quick: bool) -> None:
    """Main loop of a process: receive (section, end of its time, arguments), send its lines and ("end", None)."""
    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        name, until, arguments = order

        def tell(kind: str, value: Any) -> None:
            pipe.send((kind, value))

        try:
            SECTIONS[name](Scene(study, device, quick=quick, until=until), tell, **arguments)
        except Exception as error:  # errors of single lines are reported by the section
            tell("problem", f"{name}: {brief(error)}")
        tell("end", None)
