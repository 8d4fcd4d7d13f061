"""A pack and its seated trials, trained epoch by epoch. Independent of Ray."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from ladder_search.bundles.stages import Networks
from ladder_search.data.dataset import Dataset
from ladder_search.errors import ResourceError
from ladder_search.metrics import (
    DRAW,
    DRAW_ERROR,
    EPOCH,
    LEARNING_RATE,
    STEP,
    STEP_TIME_MS,
    VALIDATION_ERROR,
    Measure,
    validation_score,
)
from ladder_search.record.checkpoint import read_draws, write_draws
from ladder_search.training.ahead import prepare
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.memory import out_of_memory
from ladder_search.training.pack import IntervalReport, MemberSpec, MemberState, Pack
from ladder_search.trial import TrialSpec
from trainables.keeper import KeptSources
from trainables.seat import Stretch
from trainables.snapshots import Snapshots

BEST = "best.json"
"""File of a trial checkpoint that stores the best error so far, if the best epoch counts."""


@dataclass(slots=True, kw_only=True)
class _Guest:
    """A seated trial: one member for each of its label draws, or one for the draw that is being trained."""

    spec: TrialSpec
    slots: list[int]
    steps_per_epoch: int
    epoch: int
    """Epochs since the trial's start, of all draws."""
    in_turn: bool
    """Whether label draws are trained one after another, in one slot."""
    complete: list[dict[str, float]]
    """Scores of each complete draw, if they are trained in turn."""
    best: float | None
    """Best error so far, if the best epoch counts; None if every epoch's own error counts."""
    goal: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def draw(self) -> int:
        """Number of the draw in the slot, from 0, if draws are trained in turn."""
        return max(0, self.epoch - 1) // self.spec.training.epochs

    @property
    def needs_next_draw(self) -> bool:
        return self.in_turn and self.epoch > 0 and self.epoch == len(self.complete) * self.spec.training.epochs

    def of_draw(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of an epoch with the mean over the complete draws; a finished schedule completes its draw."""
        own = {name: row[name] for name in row if name == VALIDATION_ERROR or name.startswith(validation_score(""))}
        if self.epoch % self.spec.training.epochs == 0:
            self.complete.append(own)
        counted = self.complete or [own]
        means = {name: fmean(scores[name] for scores in counted) for name in own}
        return {**row, **means, DRAW: self.draw, DRAW_ERROR: own[VALIDATION_ERROR]}

    def with_best(self, row: dict[str, Any]) -> dict[str, Any]:
        """Replace the row's error by the best so far, as in final training; the epoch's error is kept as a score."""
        assert self.best is not None, "every epoch's own error counts"
        error: float = row[VALIDATION_ERROR]
        if self.spec.measure.gain(error, self.best) > 0:  # NaN never is
            self.best = error
        judged = self.best if math.isfinite(error) else error
        return {**row, VALIDATION_ERROR: judged, validation_score(self.spec.measure.name): error}

    def end(self, *, diverged: bool = False, note: str = "", refused: str = "") -> Stretch:
        """Return the stretch since the last report and clear the goal."""
        step, history = self.epoch * self.steps_per_epoch, self.history
        self.history, self.goal = [], self.epoch
        return Stretch(epoch=self.epoch, step=step, history=history, diverged=diverged, note=note, refused=refused)


class Host:
    """Holds one pack for at most ``trials`` trials of one signature.

    States of a trial::

        host.seat("t0007", settings)  -> seated at epoch 0, or at the checkpoint's epoch
        host.head_for("t0007", 20)    -> takes part in the following intervals
        host.interval()               -> {} or, when epoch 20 is reached, {"t0007": Stretch}
        host.save("t0007", folder)
        host.unseat("t0007")          -> its slots are free

    A seated trial without a goal does not train; its slots are computed with the pack anyway.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        trials: int,
        device: torch.device,
        sources: Networks | None = None,
        snapshots: int = 0,
    ) -> None:
        """Create a host without a pack, with ``trials`` seats; ``sources`` are networks of earlier stages, if any.

        ``snapshots`` is the number of trials whose checkpointed state stays on the device, for others to start from.
        """
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ResourceError(
                "this trial has a GPU that PyTorch cannot use; install the CUDA build of the same torch version."
            )
        self._dataset, self._trials, self._device, self._sources = dataset, trials, device, sources
        prepare()
        self._guests: dict[str, _Guest] = {}
        self.pack: Pack | None = None
        """None before the first trial, and after the pack did not fit into memory."""
        self.told: Callable[[str, int], None] = lambda key, epoch: None
        """Called with (key, epoch) after every epoch of a trial."""
        self._snapshots = Snapshots(snapshots)
        self.copied = 0
        """Trials seated with another trial's members, copied on the device."""
        self.read = 0
        """Trials seated from checkpoint files."""

    @property
    def guests(self) -> Collection[str]:
        return self._guests.keys()

    @property
    def full(self) -> bool:
        return len(self._guests) >= self._trials

    @property
    def busy(self) -> bool:
        """Whether a trial has a goal that it has not reached yet."""
        return any(guest.epoch < guest.goal for guest in self._guests.values())

    def seat(
        self,
        key: str,
        settings: Mapping[str, Any],
        *,
        compiled: bool,
        checkpoint: Path | None = None,
        in_turn: bool = False,
    ) -> int:
        """Seat a trial and return its epoch: 0, or that of the checkpoint.

        With ``in_turn``, the trial trains its label draws one after another in one slot, as many as its goals require;
        otherwise its ``draws`` at once. A recent checkpoint of this host is restored from its snapshot on the device,
        without reading tensors from disk.

        Raises:
            SettingError: the pack is full, or has another signature.
            CheckpointError: the checkpoint does not belong to this trial.
            ResourceError: a source of the trial could not be trained.
        """
        self.unseat(key)
        spec = TrialSpec.from_mapping(settings)
        first, complete = read_draws(checkpoint) if in_turn and checkpoint is not None else (0, [])
        draws = range(first, first + (1 if in_turn else spec.draws))
        members = [spec.member(self._dataset, draw, sources=self.networks(spec, draw)) for draw in draws]
        states = [None] * spec.draws if checkpoint is None else self._states(key, _folders(checkpoint, spec))
        pack = self._pack_for(spec, members[0], compiled)
        slots: list[int] = []
        try:
            for member, state in zip(members, states, strict=True):
                slots.append(pack.join(member, state=state))
        except BaseException:
            for slot in slots:
                pack.leave(slot)
            raise
        steps = members[0].steps_per_epoch
        epoch = states[0].step // steps if states[0] is not None else 0
        epoch += first * spec.training.epochs
        best = _read_best(checkpoint, spec.measure) if self._dataset.held_out else None
        self._guests[key] = _Guest(
            spec=spec,
            slots=slots,
            steps_per_epoch=steps,
            epoch=epoch,
            in_turn=in_turn,
            complete=complete,
            best=best,
        )
        return epoch

    def networks(self, spec: TrialSpec, draw: int) -> Mapping[str, torch.nn.Module] | None:
        """Return the trained networks of a trial's earlier stages; the first call may train them."""
        if not spec.stages:
            return None
        assert self._sources is not None, "the driver keeps the sources of a search whose study has any"
        return self._sources.networks(spec, draw)

    def unseat(self, key: str) -> None:
        """Free the slots of a trial; do nothing if it is not seated."""
        guest = self._guests.pop(key, None)
        if guest is not None and self.pack is not None:
            for slot in guest.slots:
                self.pack.leave(slot)

    def head_for(self, key: str, epoch: int) -> None:
        """Train a trial until ``epoch`` in the following intervals."""
        self._guests[key].goal = epoch

    def hurry(self, key: str) -> Stretch | None:
        """End a trial's stretch now if it has trained an epoch of it, otherwise after the next interval (None)."""
        guest = self._guests.get(key)
        if guest is None or guest.epoch >= guest.goal:
            return None
        if guest.history:
            return guest.end(note=_note(self.pack))
        guest.goal = guest.epoch + 1
        return None

    def interval(self) -> dict[str, Stretch]:
        """Train all trials with a goal for one epoch; return those that reached it or diverged."""
        training = {key: guest for key, guest in self._guests.items() if guest.epoch < guest.goal}
        assert self.pack is not None and training, "an interval needs trials with a goal"
        for guest in training.values():
            if guest.needs_next_draw:
                self._next_draw(guest)
        slots = [slot for guest in training.values() for slot in guest.slots]
        steps = next(iter(training.values())).steps_per_epoch  # the same for all: the signature fixes rows and batches
        reports = self.pack.run(steps, slots=slots)
        scores = self.pack.validation_scores(slots=slots)
        arrived: dict[str, Stretch] = {}
        for key, guest in training.items():
            trial_reports = [reports[slot] for slot in guest.slots]
            guest.epoch += 1
            self.told(key, guest.epoch)
            diverged = not all(report.finite for report in trial_reports)
            row = _row(guest.epoch, trial_reports, [scores[slot] for slot in guest.slots], diverged)
            row = row if guest.best is None else guest.with_best(row)
            if guest.in_turn:
                row = guest.of_draw(row | {STEP: guest.epoch * guest.steps_per_epoch})
            guest.history.append(row)
            if diverged or guest.epoch >= guest.goal:
                arrived[key] = guest.end(diverged=diverged, note=_note(self.pack))
        return arrived

    def save(self, key: str, folder: Path) -> None:
        """Write every member of a trial into the folder, or raise ``OSError``."""
        guest, folders = self._guests[key], _folders(folder, self._guests[key].spec)
        states = self._copies(guest.slots)
        for place, state in zip(folders, states, strict=True):
            write_member(place, state, guest.spec.as_mapping())
        if self._snapshots.room:
            self._snapshots.keep(key, states, folders)
        if guest.in_turn:
            write_draws(folder, guest.draw, guest.complete)
        if guest.best is not None and math.isfinite(guest.best):
            (folder / BEST).write_text(json.dumps({VALIDATION_ERROR: guest.best}), encoding="utf-8")

    def give_up(self, reason: str) -> dict[str, Stretch]:
        """Drop the pack, which did not fit into memory; return the last stretch of every seated trial."""
        ended = {key: guest.end(refused=reason) for key, guest in self._guests.items()}
        self._guests, self.pack = {}, None
        self._snapshots.clear()
        return ended

    def _next_draw(self, guest: _Guest) -> None:
        """Replace the member of a complete draw by that of the next one, at its start."""
        assert self.pack is not None, "a seated trial has a pack"
        draw = len(guest.complete)
        member = guest.spec.member(self._dataset, draw, sources=self.networks(guest.spec, draw))
        self.pack.leave(guest.slots.pop())
        guest.slots.append(self.pack.join(member))
        if guest.best is not None:
            guest.best = guest.spec.measure.worst

    def _copies(self, slots: list[int]) -> list[MemberState]:
        pack = self.pack
        assert pack is not None
        if not self._snapshots.room:
            return [pack.state(slot) for slot in slots]
        try:
            return [pack.state(slot, device=self._device) for slot in slots]
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error) is None:
                raise
            self._snapshots.clear()  # training needs the memory
            return [pack.state(slot) for slot in slots]

    def _states(self, key: str, folders: list[Path]) -> list[MemberState]:
        """Return the states in a checkpoint, from a snapshot or from its files."""
        snapshot = self._snapshots.find(folders)
        if snapshot is None:
            states = [read_member(folder)[0] for folder in folders]
            self.read += 1
            return states
        self.copied += snapshot.key != key
        return snapshot.states

    def _pack_for(self, spec: TrialSpec, member: MemberSpec, compiled: bool) -> Pack:
        slots = self._trials * spec.draws
        pack = self.pack
        if pack is None or (not self._guests and (pack.signature != member.signature() or pack.slots != slots)):
            self.pack = pack = None  # free the memory of the last pack for the next one
            self._snapshots.clear()
            self.pack = pack = spec.pack(self._dataset, slots=slots, compiled=compiled, device=self._device)
        return pack


