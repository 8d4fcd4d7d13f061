"""Packs: K >= 1 members trained together, stacked along a leading trial axis.

A pack has a fixed number of slots. Members join and leave at interval boundaries, and freed slots are reused, so that a
member at step 0 can train beside one at step 50,000. Members differ only in data of the program: parameters, optimiser
state, batches, noise, learning rates and hyper-parameters. A member's results depend only on its own settings and seed;
a non-finite member is reported and does not affect the others.
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
from ladder_search.training.member import MemberSpec
from ladder_search.training.memory import LARGE_BLOCK, keep_large_blocks
from ladder_search.training.noise import noise_keys
from ladder_search.training.program import Stack, make_step
from ladder_search.training.schedules import adam_scale, learning_rate
from ladder_search.training.stepping import Stepper, capture_graph

__all__ = ["Build", "IntervalReport", "MemberSpec", "MemberState", "Pack", "TrainingData"]


class Build(Protocol):
    def __call__(self, config: Any, *, generator: torch.Generator) -> Network: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """The full state of a member; tensors are copies, without the trial axis."""

    step: int
    params: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    carried: dict[str, Tensor] = field(default_factory=dict)
    """State of the last step for the next one, see ``nn.protocol.Windows``; usually empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalReport:
    """Results of one member in one interval."""

    step: int
    """Updates since the member's start."""
    terms: dict[str, float]
    """Mean of every cost term over the interval."""
    learning_rate: float
    """Learning rate of the interval's last step."""
    step_time_ms: float
    """Wall time of one step of the whole pack."""
    finite: bool
    """False if the member diverged; its slot should be freed."""


