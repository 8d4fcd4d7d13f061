"""The training program: K >= 1 members trained together, stacked along a leading trial axis.

A pack has a fixed number of slots. Members join and leave at interval boundaries; a freed slot is refilled in place,
so a member at step 0 trains beside one at step 50,000. All that differs between members is data of the program: their
parameters, optimiser state, batches, noise, learning rates and hyper-parameters. A member's numbers depend on its own
settings and seed alone, and a member that becomes non-finite is reported so and hurts nobody.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.errors import CheckpointError, SettingError
from ladder_search.nn.network import Network
from ladder_search.nn.protocol import SOURCES, Stacking
from ladder_search.training import seeding
from ladder_search.training.evaluation import Evaluation, labelled_statistics, scores
from ladder_search.training.feeds import Feed, Stream, TrainingData
from ladder_search.training.member import Clock, MemberSpec
from ladder_search.training.memory import LARGE_BLOCK, keep_large_blocks
from ladder_search.training.noise import noise_keys
from ladder_search.training.program import Stack, make_step
from ladder_search.training.schedules import adam_scale
from ladder_search.training.stepping import Stepper, capture_graph

__all__ = ["Build", "IntervalReport", "MemberSpec", "MemberState", "Pack", "TrainingData"]


class Build(Protocol):
    def __call__(self, config: Any, *, generator: torch.Generator) -> Network:
        """Return the network of one member."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """All that a member needs to go on elsewhere; tensors are copies, without the trial axis."""

    step: int
    params: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    carried: dict[str, Tensor] = field(default_factory=dict)
    """What its last step left to the next, see ``nn.protocol.Windows``; empty for most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalReport:
    """What one member did in one interval."""

    step: int
    """Updates done since the member's start."""
    terms: dict[str, float]
    """Mean of every cost term over the interval."""
    learning_rate: float
    """Rate of the interval's last step."""
    step_time_ms: float
    """Wall time of one step of the whole pack."""
    finite: bool
    """False: the member diverged; its slot should be freed."""


