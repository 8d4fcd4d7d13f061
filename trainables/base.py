"""The Ray side of every family: one Tune trial trains one configuration, all its label draws as one pack."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

# One compile worker: several trial processes on a node would each start one per core.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from ray import tune

from ladder_search.data.datasets import Dataset
from ladder_search.errors import ResourceError
from ladder_search.metrics import DIVERGED, EPOCH, HISTORY, LEARNING_RATE, STEP, STEP_TIME_MS, VALIDATION_ERROR
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.pack import IntervalReport, MemberSpec, MemberState, Pack
from ladder_search.trial import TrialSpec


class PackTrainable(tune.Trainable):
    """Trains one trial's label draws as one pack and reports their mean validation error.

    ``config`` holds ``settings`` (a ``TrialSpec`` as a mapping), ``compiled``, ``report_every`` and ``report_at``
    (epochs), ``threads`` and ``device``. Actors are reused: a following trial of the same signature trains in the same
    compiled program.
    """

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
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become the next trial in the same process."""
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next report and evaluate after every epoch.

        Reports come every ``report_every`` epochs and at those of ``report_at``, where the scheduler compares trials:
        one that is to stop there trains no longer.
        """
        history: list[dict[str, Any]] = []
        diverged = False
        regular = self._epoch - self._epoch % self._every + self._every
        until = min(regular, self._epochs, *(epoch for epoch in self._at if epoch > self._epoch))
        while self._epoch < until and not diverged:
            reports = self._pack_in_use().run(self._steps_per_epoch)
            self._epoch += 1
            errors = self._pack_in_use().validation_errors()
            diverged = not all(report.finite for report in reports.values())
            history.append(self._row(list(reports.values()), list(errors.values()), diverged))
        return {
            **history[-1],
            HISTORY: history,
            DIVERGED: diverged,
            "done": diverged or self._epoch >= self._epochs,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write every member into the folder; Ray takes the folder to the experiment's storage."""
        for draw, slot in enumerate(self._slots):
            state = self._pack_in_use().state(slot)
            write_member(Path(checkpoint_dir) / f"member-{draw}", state, self._spec.as_mapping())

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint folder, with the settings of this trial."""
        states = [read_member(Path(checkpoint) / f"member-{draw}")[0] for draw in range(self._spec.draws)]
        self._seat(states)
        self._epoch = states[0].step // self._steps_per_epoch

    def _start(self, config: dict[str, Any]) -> None:
        self._spec = TrialSpec.from_mapping(config["settings"])
        self._every, self._at, self._epochs = config["report_every"], config["report_at"], self._spec.training.epochs
        self._members: list[MemberSpec] = [self._spec.member(self._dataset, i) for i in range(self._spec.draws)]
        self._steps_per_epoch = self._members[0].steps_per_epoch
        self._epoch = 0
        draws = self._spec.draws
        pack = self._pack
        if pack is None or pack.signature != self._members[0].signature() or pack.slots != draws:
            self._pack = self._spec.pack(self._dataset, slots=draws, compiled=config["compiled"], device=self._device)
        self._seat([None] * draws)

    def _seat(self, states: Sequence[MemberState | None]) -> None:
        pack = self._pack_in_use()
        for slot in pack.active:
            pack.leave(slot)
        self._slots = [pack.join(spec, state=state) for spec, state in zip(self._members, states, strict=True)]

    def _pack_in_use(self) -> Pack:
        assert self._pack is not None
        return self._pack

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
