"""The Ray side of every family: one Tune trial trains one configuration, with its label draws as members of a pack.

It imports no PyTorch. A trial that shares a pack with others stays a thin process, which asks the pack's host to train
it; a trial for itself finds its host in its own process.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from ladder_search.internals.ray import delete_checkpoint, nothing_saved
from ladder_search.metrics import DIVERGED, EPOCH, HISTORY, NOTE, REASON, STEP, VALIDATION_ERROR
from ladder_search.record.checkpoint import check_checkpoint, mark_checkpoint
from trainables.desk import Desk, HostSeat, open_desk
from trainables.keeper import open_keeper
from trainables.notice import Notice, TrialMovesError
from trainables.seat import Seat

if TYPE_CHECKING:
    from ladder_search.data.dataset import Dataset


class MachineGoesError(TrialMovesError):
    """A trial's process has received SIGTERM and has left its work in a checkpoint; Ray starts the trial elsewhere."""


class PackTrainable(tune.Trainable):
    """Trains one trial's label draws in a pack and reports their mean validation error.

    ``config`` holds ``search`` (the search's id), ``key``, ``settings`` (a ``TrialSpec`` as a mapping), ``share`` (of
    Ray's resources that the search gives each trial; None: what the trial's family requests), ``start``
    (folder or address of the checkpoint to go on from, or None), ``compiled``, ``report_every`` and ``report_at``
    (epochs), ``threads``, ``device``, and ``desk`` (name of the desk that gives out seats in packs; None: the trial has
    one for itself), to which it tells ``signature`` (of its pack) and ``seats`` (of a host that has to be started);
    ``keeper`` is the name of whoever keeps the trials' sources (None: they have none).
    Actors are reused: a following trial of the same signature trains in the same compiled program.
    """

    _epoch: int
    _kept_epoch: int
    """That of the newest checkpoint; 0 needs none."""

    open_desk = staticmethod(partial(open_desk, Desk))
    """Called by the driver of a search whose trials share packs."""
    open_keeper = staticmethod(open_keeper)
    """Called by the driver of a search whose trials have sources."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Called by Ray for each trial before it has a process."""
        share: dict[str, float] | None = config["share"]
        if share is None:
            from ladder_search.trial import TrialSpec  # PyTorch, which a thin trial does without

            request = TrialSpec.from_mapping(config["settings"]).request()
            share = {"CPU": request.cpus, "GPU": request.gpus if config["device"] == "cuda" else 0.0}
        return tune.PlacementGroupFactory([{name: amount for name, amount in share.items() if amount}])

    def setup(self, config: dict[str, Any], dataset: Dataset | None = None) -> None:
        """Called by Ray in the trial's process.

        ``dataset`` comes from the object store, without its test set; a trial that is given a seat needs none.
        """
        self._seat = _find_seat(config, dataset)
        self._notice = Notice()
        self._notice.listen()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become the next trial in the same process."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next report, with an evaluation after every epoch.

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
        if not self._seat.taken and self._from:
            with tune.Checkpoint(self._from).as_directory() as folder:
                self.load_checkpoint(folder)
        regular = self._epoch - self._epoch % self._every + self._every
        until = min(regular, self._epochs, *(epoch for epoch in self._at if epoch > self._epoch))
        done = self._seat.train(until, lambda: self._notice.given)
        self._epoch = done.epoch
        if done.refused:
            return {
                EPOCH: done.epoch,
                STEP: done.step,
                VALIDATION_ERROR: math.nan,
                HISTORY: done.history,
                DIVERGED: True,
                REASON: done.refused,
                "done": True,
            }
        return {
            **done.history[-1],
            HISTORY: done.history,
            DIVERGED: done.diverged,
            NOTE: done.note,
            REASON: "diverged" if done.diverged else "",
            SHOULD_CHECKPOINT: self._notice.given,
            "done": done.diverged or self._epoch >= self._epochs,
        }

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Called by Ray: ``save_checkpoint``, and the way to the experiment's storage.

        A disk that is full or gone costs this checkpoint and not the trial: the one before stays, and the next may
        succeed.
        """
        if not self._seat.taken:
            return nothing_saved(self)
        try:
            with tempfile.TemporaryDirectory() as folder:
                result = super().save(checkpoint_dir or folder)
        except OSError:
            with suppress(OSError):
                delete_checkpoint(self)
            return nothing_saved(self)
        self._kept_epoch = self._epoch
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write every member into the folder; Ray takes the folder to the experiment's storage."""
        self._seat.save(Path(checkpoint_dir))
        mark_checkpoint(Path(checkpoint_dir), self._search, self._key)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint folder of this search, with the settings of this trial.

        Raises:
            CheckpointError: the checkpoint is of another search.
        """
        check_checkpoint(Path(checkpoint), self._search)
        self._epoch = self._kept_epoch = self._seat.load(Path(checkpoint))

    def cleanup(self) -> None:
        """Called by Ray when the process ends in peace."""
        self._seat.leave()

    def _take(self, config: dict[str, Any]) -> None:
        """Know the trial to train; the first step seats it, where Ray starts it again should its process die."""
        self._search, self._key = config["search"], config["key"]
        self._every, self._at = config["report_every"], config["report_at"]
        self._epochs = config["settings"]["training"]["epochs"]
        self._epoch = self._kept_epoch = 0
        self._from: str | None = config["start"]
        self._seat.take(config)


def _find_seat(config: dict[str, Any], dataset: Dataset | None) -> Seat:
    if config["desk"] is not None:
        return HostSeat(config["desk"])
    from trainables.host import OwnSeat  # PyTorch, which a thin trial does without

    assert dataset is not None, "the driver hands the data set to tune.with_parameters"
    return OwnSeat(dataset, config)