class Pack:
    """K slots that train as one program.

    States of a slot::

        pack = Pack(spec, build, data, slots=4)   -> four empty slots
        slot = pack.join(spec)                    -> at step 0
        pack.run(600)[slot].step                  -> 600
        state = pack.state(slot)                  -> a copy, for a checkpoint or another slot
        pack.leave(slot)                          -> empty, to be refilled
        slot = pack.join(spec, state=state)       -> at step 600 again, in this pack or any other
    """

    def __init__(
        self,
        like: MemberSpec,
        build: Build,
        data: Feed,
        *,
        slots: int = 1,
        compiled: bool = False,
        captured: bool | None = None,
        stacking: Stacking = "vmap",
    ) -> None:
        """Make a pack of empty slots.

        Args:
            like: fixes the signature.
            build: makes the network of one member.
            data: the training set, on the device where the pack is to be, and how it is read.
            compiled: the step is compiled on its first use.
            captured: steps and evaluations become CUDA graphs on their first use; None: on CUDA.
            stacking: the family's; members of one that does not stack take turns, step by step.
        """
        if slots < 1:
            raise SettingError(f"a pack needs at least 1 slot, got {slots}; give a positive whole number.")
        self.signature = like.signature()
        self._build, self._data, self._stacking = build, data, stacking
        self._dtype = torch.float32 if like.training.dtype == "float32" else torch.float64
        self._device = data.x.device
        self._model = build(like.model, generator=seeding.generator(0)).to(self._device, self._dtype)
        params, constants = parted(self._model)

        def stack_of_zeros(like: Stack) -> Stack:
            return {n: torch.zeros((slots, *v.shape), dtype=self._dtype, device=self._device) for n, v in like.items()}

        self._params, self._first, self._second = (stack_of_zeros(params) for _ in range(3))
        self._constants = stack_of_zeros(constants)
        self._hyper: Stack = {
            name: torch.zeros((slots, len(values)), dtype=self._dtype, device=self._device)
            for name, values in like.model.hyper().items()
        }
        self._rows = data.rows(like)
        per_layer = (self._rows[0] + 2 * self._rows[1]) * self._model.widest
        if self._device.type == "cpu" and per_layer * self._dtype.itemsize >= LARGE_BLOCK:
            keep_large_blocks()
        self._carried: Stack = {
            name: torch.zeros((slots, like.training.labelled_batch, *shape), dtype=self._dtype, device=self._device)
            for name, shape in self._model.carried.items()
        }
        self._seats: list[_Seat | None] = [None] * slots
        self._term_names, self._measures = self._model.term_names, self._model.measures
        # Rows that evaluations read: one place for a member as long as it sits, as a captured program wants it.
        self._statistics_rows, self._validation_rows = (
            torch.zeros((slots, *rows.shape), dtype=torch.int64, device=self._device)
            for rows in (data.stream(like).statistics_rows(), like.split.validation)
        )
        step = make_step(
            self._model,
            data,
            noise_size=self._model.noise_size(*self._rows),
            compiled=compiled,
            precision=like.training.precision,
            clipping=like.training.clip_norm is not None,
        )
        capture = capture_graph if (self._device.type == "cuda" if captured is None else captured) else None
        self._stepper = Stepper(
            step,
            (self._params, self._first, self._second, self._hyper, self._constants, self._carried),
            data.x,
            data.y,
            terms=len(self._term_names),
            # A program for a CPU has no launches left that members could share, and larger products gain nothing: one
            # for a single member, which they take turns with, is as fast, and is compiled once for packs of all sizes.
            stacking="none" if compiled and self._device.type == "cpu" else stacking,
            compiled=compiled,
            precision=like.training.precision,
            capture=capture,
        )
        self._evaluation = Evaluation(
            self._model,
            self._params | self._constants,
            data,
            self._statistics_rows,
            self._validation_rows,
            capture=capture,
            stacking=stacking,
        )

    @property
    def slots(self) -> int:
        return len(self._seats)

    @property
    def compiled(self) -> bool:
        """Whether the step is compiled; after the first step, whether it could be."""
        return self._stepper.compiled

    @property
    def compile_failure(self) -> str:
        """Why the step is not compiled though it was to be; empty: it is, or was not to be."""
        return self._stepper.failure

    @property
    def active(self) -> list[int]:
        """Slots that hold a member."""
        return [slot for slot, seat in enumerate(self._seats) if seat is not None]

    def join(self, spec: MemberSpec, *, state: MemberState | None = None) -> int:
        """Seat a member in a free slot, at its start or where ``state`` left off, and return the slot.

        Raises:
            SettingError: the pack is full, or the member has another signature.
            CheckpointError: ``state`` is not of this model.
        """
        if spec.signature() != self.signature:
            raise SettingError(
                f"members of a pack share one signature, {self.signature}, got {spec.signature()}; start another pack."
            )
        free = [slot for slot, seat in enumerate(self._seats) if seat is None]
        if not free:
            raise SettingError(
                f"all {self.slots} slots of the pack are taken; wait for one to leave or start another pack."
            )
        slot = free[0]
        seat = _Seat(Clock(spec), self._data.stream(spec))
        constants = {name: value for name, value in spec.taken_over.items() if name.startswith(SOURCES)}
        if state is None:
            fresh = self._build(spec.model, generator=seeding.generator(spec.seed, seeding.INITIAL_WEIGHTS))
            initial = {name: value for name, value in spec.taken_over.items() if name not in constants}
            params = parted(fresh)[0] | initial
            zeros = {name: torch.zeros_like(value) for name, value in params.items()}
            start = {name: torch.zeros_like(stacked[slot], device="cpu") for name, stacked in self._carried.items()}
            state = MemberState(step=0, params=params, first=zeros, second=zeros, carried=start)
        stacks = (
            (self._params, state.params),
            (self._first, state.first),
            (self._second, state.second),
            (self._constants, constants),
            (self._carried, state.carried),
        )
        for stack, values in stacks:
            _check_fits(stack, values)
        for stack, values in stacks:
            for name, stacked in stack.items():
                stacked[slot].copy_(values[name])
        for name, values_ in spec.model.hyper().items():
            self._hyper[name][slot].copy_(torch.tensor(values_, dtype=self._dtype))
        self._statistics_rows[slot].copy_(torch.from_numpy(seat.stream.statistics_rows()))
        self._validation_rows[slot].copy_(torch.from_numpy(spec.split.validation))
        seat.clock.step = state.step
        self._seats[slot] = seat
        return slot

    def leave(self, slot: int) -> None:
        """Free a slot; its tensors are cleared, so that nothing of a diverged member is left to compute on."""
        self._seat(slot)
        self._seats[slot] = None
        for stack in (self._params, self._first, self._second, self._hyper, self._constants, self._carried):
            for stacked in stack.values():
                stacked[slot].zero_()

    def state(self, slot: int, *, device: torch.device | None = None) -> MemberState:
        """Return a copy of the member in ``slot``, on ``device`` or, without one, on the CPU."""
        seat, there = self._seat(slot), device or torch.device("cpu")
        params, first, second, carried = (
            {name: stacked[slot].detach().to(there, copy=True) for name, stacked in stack.items()}
            for stack in (self._params, self._first, self._second, self._carried)
        )
        return MemberState(step=seat.clock.step, params=params, first=first, second=second, carried=carried)

    def run(self, steps: int, slots: Collection[int] | None = None) -> dict[int, IntervalReport]:
        """Train seated members for ``steps`` steps and return a report per slot. Nothing is read back in between.

        Args:
            slots: who advances, all that are seated unless told. The others stand still bit for bit, whatever the
                program computes in their rows meanwhile, and get no report.
        """
        if steps < 1:
            raise SettingError(f"an interval needs at least 1 step, got {steps}; give a positive whole number.")
        seated = {slot: self._seat(slot) for slot in self._chosen(slots)}
        standing = [slot for slot in self.active if slot not in seated]
        # Copied aside and put back: one program serves any choice, and no mask has to survive a NaN.
        stacks = (self._params, self._first, self._second, self._carried)
        moving = [stacked for stack in stacks for stacked in stack.values()] if standing else []
        aside = [stacked[standing] for stacked in moving]
        tables = self._tables(seated, steps)
        begun = time.perf_counter()
        total = self._stepper.run(tables)
        for stacked, kept in zip(moving, aside, strict=True):
            stacked[standing] = kept
        # Second moments, too: they overflow first, and a parameter whose moment is infinite stands still for good.
        healthy = torch.isfinite(total).all(1) & _finite([*self._params.values(), *self._second.values()])
        means, finite = (total / steps).tolist(), healthy.tolist()  # the read-back, which waits for the device
        milliseconds = (time.perf_counter() - begun) * 1e3 / steps
        reports = {}
        for slot, seat in seated.items():
            clock = seat.clock
            clock.step += steps
            reports[slot] = IntervalReport(
                step=clock.step,
                terms=dict(zip(self._term_names, means[slot], strict=True)),
                learning_rate=clock.rate(clock.step - 1),
                step_time_ms=milliseconds,
                finite=finite[slot],
            )
        return reports

    def statistics(self, slots: Collection[int] | None = None) -> tuple[list[int], Stack]:
        """Return seated slots, all unless told, and their test-time statistics: buffer name -> (members, units).

        Raises:
            SettingError: nobody is seated.
        """
        chosen = self._chosen(slots)
        params, rows = self._params_of(chosen), self._statistics_rows[chosen]
        return chosen, labelled_statistics(self._model, params, self._data, rows, stacking=self._stacking)

    def validation_scores(self, slots: Collection[int] | None = None) -> dict[int, dict[str, float]]:
        """Return what seated members, all unless told, are judged by, each on the validation rows of its split.

        The first entry is what searches minimise; see the networks' ``measures``.
        """
        chosen = self._chosen(slots)
        if not self._validation_rows.shape[1]:
            raise SettingError(
                "a validation error needs validation rows, the split has 0; set data.validation above 0."
            )
        return {slot: self._named(row) for slot, row in zip(chosen, self._evaluation.scores(chosen), strict=True)}

    def validation_errors(self, slots: Collection[int] | None = None) -> dict[int, float]:
        """Return the first of ``validation_scores``."""
        return {slot: found[self._measures[0]] for slot, found in self.validation_scores(slots).items()}

    def test_scores(self, test: Feed) -> dict[int, dict[str, float]]:
        """Return each seated member's scores on all rows of a test set."""
        slots, statistics = self.statistics()
        state = {**self._params_of(slots), **statistics}
        found = scores(self._model, state, test, stacking=self._stacking).tolist()
        return {slot: self._named(row) for slot, row in zip(slots, found, strict=True)}

    def test_errors(self, test: Feed) -> dict[int, float]:
        """Return the first of ``test_scores``."""
        return {slot: found[self._measures[0]] for slot, found in self.test_scores(test).items()}

    def _named(self, row: list[float]) -> dict[str, float]:
        return dict(zip(self._measures, row, strict=True))

    def module(self, slot: int) -> Network:
        """Return the member as a plain module with its test-time statistics in place, on the CPU."""
        return self.modules([slot])[slot]

    def modules(self, slots: Collection[int] | None = None) -> dict[int, Network]:
        """Return seated members, all unless told, as plain modules with their test-time statistics, on the CPU."""
        chosen, statistics = self.statistics(slots)
        found = {}
        for row, slot in enumerate(chosen):
            module = self._build(self._seat(slot).clock.spec.model, generator=seeding.generator(0)).to(self._dtype)
            own = {**self._params, **self._constants}
            tensors = {name: stacked[slot].detach().cpu().clone() for name, stacked in own.items()}
            tensors |= {name: value[row].cpu() for name, value in statistics.items()}
            module.load_state_dict(tensors)
            found[slot] = module
        return found

    def _seat(self, slot: int) -> _Seat:
        seat = self._seats[slot]
        if seat is None:
            raise SettingError(f"slot {slot} of the pack is empty; seated are {self.active}.")
        return seat

    def _chosen(self, slots: Collection[int] | None) -> list[int]:
        """The named slots in their order, each of them seated; all seated ones for None."""
        chosen = self.active if slots is None else sorted(set(slots))
        if not chosen:
            raise SettingError("a pack trains and evaluates members and no slot is taken or named; let one join first.")
        for slot in chosen:
            self._seat(slot)
        return chosen

    def _params_of(self, slots: list[int]) -> Stack:
        """Parameters and constants of some slots."""
        everything = self._params | self._constants
        if len(slots) == self.slots:
            return everything
        return {name: stacked[slots] for name, stacked in everything.items()}

    def _tables(self, seated: dict[int, _Seat], steps: int) -> tuple[Tensor, ...]:
        """What the steps of an interval read, each (steps, K, ...): see ``make_step``, from ``rate`` to ``rows``."""
        scales = np.zeros((4, steps, self.slots))  # rate, root, progress, clip
        scales[[1, 3]] = 1.0
        keys = np.zeros((steps, self.slots), np.int64)
        rows: list[NDArray[np.int64]] = []
        for slot, seat in seated.items():
            clock = seat.clock
            updates = np.arange(clock.step, clock.step + steps)
            scales[:2, :, slot] = adam_scale(updates + 1, clock.rates(updates))
            scales[2, :, slot] = clock.progress(updates)
            scales[3, :, slot] = clock.spec.training.clip_norm or 1.0
            keys[:, slot] = noise_keys(clock.spec.seed, clock.step, steps)
            tables = seat.stream.tables(clock.step, steps)
            if not rows:  # an empty slot reads row 0 of the data
                rows = [np.zeros((steps, self.slots, *table.shape[1:]), np.int64) for table in tables]
            for place, table in zip(rows, tables, strict=True):
                place[:, slot] = table
        scheduled = torch.from_numpy(scales).to(self._device, self._dtype)
        return *scheduled, *(torch.from_numpy(table).to(self._device) for table in (keys, *rows))


