"""Choose the number of trials per pack for ``--slots auto`` by a short benchmark.

A larger pack makes the step of a member cheaper, which is measured once per device and program, but must fit into the
device's memory. Starting a trial's process takes seconds. At most a quarter of the trials run concurrently, because
they cannot learn from each other.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError

from ladder_search import plugins
from ladder_search.config import as_mapping, build
from ladder_search.cores import usable_cores
from ladder_search.data.cache import cache_folder
from ladder_search.data.dataset import Dataset
from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_json
from ladder_search.plugins import Plugin
from ladder_search.training.probing import Probed, probe
from ladder_search.trial import TrialSpec

CPU_SIZES = (1, 2, 4, 8)
GPU_SIZES = (1, 4, 16, 64, 128, 256)
START_SECONDS = 2.5
"""CPU seconds until a trial's process trains: Python, Ray and Tune."""
GENERATIONS = 4
UNPROBED_ON_GPU = 16
"""Slots if the cluster must grow first: so many small networks take about a gigabyte and do not saturate a GPU."""
_WAIT_SECONDS = 90.0
_RECORDS = "slots.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    slots: int
    why: str
    note: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """The benchmarks of one program on one device, as stored in the cache."""

    device: str
    signature: str
    tried: int
    """Largest size requested; sizes beyond the last of ``probed`` did not gain."""
    probed: tuple[Probed, ...]


def bounded(slots: int, *, trials: int, gpus: float) -> int:
    """Return the configured number of slots, or the number of trials if that is smaller.

    With several GPUs per pack it is unchanged, because a trial's share must be a whole number of GPUs.
    """
    return slots if gpus > 1 else min(slots, max(1, trials))


def choose(
    spec: TrialSpec,
    dataset: Dataset,
    *,
    trials: int,
    programs: int,
    compiled: bool,
    cpus: float,
    gpus: float,
    private: bool,
) -> Choice:
    """Return how many trials should share ``cpus`` cores or a GPU.

    Args:
        programs: number of programs that the trials need; each has its own packs.
        compiled: whether steps are compiled. Compiled CPU steps do not gain from a pack, so trials stay alone.
        private: whether the cluster is this machine only, so that a CPU benchmark needs no other process.
    """
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    packs = max(1, int(have.get("GPU", 0) / gpus if gpus else have.get("CPU", 1) / cpus))
    at_most = max(1, trials // (GENERATIONS * packs * programs))
    sizes = [size for size in (GPU_SIZES if gpus else CPU_SIZES) if size <= at_most]
    if gpus > 1:
        return Choice(slots=1, why=f"one trial at a time: a pack trains on one GPU and a trial has {gpus:g}")
    if len(sizes) == 1:
        return Choice(slots=1, why=f"one trial at a time: {trials} trials are too few to share packs")
    if compiled and not gpus:
        return Choice(slots=1, why="one trial at a time: compiled steps of a CPU share nothing")
    asked = spec, dataset, sizes, "cuda" if gpus else "cpu", max(1, int(cpus))
    costs = _probed(*asked) if private and not gpus else _elsewhere(asked, cpus, gpus)
    if not costs:
        unprobed = max(size for size in sizes if size <= (UNPROBED_ON_GPU if gpus else 1))
        return Choice(slots=unprobed, why="no node was free for a probe")
    steps = trials * spec.draws * spec.member(dataset).total_steps
    cores = max(1.0, float(have.get("CPU", 1.0)))

    def seconds(one: Probed) -> float:
        return steps * one.member_step_ms / 1e3 / packs + packs * one.slots * START_SECONDS / cores

    best = min(costs, key=seconds)
    probes = ", ".join(f"{one.slots}: {one.member_step_ms:.3g} ms" for one in costs)
    return Choice(slots=best.slots, why=f"a trial's step in packs of {probes}; at most {at_most} of {trials} trials")


def _elsewhere(arguments: tuple[Any, ...], cpus: float, gpus: float) -> list[Probed]:
    spec, *others = arguments
    probed = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_probed_there)
    answer = probed.remote(plugins.sent(), spec.as_mapping(), *others)
    try:
        costs: list[Probed] = ray.get(answer, timeout=_WAIT_SECONDS)
    except (GetTimeoutError, RayError):
        ray.cancel(answer, force=True)
        return []
    return costs


def _probed_there(offered: Sequence[Plugin], settings: Mapping[str, Any], *others: Any) -> list[Probed]:
    """Call ``_probed`` in another process, to which settings of a plugin's family travel as plain values."""
    plugins.offer(offered)
    return _probed(TrialSpec.from_mapping(settings), *others)


def _probed(spec: TrialSpec, dataset: Dataset, sizes: Sequence[int], device: str, threads: int) -> list[Probed]:
    """Return the cost of packs of these sizes, cached per device."""
    cpu = f"{platform.processor() or platform.machine()}, {usable_cores()} cores"
    name = torch.cuda.get_device_name() if device == "cuda" else cpu
    member = spec.member(dataset, sources=spec.empty_sources())
    program = repr((name, threads, torch.__version__, spec.family, spec.draws, member.signature()))
    key = hashlib.sha256(program.encode()).hexdigest()[:16]
    place = cache_folder() / _RECORDS
    records = _read(place)
    cached = records.get(key)
    if cached is not None and cached.tried >= sizes[-1]:
        return [one for one in cached.probed if one.slots <= sizes[-1]]
    there, before = torch.device(device), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        costs = probe(
            lambda slots: spec.pack(dataset, slots=slots * spec.draws, compiled=False, device=there),
            member,
            sizes,
            there,
        )
    finally:
        torch.set_num_threads(before)
    record = _Record(device=name, signature=program, tried=sizes[-1], probed=tuple(costs))
    with suppress(OSError):  # the benchmark is repeated next time
        place.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({name: as_mapping(one) for name, one in {**records, key: record}.items()}, indent=1).encode()
        write_atomically(place, text)
    return costs


def _read(place: Path) -> dict[str, _Record]:
    try:
        return {key: build(_Record, record) for key, record in dict(read_json(place, 1 << 20)).items()}
    except (OSError, ValueError, TypeError, LookupError):
        return {}
