"""What the commands that train on the test set's side share: their options, their device, progress and signals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import torch

from ladder_search import wording
from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER
from ladder_search.console import Console
from ladder_search.errors import ResourceError
from ladder_search.final.training import EpochReport
from ladder_search.signals import Deferred, deferred


def find_device(name: str) -> torch.device:
    """Return the device that ``--device`` names; training uses one thread of a CPU.

    Raises:
        ResourceError: there is no usable GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda needs a GPU that PyTorch can use, and there is none; choose --device cpu.")
    torch.set_num_threads(1)
    return torch.device(name)


class Reporter:
    """What trainings report to: it shows every epoch, and ends a training at the end of an epoch with a signal.

    The training then leaves a checkpoint, from which the same command goes on.
    """

    def __init__(self, console: Console, signals: Deferred) -> None:
        self._console, self._signals = console, signals

    def shelf(self, root: Path, device: torch.device) -> Shelf:
        """Return the shelf of a root folder, which trains the networks of earlier stages that it does not have."""
        return Shelf(root / FOLDER, device=device, notify=self._console.say, report=self.source_epoch)

    def epoch(self, progress: EpochReport, what: str = "") -> None:
        """Raises ``Interruption`` after a signal; ``what`` is trained, in a word or two."""
        show_progress(self._console, progress, f"{what}: " if what else "")
        self._signals.check(f"epoch {progress.epoch} of {progress.epochs} is kept; the same command goes on from there")

    def source_epoch(self, epoch: int, epochs: int) -> None:
        """For the trainings of sources, which have no checkpoints."""
        self._signals.check()


@contextmanager
def reporting(console: Console) -> Iterator[Reporter]:
    """While trainings run, signals end them between two epochs alone."""
    signals = Deferred()
    with deferred(signals.arrive):
        yield Reporter(console, signals)
    signals.check()


def show_progress(console: Console, progress: EpochReport, what: str = "") -> None:
    """Print where a training stands: one line that is redrawn on a terminal, ten lines in a file."""
    cost = fmean(terms["cost"] for terms in progress.costs.values()) if progress.costs else math.nan
    line = f"{what}epoch {progress.epoch}/{progress.epochs}  cost {cost:.4g}  "
    line += f"{wording.duration(progress.seconds_left)} left"
    if console.redraws:
        console.update(line)
    elif progress.epoch % max(1, progress.epochs // 10) == 0:
        console.say(line)
