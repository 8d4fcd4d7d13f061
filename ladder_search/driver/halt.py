"""How a search is ended before its last trial: by Ctrl-C or SIGTERM, its time budget, or nothing but crashes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray import tune

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Halt(tune.Stopper):
    """Asked by Tune in every turn of its loop whether all trials are to stop.

    States::

        halt = Halt(budget=600)     -> runs
        the first Ctrl-C            -> interrupted: Tune stops every trial and returns
        the second                  -> KeyboardInterrupt, at once
        600 s after the first turn  -> out of time: Tune stops every trial and returns
        three crashes and no report -> hopeless: Tune stops every trial and returns
    """

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: ``budget`` in seconds, None: no limit."""
        self._budget, self._clock = budget, clock
        self._deadline: float | None = None
        self.interrupted = False
        self.out_of_time = False
        self.hopeless = False

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles stoppers into its snapshot, which nothing reads."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._budget is not None:
            if self._deadline is None:  # the budget is the trials', not that of starting Ray
                self._deadline = self._clock() + self._budget
            self.out_of_time = self.out_of_time or self._clock() >= self._deadline
        return self.interrupted or self.out_of_time or self.hopeless

    def why(self) -> str:
        """What ended the search, in a few words; empty: it ran to its end."""
        if self.interrupted:
            return "Interrupted"
        if self.hopeless:
            return "Every trial crashed before its first report"
        return "The time budget is used up" if self.out_of_time else ""

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """While it holds, the first signal halts the search in good order; the second has its usual effect."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def halt(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            restore()

        for number in SIGNALS:
            signal.signal(number, halt)
        try:
            yield
        finally:
            restore()
