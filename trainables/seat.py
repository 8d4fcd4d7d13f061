"""A trial's seat in a pack: the interface between its Ray process and the process that trains it. No PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A trial's training since its last report."""

    epoch: int
    """Epochs since the trial's start."""
    step: int
    """Updates since the trial's start."""
    history: list[dict[str, Any]]
    """One row of metrics per epoch of the stretch."""
    diverged: bool = False
    note: str = ""
    """Message for the user, such as why steps are not compiled; may be empty."""
    refused: str = ""
    """Why the trial cannot be trained (its pack does not fit into memory, or its source failed); empty otherwise."""


class Seat(Protocol):
    """A place in a pack, used by one trial at a time.

    States::

        seat.take(config)        -> nothing is built yet
        seat.load(folder)        -> seated, at the checkpoint's epoch
        seat.train(until, stop)  -> seated, at epoch `until` or where `stop` became true
        seat.save(folder)        -> the same, with a checkpoint in the folder
        seat.leave()             -> free
    """

    @property
    def taken(self) -> bool: ...

    def take(self, config: dict[str, Any]) -> None:
        """Leave and set the next trial; ``config`` is that of the trainable."""
        ...

    def load(self, folder: Path) -> int:
        """Resume from a checkpoint and return its epoch."""
        ...

    def train(self, until: int, stop: Callable[[], bool]) -> Stretch:
        """Train to epoch ``until``, or to the end of the epoch in which ``stop`` became true or a member diverged."""
        ...

    def save(self, folder: Path) -> None: ...

    def leave(self) -> None:
        """Free the seat for the next trial."""
        ...
