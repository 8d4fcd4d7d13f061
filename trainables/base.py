"""The Ray side of every family: one Tune trial trains one configuration, all its label draws as one pack."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

# One compile worker: several trial processes on a node would each start one per core.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from ray import tune
from ray.train._internal.session import _TrainingResult  # what Trainable.save returns; it has no public name
from ray.tune.result import SHOULD_CHECKPOINT

from ladder_search.data.datasets import Dataset
from ladder_search.errors import ResourceError
from ladder_search.metrics import (
    DIVERGED,
    EPOCH,
    HISTORY,
    LEARNING_RATE,
    REASON,
    STEP,
    STEP_TIME_MS,
    VALIDATION_ERROR,
)
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.pack import IntervalReport, MemberSpec, MemberState, Pack
from ladder_search.trial import TrialSpec
from trainables.notice import Notice

_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|ALLOC_FAILED|size calculation overflowed")
_AMOUNT = re.compile(r"(?:ried|nable) to allocate ([\d.]+ [A-Za-z]+)")


class MachineGoesError(ResourceError):
    """A trial's process was told to end and has left its work in a checkpoint; Ray starts the trial elsewhere."""


class PackTrainable(tune.Trainable):
    """Trains one trial's label draws as one pack and reports their mean validation error.

    ``config`` holds ``settings`` (a ``TrialSpec`` as a mapping), ``start`` (folder or address of the checkpoint to go
    on from, or None), ``compiled``, ``report_every`` and ``report_at`` (epochs), ``threads`` and ``device``. Actors are
    reused: a following trial of the same signature trains in the same compiled program.
    """

    _epoch: int
    _kept_epoch: int
    """That of the newest checkpoint; 0 needs none."""

    def setup(self, config: dict[str, Any], dataset: Dataset | None = None) -> None:
        """Called by Ray in the trial's process; ``dataset`` comes from the object store, without its test set."""
        assert dataset is not None, "the driver hands the data set to tune.with_parameters"
        self._dataset = dataset
        self._device = torch.device(config["device"])
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise ResourceError(
                "a trial was given a GPU that PyTorch cannot use; install the CUDA build of the same torch version."
            )
        torch.set_num_threads(config["threads"])
        self._pack: Pack | None = None
        self._notice = Notice()
        self._notice.listen()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become the next trial in the same process."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next report and evaluate after every epoch.

        Reports come every ``report_every`` epochs and at those of ``report_at``, where the scheduler compares trials:
        one that is to stop there trains no longer. A notice to leave is a reason to report at once, with a checkpoint.

        Raises:
            MachineGoesError: there was a notice, and everything is in a checkpoint.
        """
        if self._notice.given and self._epoch == self._kept_epoch:
            raise MachineGoesError(
                f"a trial whose process gets SIGTERM goes on elsewhere, this one from epoch {self._epoch}; "
                "nothing is lost and nothing needs to be done."
            )
        history: list[dict[str, Any]] = []
        try:
            diverged = self._train(history)
        except (MemoryError, RuntimeError) as error:
            reason = out_of_memory(error)
            if reason is None:
                raise
            self._pack = None
            return {
                EPOCH: self._epoch,
                STEP: self._epoch * self._steps_per_epoch,
                VALIDATION_ERROR: math.nan,
                HISTORY: history,
                DIVERGED: True,
                REASON: reason,
                "done": True,
            }
        return {
            **history[-1],
            HISTORY: history,
            DIVERGED: diverged,
            REASON: "diverged" if diverged else "",
            SHOULD_CHECKPOINT: self._notice.given,
            "done": diverged or self._epoch >= self._epochs,
        }

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Called by Ray: ``save_checkpoint``, and the way to the experiment's storage.

        A disk that is full or gone costs this checkpoint and not the trial: the one before stays, and the next may
        succeed.
        """
        last: dict[str, Any] = self._last_result or {}
        nothing = _TrainingResult(checkpoint=None, metrics=dict(last))
        if self._pack is None:
            return nothing
        try:
            with tempfile.TemporaryDirectory() as folder:
                result = super().save(checkpoint_dir or folder)
        except OSError:
            if self._storage is not None:  # a part of it may have arrived
                with suppress(OSError):
                    self._storage.storage_filesystem.delete_dir(self._storage.checkpoint_fs_path)
            return nothing
        self._kept_epoch = self._epoch
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write every member into the folder; Ray takes the folder to the experiment's storage."""
        for draw, slot in enumerate(self._slots):
            state = self._pack_in_use().state(slot)
            write_member(Path(checkpoint_dir) / f"member-{draw}", state, self._spec.as_mapping())

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint folder, with the settings of this trial."""
        states = [read_member(Path(checkpoint) / f"member-{draw}")[0] for draw in range(self._spec.draws)]
        self._start(states)
        self._epoch = self._kept_epoch = states[0].step // self._steps_per_epoch

    def _take(self, config: dict[str, Any]) -> None:
        """Know the trial to train; the first step builds it, where Ray starts it again should its process die."""
        self._spec = TrialSpec.from_mapping(config["settings"])
        self._compiled, self._every, self._at = config["compiled"], config["report_every"], config["report_at"]
        self._epochs = self._spec.training.epochs
        self._members: list[MemberSpec] = [self._spec.member(self._dataset, i) for i in range(self._spec.draws)]
        self._steps_per_epoch = self._members[0].steps_per_epoch
        self._epoch = self._kept_epoch = 0
        self._from: str | None = config["start"]
        self._slots: list[int] = []

    def _start(self, states: Sequence[MemberState | None]) -> None:
        pack, draws = self._pack, self._spec.draws
        if pack is None or pack.signature != self._members[0].signature() or pack.slots != draws:
            self._pack = pack = None  # the room of the last one is needed for the next
            pack = self._spec.pack(self._dataset, slots=draws, compiled=self._compiled, device=self._device)
        for slot in pack.active:
            pack.leave(slot)
        self._slots = [pack.join(spec, state=state) for spec, state in zip(self._members, states, strict=True)]
        self._pack = pack

    def _pack_in_use(self) -> Pack:
        if not self._slots and self._from:
            with tune.Checkpoint(self._from).as_directory() as folder:
                self.load_checkpoint(folder)
        elif not self._slots:
            self._start([None] * self._spec.draws)
        assert self._pack is not None
        return self._pack

    def _train(self, history: list[dict[str, Any]]) -> bool:
        """Fill ``history`` with the epochs until the next report; return whether a member diverged."""
        pack = self._pack_in_use()
        regular = self._epoch - self._epoch % self._every + self._every
        until = min(regular, self._epochs, *(epoch for epoch in self._at if epoch > self._epoch))
        diverged = False
        while self._epoch < until and not diverged:
            reports = pack.run(self._steps_per_epoch)
            errors = pack.validation_errors()
            self._epoch += 1
            diverged = not all(report.finite for report in reports.values())
            history.append(self._row(list(reports.values()), list(errors.values()), diverged))
            if self._notice.given:
                break
        return diverged

    def _row(self, reports: list[IntervalReport], errors: list[float], diverged: bool) -> dict[str, Any]:
        terms = {name: fmean(report.terms[name] for report in reports) for name in reports[0].terms}
        return {
            EPOCH: self._epoch,
            STEP: reports[0].step,
            VALIDATION_ERROR: math.nan if diverged else fmean(errors),
            LEARNING_RATE: reports[0].learning_rate,
            STEP_TIME_MS: reports[0].step_time_ms,
            **terms,
        }


def out_of_memory(error: Exception) -> str | None:
    """Return in a few words what could not be allocated; None: the error is another one."""
    text = str(error)
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _NO_MEMORY.search(text):
        return None
    amount = _AMOUNT.search(text)
    return f"out of memory: {amount[1] if amount else 'what it needs'} could not be allocated"
