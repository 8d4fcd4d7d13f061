"""The trials of a study for the benchmarks of packs: the study's numbers, on random images of its data's size.

Speed does not depend on the content of images. The numbers are repeated here, because a machine with torch and numpy
alone cannot import ``ladder_search.studies``; a test compares the two.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.plain_loop import BUILD
from ladder_search.data.splits import Split, make_split
from ladder_search.models.ladder import LadderConfig
from ladder_search.training.pack import MemberSpec, MemberState, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig

Precision = Literal["float32", "tf32", "bf16"]
CLASSES = 10
WARM_UP = 8
"""Steps before timing: the first half compiles and captures, the second gives the duration of a step."""

WAYS: dict[str, tuple[bool, bool]] = {
    "eager": (False, False),
    "captured": (False, True),
    "compiled": (True, False),
    "compiled, captured": (True, True),
}
"""Way of running a step -> compiled by inductor, captured in a CUDA graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The numbers of a study's trial."""

    model: LadderConfig
    training: TrainingConfig
    rows: int
    """Images of the training set, including held-out ones."""
    labels: int
    validation: int
    full_scale: float


WORKLOADS = {
    "mnist-100-full": Workload(
        model=LadderConfig(),
        training=TrainingConfig(),
        rows=60_000,
        labels=100,
        validation=10_000,
        full_scale=255.0,
    ),
    "digits-100": Workload(
        model=LadderConfig(widths=(64, 200, 100, 50, 50, 50, 10)),
        training=TrainingConfig(epochs=75),
        rows=1_297,
        labels=100,
        validation=297,
        full_scale=16.0,
    ),
}
"""Study -> its numbers. Both report and evaluate once per epoch here."""


def make_pack(spec: MemberSpec, data: TrainingData, slots: int, way: str) -> Pack:
    """Return an empty pack for trials like ``spec`` that runs in one of the ``WAYS``."""
    compiled, captured = WAYS[way]
    return Pack(spec, BUILD, data, slots=slots, compiled=compiled, captured=captured)


class Scene:
    """One study on one device, until a time of ``time.monotonic``."""

    def __init__(self, study: str, device: str, *, quick: bool, until: float) -> None:
        self.work, self.device, self.quick, self._until = WORKLOADS[study], torch.device(device), quick, until

    @property
    def seconds_left(self) -> float:
        return self._until - time.monotonic()

    @cached_property
    def data(self) -> TrainingData:
        """Random images, sorted by class."""
        rng = np.random.default_rng(0)
        pixels = rng.integers(
            0, int(self.work.full_scale) + 1, (self.work.rows, self.work.model.widths[0]), dtype=np.uint8
        )
        classes = torch.from_numpy(np.arange(self.work.rows) % CLASSES)
        return TrainingData(
            x=torch.from_numpy(pixels).to(self.device), y=classes.to(self.device), full_scale=self.work.full_scale
        )

    @cached_property
    def _splits(self) -> dict[int, Split]:
        work, labels = self.work, np.arange(self.work.rows) % CLASSES
        return {
            held_out: make_split(labels, n_labelled=work.labels, n_validation=held_out, n_classes=CLASSES, seed=1)
            for held_out in (0, work.validation)
        }

    def spec(self, seed: int = 1, *, validation: bool = True, precision: Precision = "float32") -> MemberSpec:
        """Return a trial of a search, or without ``validation`` of final training, which holds nothing out."""
        training = replace(self.work.training, precision=precision)
        split = self._splits[self.work.validation if validation else 0]
        return MemberSpec(model=self.work.model, training=training, split=split, seed=seed)

    def pack(
        self, slots: int, way: str, *, validation: bool = True, precision: Precision = "float32"
    ) -> tuple[Pack, float]:
        """Return a full, warm pack of seeds 1..slots, and the approximate seconds of a step. It is at the end of its
        first epoch, so that an interval of one epoch draws one order of the rows, as in a search."""
        specs = [self.spec(seed, validation=validation, precision=precision) for seed in range(1, slots + 1)]
        pack = make_pack(specs[0], self.data, slots, way)
        state = self._state(specs[0].steps_per_epoch - WARM_UP)
        for spec in specs:
            pack.join(spec, state=state)
        pack.run(WARM_UP // 2)
        last = pack.run(WARM_UP - WARM_UP // 2)
        if validation:
            pack.validation_errors()
        return pack, last[0].step_time_ms / 1e3

    def _state(self, step: int) -> MemberState:
        """Return weights that all members share; making a thousand would take longer than timing them."""
        module = BUILD(self.work.model, generator=torch.Generator().manual_seed(1))
        params = {name: value.detach().to(self.device) for name, value in module.named_parameters()}
        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        return MemberState(step=step, params=params, first=zeros, second=zeros)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def clear(self) -> int:
        """Free unused memory; return the bytes that the device's allocator, or the process, still holds."""
        gc.collect()
        if self.device.type != "cuda":
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak of the process
            return self.peak()
        torch.compiler.reset()  # unused programs of other packs hold memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_reserved()

    def peak(self) -> int:
        """Return the peak bytes since ``clear``: of the device's allocator with graphs, or of the process (Linux)."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved()
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def ways_of(device: str, *, quick: bool) -> Sequence[str]:
    """Return the ways that the device supports, the safest first."""
    if device == "cuda":
        return ("captured", "eager") if quick else ("captured", "compiled, captured", "eager")
    return ("eager",) if quick else ("eager", "compiled")
