"""Early end of a search: by a signal, its time budget, or repeated crashes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ray import tune

from ladder_search.signals import deferred

GRACE_S = 20.0
"""How long a halted search waits for checkpoints; shorter than the time that a machine allows before it shuts down."""


class Halt(tune.Stopper):
    """Stops all trials after a signal, at the end of the time budget, or if all crash.

    Only a trial that stops at a report writes a checkpoint, so a halted search waits until each running trial has
    reported.

    States::

        Halt(budget=600)                      -> runs
        first signal                          -> interrupted: trials stop at their next report, then Tune returns
        second Ctrl-C or SIGTERM              -> its default effect, immediately
        600 s after the first turn            -> out of time: as interrupted
        three crashes without any report      -> hopeless: Tune stops all trials and returns
    """

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._clock = budget, clock
        self._deadline: float | None = None
        self._patience: float | None = None
        self._awaited: set[str] = set()
        self.running: Callable[[], set[str]] = set
        """Returns the keys of running trials; set by the callback."""
        self.ended = False
        """Whether all trials have ended; a signal does not interrupt the short remainder."""
        self.interrupted = False
        self.out_of_time = False
        self.hopeless = False

    def __getstate__(self) -> dict[str, Any]:
        """Exclude this object from Ray's snapshot, which is never read."""
        return {}

    @property
    def halting(self) -> bool:
        return self.interrupted or self.out_of_time or self.hopeless

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.halting

    def stop_all(self) -> bool:
        if self._budget is not None:
            if self._deadline is None:  # starting Ray does not count
                self._deadline = self._clock() + self._budget
            self.out_of_time = self.out_of_time or self._clock() >= self._deadline
        if self.hopeless or not self.halting:
            return self.hopeless
        if self._patience is None:
            self._patience = self._clock() + GRACE_S
            self._awaited = self.running()
        return not self._awaited & self.running() or self._clock() >= self._patience

    def why(self) -> str:
        if self.interrupted:
            return "Interrupted"
        if self.hopeless:
            return "Every trial crashed before its first report"
        return "The time budget is used up" if self.out_of_time else ""

    def on_signals(self) -> AbstractContextManager[None]:
        """While active, the first signal halts the search with checkpoints; the second has its default effect."""
        return deferred(self._interrupt)

    def _interrupt(self, number: int) -> None:
        self.interrupted = self.interrupted or not self.ended
