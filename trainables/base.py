"""The Ray Tune trainable of every family: one trial trains one configuration, one pack member per label draw.

It imports no PyTorch: trials that share a pack are thin processes that call the pack's host. A trial with a pack of
its own creates the host in its own process.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from ladder_search import plugins
from ladder_search.data.dataset import Dataset
from ladder_search.internals.ray import delete_checkpoint, nothing_saved
from ladder_search.metrics import DIVERGED, EPOCH, HISTORY, NOTE, REASON, STEP, VALIDATION_ERROR
from ladder_search.record.checkpoint import check_checkpoint, mark_checkpoint
from trainables.desk import Desk, HostSeat, open_desk
from trainables.keeper import open_keeper
from trainables.notice import Notice, TrialMovesError
from trainables.seat import Seat


class MachineGoesError(TrialMovesError):
    """Raised after SIGTERM, once the trial's checkpoint is written; Ray restarts the trial elsewhere."""


class PackTrainable(tune.Trainable):
    """Trains one trial's label draws in a pack, at once or in turn, and reports their mean validation error.

    Actors are reused: the next trial with the same signature trains in the same compiled program. ``config`` contains:

    * ``search``: ID of the search;
    * ``key``, ``settings``: the trial's key and its ``TrialSpec`` as a mapping;
    * ``share``: Ray resources of a trial, or None for what its family requests;
    * ``start``: folder or address of the checkpoint to resume from, or None;
    * ``report_every``, ``report_at``: epochs;
    * ``until``: the epoch at which it ends for now; beyond the schedule's length, it trains further label draws;
    * ``in_turn``: whether label draws are trained one after another instead of at once;
    * ``compiled``, ``threads``, ``device``;
    * ``desk``: name of the actor that assigns seats in packs, or None for a pack of the trial's own;
    * ``signature``, ``seats``: the pack's signature and the number of seats of a new host;
    * ``keeper``: name of the actor that stores the trials' sources, or None without sources;
    * ``plugins``: optional; files from which families may be imported.
    """

    _epoch: int
    _kept_epoch: int
    """Epoch of the newest checkpoint; 0 needs no checkpoint."""

    open_desk = staticmethod(partial(open_desk, Desk))
    """Called by the driver if trials share packs."""
    open_keeper = staticmethod(open_keeper)
    """Called by the driver if trials have sources."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Called by Ray for each trial before it has a process."""
        share: dict[str, float] | None = config["share"]
        if share is None:
            from ladder_search.trial import TrialSpec  # imports PyTorch, which thin trials avoid

            request = TrialSpec.from_mapping(config["settings"]).request()
            share = {"CPU": request.cpus, "GPU": request.gpus if config["device"] == "cuda" else 0.0}
        return tune.PlacementGroupFactory([{name: amount for name, amount in share.items() if amount}])

    def setup(self, config: dict[str, Any], dataset: Dataset | None = None) -> None:
        """Called by Ray in the trial's process.

        ``dataset`` comes from the object store, without its test set; a trial with a desk does not need it.
        """
        self._seat = _find_seat(config, dataset)
        self._notice = Notice()
        self._notice.listen()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Switch to the next trial in the same process."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next report, with an evaluation after every epoch.

        Reports are due every ``report_every`` epochs and at the epochs of ``report_at``, where the scheduler compares
        trials, so that a stopped trial does not train further. SIGTERM triggers an early report with a checkpoint.

        Raises:
            MachineGoesError: SIGTERM was received and the checkpoint is complete.
        """
        if self._notice.given and self._epoch == self._kept_epoch:
            raise MachineGoesError(
                f"the process of this trial received SIGTERM; the trial continues in another process from epoch "
                f"{self._epoch}; no result is lost and no action is needed."
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
        """Called by Ray: run ``save_checkpoint`` and upload the folder to the experiment's storage.

        On ``OSError``, such as a full disk, this checkpoint is skipped: the trial continues and the previous one stays.
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
        """Write every member into the folder, which Ray uploads to the experiment's storage."""
        self._seat.save(Path(checkpoint_dir))
        mark_checkpoint(Path(checkpoint_dir), self._search, self._key)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Resume from a checkpoint folder of this search, or raise ``CheckpointError`` if it belongs to another one."""
        check_checkpoint(Path(checkpoint), self._search)
        self._epoch = self._kept_epoch = self._seat.load(Path(checkpoint))

    def cleanup(self) -> None:
        """Called by Ray when the process ends normally."""
        self._seat.leave()

    def _take(self, config: dict[str, Any]) -> None:
        """Set the trial to train; the first step seats it, so that Ray can restart it if its process dies."""
        plugins.offer(config.get("plugins", ()))
        self._search, self._key = config["search"], config["key"]
        self._every, self._at = config["report_every"], config["report_at"]
        self._epochs: int = config["until"]
        self._epoch = self._kept_epoch = 0
        self._from: str | None = config["start"]
        self._seat.take(config)


def _find_seat(config: dict[str, Any], dataset: Dataset | None) -> Seat:
    if config["desk"] is not None:
        return HostSeat(config["desk"])
    from trainables.host import OwnSeat  # imports PyTorch, which thin trials avoid

    assert dataset is not None, "the driver hands the data set to tune.with_parameters"
    return OwnSeat(dataset, config)
