"""A wall clock that jumps; importing this module puts it in the place of Python's own, before others remember that."""

from __future__ import annotations

import os
import time


class SteppingClock:
    """Stands in for ``time.time``: from its start on it jumps back by an hour and forward again, time after time."""

    def __init__(self, period: float) -> None:
        self._real, self._period = time.time, period
        self._begun: float | None = None

    def __call__(self) -> float:
        steps = 0 if self._begun is None else int((time.monotonic() - self._begun) / self._period)
        return self._real() - 3600 * (steps % 2)

    def start(self) -> None:
        self._begun = self._begun or time.monotonic()


CLOCK = SteppingClock(float(os.environ.get("WATCHED_CLOCK", "inf")))
time.time = CLOCK
