"""What the commands that train on the test set's side share: their options, their device, their progress line."""

from __future__ import annotations

import argparse
import math
from statistics import fmean

import torch
from rich.console import Console

from ladder_search.driver import wording
from ladder_search.errors import ResourceError, SettingError
from ladder_search.export.final import FinalProgress


def find_device(name: str) -> torch.device:
    """Return the device that ``--device`` names; training uses one thread of a CPU.

    Raises:
        SettingError: no such device.
        ResourceError: there is no usable GPU.
    """
    if name not in ("cpu", "cuda"):
        raise SettingError(f"--device must be cpu or cuda, got {name!r}; choose one of them.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda needs a GPU that PyTorch can use, and there is none; choose --device cpu.")
    torch.set_num_threads(1)
    return torch.device(name)


def at_least_one(arguments: argparse.Namespace, *names: str) -> None:
    """Raise ``SettingError`` unless each of these options is absent or a positive number."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not value >= 1:
            option = "--" + name.replace("_", "-")
            raise SettingError(f"{option} must be at least 1, got {value}; give a positive number.")


def show_progress(console: Console, progress: FinalProgress, what: str = "") -> None:
    """Print where a training stands: one line that renews itself on a terminal, ten lines in a file."""
    cost = fmean(terms["cost"] for terms in progress.costs.values()) if progress.costs else math.nan
    line = f"{what}epoch {progress.epoch}/{progress.epochs}  cost {cost:.4g}  "
    line += f"{wording.duration(progress.seconds_left)} left"
    if console.is_terminal:
        console.print(f"{line:<{console.width - 1}}", end="\r", highlight=False, markup=False)
    elif progress.epoch % max(1, progress.epochs // 10) == 0:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