class OwnSeat:
    """A trial that trains in its own process, alone in a pack; see ``trainables.seat.Seat``."""

    def __init__(self, dataset: Dataset, config: Mapping[str, Any]) -> None:
        torch.set_num_threads(config["threads"])
        device = torch.device(config["device"])
        sources = None if config["keeper"] is None else KeptSources(config["keeper"], device)
        self.host = Host(dataset, trials=1, device=device, sources=sources)

    @property
    def taken(self) -> bool:
        return bool(self.host.guests)

    def take(self, config: dict[str, Any]) -> None:
        self.leave()
        self._key, self._settings, self._compiled = config["key"], config["settings"], config["compiled"]
        self._in_turn: bool = config["in_turn"]

    def load(self, folder: Path) -> int:
        return self._sit(folder)

    def _sit(self, folder: Path | None = None) -> int:
        return self.host.seat(
            self._key, self._settings, compiled=self._compiled, checkpoint=folder, in_turn=self._in_turn
        )

    def train(self, until: int, stop: Callable[[], bool]) -> Stretch:
        key = self._key
        try:
            if not self.taken:
                try:
                    self._sit()
                except ResourceError as error:
                    return Stretch(epoch=0, step=0, history=[], refused=str(error))
            self.host.head_for(key, until)
            arrived: dict[str, Stretch] = {}
            while not arrived:
                arrived = self.host.interval()
                left = self.host.hurry(key) if stop() and not arrived else None
                if left is not None:
                    return left
            return arrived[key]
        except (MemoryError, RuntimeError) as error:
            reason = out_of_memory(error)
            if reason is None:
                raise
            return self.host.give_up(reason).get(key) or Stretch(epoch=0, step=0, history=[], refused=reason)

    def save(self, folder: Path) -> None:
        if not self.taken:
            self._sit()
        self.host.save(self._key, folder)

    def leave(self) -> None:
        for key in list(self.host.guests):
            self.host.unseat(key)


def _note(pack: Pack | None) -> str:
    failure = "" if pack is None else pack.compile_failure
    return failure and f"steps are not compiled, which failed: {failure}"


def _folders(checkpoint: Path, spec: TrialSpec) -> list[Path]:
    return [checkpoint / f"member-{draw}" for draw in range(spec.draws)]


def _read_best(checkpoint: Path | None, measure: Measure) -> float:
    if checkpoint is None or not (checkpoint / BEST).is_file():
        return measure.worst
    return float(json.loads((checkpoint / BEST).read_text(encoding="utf-8"))[VALIDATION_ERROR])


def _row(epoch: int, reports: list[IntervalReport], scores: list[dict[str, float]], diverged: bool) -> dict[str, Any]:
    terms = {name: fmean(report.terms[name] for report in reports) for name in reports[0].terms}
    means = {name: math.nan if diverged else fmean(row[name] for row in scores) for name in scores[0]}
    error, *others = means.items()
    return {
        EPOCH: epoch,
        STEP: reports[0].step,
        VALIDATION_ERROR: error[1],
        **{validation_score(name): value for name, value in others},
        LEARNING_RATE: reports[0].learning_rate,
        STEP_TIME_MS: reports[0].step_time_ms,
        **terms,
    }