class Pack:
    """K slots that train as one program.

    States of a slot::

        pack = Pack(spec, build, data, slots=4)   -> four empty slots
        slot = pack.join(spec)                    -> at step 0
        pack.run(600)[slot].step                  -> 600
        state = pack.state(slot)                  -> a copy, for a checkpoint or another slot
        pack.leave(slot)                          -> empty
        slot = pack.join(spec, state=state)       -> at step 600 again, in this or another pack
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
        """Create a pack of empty slots.

        Args:
            like: a member that determines the signature.
            data: the training set, on the pack's device.
            compiled: compile the step on its first use.
            captured: capture steps and evaluations as CUDA graphs on their first use; None: on CUDA only.
            stacking: of the family; without stacking, members take turns in every step.
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
        self._term_names, self._judged = self._model.term_names, like.measures
        self._measures = like.measures or self._model.measures
        # Rows for evaluation, at a fixed address per slot, as captured programs require.
        self._statistics_rows, self._validation_rows = (
            torch.zeros((slots, *shape), dtype=torch.int64, device=self._device)
            for shape in (data.stream(like).statistics_rows().shape, (like.split.sizes.validation,))
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
            # A compiled CPU program has no launches to share, and larger products are not faster. A program for a
            # single member, used in turn, is equally fast, and is compiled once for packs of all sizes.
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
            measures=self._judged,
        )

    @property
    def slots(self) -> int:
        return len(self._seats)

    @property
    def compiled(self) -> bool:
        """Whether the step is compiled; False after a failed compilation."""
        return self._stepper.compiled

    @property
    def compile_failure(self) -> str:
        """Why the step could not be compiled; empty if it was, or was not meant to be."""
        return self._stepper.failure

    @property
    def active(self) -> list[int]:
        return [slot for slot, seat in enumerate(self._seats) if seat is not None]

    def join(self, spec: MemberSpec, *, state: MemberState | None = None) -> int:
        """Seat a member in a free slot, at its start or at ``state``, and return the slot.

        Raises:
            SettingError: the pack is full, or the member has another signature.
            CheckpointError: ``state`` does not fit the model.
        """
        if spec.signature() != self.signature:
            raise SettingError(
                f"members of a pack share one signature, {self.signature}, got {spec.signature()}; start another pack."
            )
        free = [slot for slot, seat in enumerate(self._seats) if seat is None]
        if not free:
            raise SettingError(
                f"all {self.slots} slots of the pack are taken; wait until a member leaves or start another pack."
            )
        slot = free[0]
        seat = _Seat(spec, self._data.stream(spec), state.step if state else 0)
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
        self._validation_rows[slot].fill_(-1)  # a fold may have one row less than others
        self._validation_rows[slot, : len(spec.split.validation)].copy_(torch.from_numpy(spec.split.validation))
        self._seats[slot] = seat
        return slot

    def leave(self, slot: int) -> None:
        """Free a slot and clear its tensors, so that a diverged member's values are not computed on."""
        self._seat(slot)
        self._seats[slot] = None
        for stack in (self._params, self._first, self._second, self._hyper, self._constants, self._carried):
            for stacked in stack.values():
                stacked[slot].zero_()

    def state(self, slot: int, *, device: torch.device | None = None) -> MemberState:
        """Return a copy of the member in ``slot``, on ``device`` or the CPU."""
        seat, target = self._seat(slot), device or torch.device("cpu")
        params, first, second, carried = (
            {name: stacked[slot].detach().to(target, copy=True) for name, stacked in stack.items()}
            for stack in (self._params, self._first, self._second, self._carried)
        )
        return MemberState(step=seat.step, params=params, first=first, second=second, carried=carried)

    def run(self, steps: int, slots: Collection[int] | None = None) -> dict[int, IntervalReport]:
        """Train ``slots``, by default all seated ones, for ``steps`` steps, and return a report per slot.

        The host does not synchronise in between. The other slots keep their state exactly and get no report.
        """
        if steps < 1:
            raise SettingError(f"an interval needs at least 1 step, got {steps}; give a positive whole number.")
        seated = {slot: self._seat(slot) for slot in self._chosen(slots)}
        skipped = [slot for slot in self.active if slot not in seated]
        # Saved and restored: one program serves any choice of slots, without masks, which would not stop NaN.
        stacks = (self._params, self._first, self._second, self._carried)
        tensors = [stacked for stack in stacks for stacked in stack.values()] if skipped else []
        saved = [stacked[skipped] for stacked in tensors]
        tables = self._tables(seated, steps)
        started = time.perf_counter()
        total = self._stepper.run(tables)
        for stacked, values in zip(tensors, saved, strict=True):
            stacked[skipped] = values
        # Includes second moments: they overflow first, and a parameter with an infinite moment never changes again.
        healthy = torch.isfinite(total).all(1) & _finite([*self._params.values(), *self._second.values()])
        means, finite = (total / steps).tolist(), healthy.tolist()  # synchronises with the device
        milliseconds = (time.perf_counter() - started) * 1e3 / steps
        reports = {}
        for slot, seat in seated.items():
            seat.step += steps
            reports[slot] = IntervalReport(
                step=seat.step,
                terms=dict(zip(self._term_names, means[slot], strict=True)),
                learning_rate=seat.rate(seat.step - 1),
                step_time_ms=milliseconds,
                finite=finite[slot],
            )
        return reports

    def statistics(self, slots: Collection[int] | None = None) -> tuple[list[int], Stack]:
        """Return ``slots``, by default all seated ones, and their test-time statistics: name -> (members, units)."""
        seated = self._chosen(slots)
        params, rows = self._params_of(seated), self._statistics_rows[seated]
        return seated, labelled_statistics(self._model, params, self._data, rows, stacking=self._stacking)

    def validation_scores(self, slots: Collection[int] | None = None) -> dict[int, dict[str, float]]:
        """Return each member's scores on its validation rows; the first one is what searches minimise."""
        seated = self._chosen(slots)
        if not self._validation_rows.shape[1]:
            raise SettingError(
                "a validation error needs validation rows, the split has 0; set data.validation above 0, or data.folds."
            )
        return {slot: self._named(row) for slot, row in zip(seated, self._evaluation.scores(seated), strict=True)}

    def validation_errors(self, slots: Collection[int] | None = None) -> dict[int, float]:
        """Return the first of the ``validation_scores``."""
        return {slot: by_measure[self._measures[0]] for slot, by_measure in self.validation_scores(slots).items()}

    def test_scores(self, test: Feed) -> dict[int, dict[str, float]]:
        """Return the scores of all seated members on a whole test set."""
        slots, statistics = self.statistics()
        state = {**self._params_of(slots), **statistics}
        rows = scores(self._model, state, test, stacking=self._stacking, measures=self._judged).tolist()
        return {slot: self._named(row) for slot, row in zip(slots, rows, strict=True)}

    def test_errors(self, test: Feed) -> dict[int, float]:
        """Return the first of the ``test_scores``."""
        return {slot: by_measure[self._measures[0]] for slot, by_measure in self.test_scores(test).items()}

    def _named(self, row: list[float]) -> dict[str, float]:
        return dict(zip(self._measures, row, strict=True))

    def module(self, slot: int) -> Network:
        """Return the member as a plain module on the CPU, with its test-time statistics."""
        return self.modules([slot])[slot]

    def modules(self, slots: Collection[int] | None = None) -> dict[int, Network]:
        """Return seated members, by default all, as plain modules on the CPU with their test-time statistics."""
        seated, statistics = self.statistics(slots)
        networks = {}
        for row, slot in enumerate(seated):
            module = self._build(self._seat(slot).spec.model, generator=seeding.generator(0)).to(self._dtype)
            stacks = {**self._params, **self._constants}
            tensors = {name: stacked[slot].detach().cpu().clone() for name, stacked in stacks.items()}
            tensors |= {name: value[row].cpu() for name, value in statistics.items()}
            module.load_state_dict(tensors)
            networks[slot] = module
        return networks

    def _seat(self, slot: int) -> _Seat:
        seat = self._seats[slot]
        if seat is None:
            raise SettingError(f"slot {slot} of the pack is empty; seated are {self.active}.")
        return seat

    def _chosen(self, slots: Collection[int] | None) -> list[int]:
        """Return ``slots`` in ascending order, checked to be seated; all seated ones for None."""
        chosen = self.active if slots is None else sorted(set(slots))
        if not chosen:
            raise SettingError("a pack trains and evaluates members and no slot is taken or named; let one join first.")
        for slot in chosen:
            self._seat(slot)
        return chosen

    def _params_of(self, slots: list[int]) -> Stack:
        stacks = self._params | self._constants
        if len(slots) == self.slots:
            return stacks
        return {name: stacked[slots] for name, stacked in stacks.items()}

    def _tables(self, seated: dict[int, _Seat], steps: int) -> tuple[Tensor, ...]:
        """Return the inputs of an interval's steps, each (steps, K, ...); see ``make_step``, ``rate`` to ``rows``."""
        scales = np.zeros((4, steps, self.slots))  # rate, root, progress, clip
        scales[[1, 3]] = 1.0
        keys = np.zeros((steps, self.slots), np.int64)
        rows: list[NDArray[np.int64]] = []
        for slot, seat in seated.items():
            updates = np.arange(seat.step, seat.step + steps)
            scales[:2, :, slot] = adam_scale(updates + 1, seat.rates(updates))
            scales[2, :, slot] = seat.progress(updates)
            scales[3, :, slot] = seat.spec.training.clip_norm or 1.0
            keys[:, slot] = noise_keys(seat.spec.seed, seat.step, steps)
            tables = seat.stream.tables(seat.step, steps)
            if not rows:  # an empty slot reads the rows of a member: any other row may have no label
                rows = [np.repeat(table[:, None], self.slots, axis=1) for table in tables]
            for place, table in zip(rows, tables, strict=True):
                place[:, slot] = table
        scheduled = torch.from_numpy(scales).to(self._device, self._dtype)
        return *scheduled, *(torch.from_numpy(table).to(self._device) for table in (keys, *rows))


