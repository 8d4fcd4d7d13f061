"""What a member's step costs in packs of several sizes on this device: a second or two of real steps."""

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
"""A larger pack has to save so much of a member's step; after two in a row that do not, no larger one is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A size of the pack and its cost."""

    slots: int
    """Trials in it."""
    member_step_ms: float
    """Wall time of a step of the pack divided by its members."""
    member_bytes: int
    """Memory that a member takes on the device, activations of a step among it; 0 where it cannot be told."""


def probe(make: Callable[[int], Pack], member: MemberSpec, sizes: Sequence[int], device: torch.device) -> list[Probed]:
    """Time packs of these sizes, smallest first, until a larger one gains nothing or does not fit into memory.

    Args:
        make: returns an empty pack for so many trials.
        member: what is trained; every member gets a seed of its own.
        device: the packs' own.

    Raises:
        MemoryError, RuntimeError: not even the smallest fits into memory, or something else is wrong.
    """
    found: list[Probed] = []
    best, in_vain = float("inf"), 0
    for slots in sizes:
        try:
            probed = _probe_one(make, member, slots, device)
        except (MemoryError, RuntimeError) as error:
            if not found or out_of_memory(error) is None:
                raise
            break
        found.append(probed)
        in_vain = 0 if probed.member_step_ms <= (1 - GAIN) * best else in_vain + 1
        best = min(best, probed.member_step_ms)
        if in_vain == 2:
            break
    return found


def _probe_one(make: Callable[[int], Pack], member: MemberSpec, trials: int, device: torch.device) -> Probed:
    on_gpu = device.type == "cuda"
    if on_gpu:
        gc.collect()  # the last pack
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    pack = make(trials)
    for number in range(pack.slots):
        pack.join(replace(member, seed=member.seed + number))
    pack.run(2)  # what is only done once
    begun = time.perf_counter()
    pack.run(2)
    steps = max(2, round(2 * _ROUND_SECONDS / (time.perf_counter() - begun)))
    taken = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        pack.run(steps)
        taken.append((time.perf_counter() - begun) / steps)
    used = torch.cuda.max_memory_allocated() - before if on_gpu else 0
    return Probed(slots=trials, member_step_ms=median(taken) * 1e3 / pack.slots, member_bytes=round(used / pack.slots))
