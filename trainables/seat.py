"""A trial's seat in a pack: what the Ray side of a trial asks of whatever trains it. Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What a trial did until its next report."""

    epoch: int
    """Epochs done since the trial's start."""
    step: int
    """Updates done since then."""
    history: list[dict[str, Any]]
    """A row of metrics for every epoch of the stretch."""
    diverged: bool = False
    note: str = ""
    """Not empty: something to tell the user, such as why steps are not compiled."""
    refused: str = ""
    """Not empty: the trial cannot be trained, and why: its pack does not fit into memory, or its source failed."""


class Seat(Protocol):
    """A place in a pack, for one trial after the other.

    States::

        seat.take(config)        -> nothing is built yet
        seat.load(folder)        -> seated, where the checkpoint left off
        seat.train(until, stop)  -> seated, at epoch `until` or where `stop` was heard
        seat.save(folder)        -> the same, with a checkpoint in the folder
        seat.leave()             -> free
    """

    @property
    def taken(self) -> bool:
        """Whether the trial has members in a pack."""
        ...

    def take(self, config: dict[str, Any]) -> None:
        """Leave, and know the trial that is trained next; ``config`` is that of the trainable."""
        ...

    def load(self, folder: Path) -> int:
        """Go on from a checkpoint; return its epoch."""
        ...

    def train(self, until: int, stop: Callable[[], bool]) -> Stretch:
        """Train to epoch ``until``, or to the end of the epoch in which ``stop`` became true or a member diverged."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint of every member into the folder."""
        ...

    def leave(self) -> None:
        """Give the place back; the next trial may need it."""
        ...