@dataclass(slots=True)
class _Seat:
    """The host side of a member: its rows, its current step and its schedules."""

    spec: MemberSpec
    stream: Stream
    step: int

    def rate(self, step: int) -> float:
        training = self.spec.training
        epoch = min(step // self.spec.steps_per_epoch, training.epochs - 1)
        return learning_rate(epoch, base=training.lr, epochs=training.epochs, decay_start=training.decay_start)

    def rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        length = self.spec.steps_per_epoch
        epochs = steps // length
        of_epoch = [self.rate(epoch * length) for epoch in range(epochs[0], epochs[-1] + 1)]
        rates: NDArray[np.float64] = np.array(of_epoch)[epochs - epochs[0]]
        return rates

    def progress(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fraction of the run completed before each of ``steps``; 1 past its end."""
        fractions: NDArray[np.float64] = np.minimum(steps / self.spec.total_steps, 1.0)
        return fractions


def parted(module: Network) -> tuple[Stack, Stack]:
    """Return a module's parameters, including followers that are buffers, and its constants (earlier stages)."""
    entries, followers = module.state_dict(), module.followers
    params = {name: v.detach() for name, v in module.named_parameters() if not name.startswith(SOURCES)}
    params |= {name: entries[name] for name in followers if name not in params}
    return params, {name: v for name, v in entries.items() if name.startswith(SOURCES)}


def _finite(stacks: list[Tensor]) -> Tensor:
    """Return whether all numbers of each member are finite, (K,)."""
    # A finite sum has finite terms and takes a tenth of the time; an infinite sum may be an overflow.
    sums = torch.stack([stacked.reshape(len(stacked), -1).sum(1) for stacked in stacks])
    if torch.isfinite(sums).all():
        return torch.ones_like(sums[0], dtype=torch.bool)
    return torch.stack([torch.isfinite(stacked.reshape(len(stacked), -1)).all(1) for stacked in stacks]).all(0)


def _check_fits(stack: Stack, values: dict[str, Tensor]) -> None:
    # A plain copy would broadcast a tensor with an axis of length 1.
    needed = {name: tuple(stacked.shape[1:]) for name, stacked in stack.items()}
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    for name in sorted(needed.keys() | shapes.keys()):
        if needed.get(name) != shapes.get(name):
            raise CheckpointError(
                f"a member's state must fit its model, whose {name!r} has the shape {needed.get(name)}, "
                f"got {shapes.get(name)}; join it with the settings it was trained with."
            )
