"""Measures a member's step in packs of several sizes on this device, with a second or two of real steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from ladder_search.training.memory import out_of_memory
from ladder_search.training.pack import MemberSpec, Pack

_ROUNDS = 3
_ROUND_SECONDS = 0.15
GAIN = 0.03
"""Saving that a larger pack must reach; after two in a row that do not reach it, probing stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The cost of one pack size."""

    slots: int
    """Trials in the pack."""
    member_step_ms: float
    """Wall time of a step of the pack divided by its members."""
    member_bytes: int
    """Device memory of a member, including a step's activations; 0 if unknown."""


def probe(make: Callable[[int], Pack], member: MemberSpec, sizes: Sequence[int], device: torch.device) -> list[Probed]:
    """Time packs of the given sizes, smallest first, until larger ones gain nothing or do not fit into memory.

    ``make`` returns an empty pack for a number of trials; every slot gets ``member`` with another seed. If the smallest
    pack does not fit, its ``MemoryError`` or ``RuntimeError`` is raised.
    """
    results: list[Probed] = []
    best, without_gain = float("inf"), 0
    for slots in sizes:
        try:
            probed = _probe_one(make, member, slots, device)
        except (MemoryError, RuntimeError) as error:
            if not results or out_of_memory(error) is None:
                raise
            break
        results.append(probed)
        without_gain = 0 if probed.member_step_ms <= (1 - GAIN) * best else without_gain + 1
        best = min(best, probed.member_step_ms)
        if without_gain == 2:
            break
    return results


def _probe_one(make: Callable[[int], Pack], member: MemberSpec, trials: int, device: torch.device) -> Probed:
    on_gpu = device.type == "cuda"
    if on_gpu:
        gc.collect()  # frees the last pack
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    pack = make(trials)
    for number in range(pack.slots):
        pack.join(replace(member, seed=member.seed + number))
    pack.run(2)  # one-time work
    started = time.perf_counter()
    pack.run(2)
    steps = max(2, round(2 * _ROUND_SECONDS / (time.perf_counter() - started)))
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        pack.run(steps)
        times.append((time.perf_counter() - started) / steps)
    used = torch.cuda.max_memory_allocated() - before if on_gpu else 0
    return Probed(slots=trials, member_step_ms=median(times) * 1e3 / pack.slots, member_bytes=round(used / pack.slots))