@dataclass(frozen=True, slots=True)
class _Seat:
    """The host-side half of a member."""

    clock: Clock
    stream: Stream


def parted(module: Network) -> tuple[Stack, Stack]:
    """Return a module's parameters, followers that are buffers among them, and its constants: earlier stages."""
    everything, followers = module.state_dict(), module.followers
    params = {name: v.detach() for name, v in module.named_parameters() if not name.startswith(SOURCES)}
    params |= {name: everything[name] for name in followers if name not in params}
    return params, {name: v for name, v in everything.items() if name.startswith(SOURCES)}


def _finite(stacks: list[Tensor]) -> Tensor:
    """Whether every number of a member is finite, (K,)."""
    # A sum that is finite has finite terms, and costs a tenth; one that is not may have overflowed.
    sums = torch.stack([stacked.reshape(len(stacked), -1).sum(1) for stacked in stacks])
    if torch.isfinite(sums).all():
        return torch.ones_like(sums[0], dtype=torch.bool)
    return torch.stack([torch.isfinite(stacked.reshape(len(stacked), -1)).all(1) for stacked in stacks]).all(0)


def _check_fits(stack: Stack, values: dict[str, Tensor]) -> None:
    # Copying alone would let a tensor with an axis of length 1 spread over a longer one.
    needed = {name: tuple(stacked.shape[1:]) for name, stacked in stack.items()}
    found = {name: tuple(value.shape) for name, value in values.items()}
    for name in sorted(needed.keys() | found.keys()):
        if needed.get(name) != found.get(name):
            raise CheckpointError(
                f"a member's state must fit its model, whose {name!r} has the shape {needed.get(name)}, "
                f"got {found.get(name)}; join it with the settings it was trained with."
            )
