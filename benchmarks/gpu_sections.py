"""What one process of the GPU benchmark measures: epochs of packs, moves of members, checkpoints, and ten seeds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, interleaved, seconds, spread_cells
from benchmarks.plain_loop import PlainLoop
from benchmarks.scene import Precision, Scene

TEN = 10
EPOCHS_SECONDS = 2.5
"""Epochs are repeated for this time, at most five times."""
EPOCH_SECONDS = 10.0
"""Longest time of an epoch; a longer one is cut."""
MOVES = 3


def epochs(scene: Scene, *, slots: int, way: str, precision: Precision) -> list[Row]:
    """Time whole epochs of a pack, and its evaluation and memory."""
    before, start = scene.clear(), time.perf_counter()
    (pack, step), spec = scene.pack(slots, way, precision=precision), scene.spec()
    ready = time.perf_counter() - start
    steps = _fitting(scene, EPOCH_SECONDS, step, spec.steps_per_epoch)
    rounds = 2 if scene.quick else max(1, min(5, round(EPOCHS_SECONDS / (steps * step))))
    times = [1e3 * seconds(partial(pack.run, steps)) / steps for _ in range(rounds)]
    evaluated = median(seconds(pack.validation_errors) for _ in range(3))
    trial = spec.total_steps * median(times) / 1e3 + spec.training.epochs * evaluated
    return [
        {
            "way": way,
            "precision": precision,
            "K": slots,
            **spread_cells("ms per step", times),
            "evaluation, ms": evaluated * 1e3,
            "member-steps per s": slots / median(times) * 1e3,
            "trials per hour": slots * 3600 / trial,
            "peak MiB per member": (scene.peak() - before) / slots / 2**20,
            "ready after, s": ready,
            "steps of a turn": steps,
            "n": rounds,
        }
    ]


def ten_seeds(scene: Scene, *, way: str) -> list[Row]:
    """Compare the final training of ten seeds as a pack of ten with the plain loop, in turns."""
    spec = scene.spec(validation=False)

    def fitting(each: float) -> int:
        return _fitting(scene, 1.5, each, spec.steps_per_epoch)

    # Name -> function that runs steps, steps of a turn, number of times that all steps are needed.
    turns: dict[str, tuple[Callable[[int], object], int, int]] = {}
    for adam in ("foreach", "fused"):
        run = PlainLoop(spec, scene.data, adam=adam).waited
        run(2)
        turns[f"ten runs in turn, eager, Adam {adam}"] = run, fitting(seconds(partial(run, 4)) / 4), TEN
    pack, each = scene.pack(TEN, way, validation=False)
    turns[f"a pack of ten, {way}"] = pack.run, fitting(each), 1
    times = interleaved({name: partial(run, steps) for name, (run, steps, _) in turns.items()}, 1 if scene.quick else 3)
    totals = {name: times[name].per(steps, spec.total_steps * runs)[0] for name, (_, steps, runs) in turns.items()}
    rival = min(median(total) for name, total in totals.items() if "in turn" in name)
    return [
        {
            "program": name,
            "ms per step": median(total) / spec.total_steps / turns[name][2] * 1e3,
            **spread_cells(f"seconds for {TEN} x {spec.total_steps} steps, extrapolated", total),
            "times as fast as in turn": rival / median(total),
            "steps of a turn": turns[name][1],
            "n": len(total),
        }
        for name, total in totals.items()
    ]


def moves(scene: Scene, *, way: str, slots: int) -> list[Row]:
    """Measure the cost of joining and leaving, in milliseconds and in steps of the whole pack."""
    (pack, _), spec = scene.pack(slots, way), scene.spec()
    member = pack.state(0)

    def swap(count: int, state: Any) -> None:
        for slot in range(count):
            pack.leave(slot)
        for _ in range(count):
            pack.join(spec, state=state)
        scene.wait()

    steps = 2 if scene.quick else 10
    turns: dict[str, Callable[[], object]] = {
        "step": partial(pack.run, steps),
        "leave + join new, ms": partial(swap, 1, None),
        "leave + join with state, ms": partial(swap, 1, member),
        "copy of a state, ms": partial(pack.state, 0),
        "refill of a quarter, ms": partial(swap, max(1, slots // 4), None),
    }
    for run in turns.values():
        run()
    times = {name: median(one.per(1)[0]) for name, one in interleaved(turns, MOVES).items()}
    step = times.pop("step") / steps
    in_steps = {name.replace("ms", "steps"): times[name] / step for name in times if "copy" not in name}
    return [{"way": way, "K": slots, "step of the pack, ms": step, **times, **in_steps, "n": MOVES}]


def checkpoints(scene: Scene, *, way: str) -> list[Row]:
    """Measure the cost of writing and reading a member's checkpoint; a write includes the sync to disk."""
    from ladder_search.training.checkpoint import read_member, write_member  # needs safetensors

    state = scene.pack(1, way)[0].state(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "member"
        turns = {"write": partial(write_member, folder, state, {}), "read": partial(read_member, folder)}
        times = interleaved(turns, MOVES)
        row: Row = {"MB": sum(path.stat().st_size for path in folder.iterdir()) / 1e6}
    for what, one in times.items():
        wall, cpu = one.per(1)
        row |= {**spread_cells(f"{what}, ms", wall), f"CPU ms of the {what}": median(cpu)}
    return [{**row, "n": MOVES}]


def _fitting(scene: Scene, wanted: float, each: float, most: int) -> int:
    """Return the number of steps that take ``wanted`` seconds at ``each``, at most ``most``."""
    return max(2, min(most, round((0.05 if scene.quick else wanted) / each)))


SECTIONS: dict[str, Callable[..., list[Row]]] = {
    section.__name__: section for section in (epochs, ten_seeds, moves, checkpoints)
}
