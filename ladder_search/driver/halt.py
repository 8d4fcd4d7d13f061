"""How a search is ended before its last trial: by a signal, its time budget, or nothing but crashes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ray import tune

from ladder_search.signals import deferred

GRACE_S = 20.0
"""How long a halted search waits for its trials' checkpoints: less than what a machine that shuts down allows."""


class Halt(tune.Stopper):
    """Decides when all trials stop: after a signal, at the end of the time budget, or when all crash.

    A trial that is stopped at a report writes a checkpoint; one that is stopped with all others does not. A halted
    search therefore waits until each running trial has reported.

    States::

        Halt(budget=600)                      -> runs
        first signal                          -> interrupted: trials stop at their next report, then Tune returns
        second Ctrl-C or SIGTERM              -> its usual effect, at once
        600 s after the first turn            -> out of time: as interrupted
        three crashes without any report      -> hopeless: Tune stops all trials and returns
    """

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: ``budget`` in seconds, None: no limit."""
        self._budget, self._clock = budget, clock
        self._deadline: float | None = None
        self._patience: float | None = None
        self._awaited: set[str] = set()
        self.running: Callable[[], set[str]] = set
        """Keys of the trials that are being trained; the search's callback says."""
        self.ended = False
        """Whether the trials have ended: what comes then is short, and a signal does not interrupt it."""
        self.interrupted = False
        self.out_of_time = False
        self.hopeless = False

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles stoppers into its snapshot, which nothing reads."""
        return {}

    @property
    def halting(self) -> bool:
        """Whether no trial should go on or begin."""
        return self.interrupted or self.out_of_time or self.hopeless

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.halting

    def stop_all(self) -> bool:
        if self._budget is not None:
            if self._deadline is None:  # the budget is the trials', not that of starting Ray
                self._deadline = self._clock() + self._budget
            self.out_of_time = self.out_of_time or self._clock() >= self._deadline
        if self.hopeless or not self.halting:
            return self.hopeless
        if self._patience is None:
            self._patience = self._clock() + GRACE_S
            self._awaited = self.running()
        return not self._awaited & self.running() or self._clock() >= self._patience

    def why(self) -> str:
        """What ended the search, in a few words; empty: it ran to its end."""
        if self.interrupted:
            return "Interrupted"
        if self.hopeless:
            return "Every trial crashed before its first report"
        return "The time budget is used up" if self.out_of_time else ""

    def on_signals(self) -> AbstractContextManager[None]:
        """While it holds, the first signal halts the search in good order; the second has its usual effect."""
        return deferred(self._interrupt)

    def _interrupt(self, number: int) -> None:
        self.interrupted = self.interrupted or not self.ended
