"""Shared parts of commands with final trainings: options, device, progress and signals."""

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
    """Return the device named by ``--device``; on a CPU, restrict training to one thread. Raise ``ResourceError`` if
    there is no usable GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda needs a GPU that PyTorch can use, and there is none; choose --device cpu.")
    torch.set_num_threads(1)
    return torch.device(name)


class Reporter:
    """Callback of trainings that prints every epoch, and after a signal ends the training at the end of an epoch. The
    training then leaves a checkpoint, from which the same command continues."""

    def __init__(self, console: Console, signals: Deferred) -> None:
        self._console, self._signals = console, signals

    def shelf(self, root: Path, device: torch.device) -> Shelf:
        """Return the shelf of a root folder, which trains missing networks of earlier stages."""
        return Shelf(root / FOLDER, device=device, notify=self._console.say, report=self.source_epoch)

    def epoch(self, progress: EpochReport, what: str = "") -> None:
        """Report an epoch of ``what``, a name of one or two words; raise ``Interruption`` after a signal."""
        show_progress(self._console, progress, f"{what}: " if what else "")
        self._signals.check(f"epoch {progress.epoch} of {progress.epochs} is kept; the same command goes on from there")

    def source_epoch(self, epoch: int, epochs: int) -> None:
        """Report an epoch of a source; these trainings have no checkpoints."""
        self._signals.check()


@contextmanager
def reporting(console: Console) -> Iterator[Reporter]:
    """Defer signals to the ends of epochs while trainings run."""
    signals = Deferred()
    with deferred(signals.arrive):
        yield Reporter(console, signals)
    signals.check()


def show_progress(console: Console, progress: EpochReport, what: str = "") -> None:
    """Print the progress: one redrawn line on a terminal, ten lines in a file."""
    cost = fmean(terms["cost"] for terms in progress.costs.values()) if progress.costs else math.nan
    line = f"{what}epoch {progress.epoch}/{progress.epochs}  cost {cost:.4g}  "
    line += f"{wording.duration(progress.seconds_left)} left"
    if console.redraws:
        console.update(line)
    elif progress.epoch % max(1, progress.epochs // 10) == 0:
        console.say(line)
