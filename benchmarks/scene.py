"""The trials of a study for the benchmarks of packs, on random images of its data's size.

Speed does not depend on the content of images, and a machine with torch and numpy alone needs no data set.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.plain_loop import BUILD
from ladder_search.data.dataset import Dataset
from ladder_search.studies import find_study
from ladder_search.training.feeding import training_feed
from ladder_search.training.pack import MemberSpec, MemberState, Pack, TrainingData

Precision = Literal["float32", "tf32", "bf16"]
STUDIES = ("mnist-100-full", "digits-100")
SIZES = {"mnist": (60_000, 255.0), "digits": (1_297, 16.0)}
"""Data set -> images of the training set, including held-out ones, and their full scale."""
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


class Scene:
    """One study on one device, with an evaluation in every epoch."""

    def __init__(self, study: str, device: str, *, quick: bool = False) -> None:
        self.trial, self.device, self.quick = find_study(study).trial(), torch.device(device), quick

    @cached_property
    def dataset(self) -> Dataset:
        name = self.trial.data.dataset
        rows, full_scale = SIZES[name]
        shape = (rows, *self.trial.model.example_shape)
        x = np.random.default_rng(0).integers(0, int(full_scale) + 1, shape, dtype=np.uint8)
        y = (np.arange(rows) % CLASSES).astype(np.uint8)
        return Dataset(
            name=name, train_x=x, train_y=y, test_x=x[:0], test_y=y[:0],
            full_scale=full_scale, n_classes=CLASSES, digest=f"random {name}",
        )  # fmt: skip

    @cached_property
    def data(self) -> TrainingData:
        feed = training_feed(self.spec(), self.dataset, self.device)
        assert isinstance(feed, TrainingData)
        return feed

    @cached_property
    def _members(self) -> dict[bool, MemberSpec]:
        """A trial of a search, and without validation one of final training, which holds nothing out."""
        final = replace(self.trial, data=replace(self.trial.data, validation=0))
        return {True: self.trial.member(self.dataset), False: final.member(self.dataset)}

    def spec(self, seed: int = 1, *, validation: bool = True, precision: Precision = "float32") -> MemberSpec:
        member = self._members[validation]
        return replace(member, seed=seed, training=replace(member.training, precision=precision))

    def pack(
        self, slots: int, way: str, *, validation: bool = True, precision: Precision = "float32"
    ) -> tuple[Pack, float]:
        """Return a full, warm pack of seeds 1..slots, and the approximate seconds of a step. It is at the end of its
        first epoch, so that an interval of one epoch draws one order of the rows, as in a search."""
        specs = [self.spec(seed, validation=validation, precision=precision) for seed in range(1, slots + 1)]
        compiled, captured = WAYS[way]
        pack = Pack(specs[0], BUILD, self.data, slots=slots, compiled=compiled, captured=captured)
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
        module = BUILD(self.trial.model, generator=torch.Generator().manual_seed(1))
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


def ways_of(device: str, *, quick: bool) -> tuple[str, ...]:
    """Return the ways that the device supports, the safest first."""
    if device == "cuda":
        return ("captured", "eager") if quick else ("captured", "compiled, captured", "eager")
    return ("eager",) if quick else ("eager", "compiled")
