"""The live view of a running search: progress, best result and time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ladder_search import wording
from ladder_search.console import Console
from ladder_search.console.live import View, live
from ladder_search.ranking import rank
from ladder_search.record.trial import TrialRecord
from ladder_search.studies.study import Study
from ladder_search.wording import BASELINE, finite

QUIET_SECONDS = 30.0
"""Minimum seconds between two printed lines without a terminal, except when a trial ends."""
_HARMLESS = (Exception, SystemExit)
"""Errors of the display that are ignored; Rich raises SystemExit when the reader of the output has gone."""


@dataclass(kw_only=True, slots=True)
class _Running:
    since: float
    epoch: int = 0
    epochs: int = 0
    error: float | None = None


def time_left(
    durations: Sequence[float], running: Sequence[tuple[float, float]], waiting: int, concurrency: int
) -> float | None:
    """Estimate the seconds until a search ends; None until one trial has ended.

    A waiting trial is expected to take the mean time of ended trials. A running one takes the remainder of that time
    or, if it has already taken longer, the remainder of its budget at its current speed.

    Args:
        durations: seconds of each ended trial.
        running: (elapsed seconds, trained fraction of the budget) of each running trial.
        waiting: number of trials that have not started.
        concurrency: number of trials that run at the same time.
    """
    if not durations:
        return None
    mean = sum(durations) / len(durations)

    def rest(elapsed: float, fraction: float) -> float:
        if elapsed < mean:
            return mean - elapsed
        return elapsed * (1.0 / fraction - 1.0) if fraction > 0 else mean

    rests = [rest(elapsed, fraction) for elapsed, fraction in running]
    work = sum(rests) + max(0, waiting) * mean
    longest = max([*rests, mean if waiting > 0 else 0.0])
    return max(longest, work / max(1, concurrency))


class Progress:
    """The live view of a search; errors of the display never stop the search.

    On a terminal, the view is redrawn in place. Otherwise a line is printed when a trial ends, and at most every 30 s.
    """

    def __init__(
        self,
        study: Study,
        total_trials: int,
        concurrency: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: ``total_trials`` includes the reference trials; ``clock`` returns seconds."""
        self._study, self._total, self._concurrency = study, total_trials, concurrency
        self._shown = study.measure.text
        self._console, self._clock = console, clock
        self._live_view = console.redraws
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, TrialRecord] = {}
        self._waiting: dict[str, TrialRecord] = {}
        """Trials at a rung, as if they had ended there."""
        self._begun = self._last_line = clock()
        self._lock = threading.RLock()  # the live view redraws from its own thread
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._live_view:
            with suppress(*_HARMLESS):
                self._stack.enter_context(live(self._console, self._view))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*_HARMLESS):
            self._stack.close()

    def resumed(self, records: Iterable[TrialRecord]) -> None:
        with suppress(*_HARMLESS), self._lock:
            self._ended.update({record.key: record for record in records})

    def started(self, key: str) -> None:
        with suppress(*_HARMLESS), self._lock:
            self._ended.pop(key, None)
            self._waiting.pop(key, None)
            self._running.setdefault(key, _Running(since=self._clock()))
            self._line_when_quiet()

    def reported(self, key: str, epoch: int, epochs: int, validation_error: float | None) -> None:
        with suppress(*_HARMLESS), self._lock:
            if key in self._ended:  # the report arrived after the trial's end
                return
            running = self._running.setdefault(key, _Running(since=self._clock()))
            running.epoch, running.epochs = epoch, epochs
            running.error = validation_error if finite(validation_error) else None
            self._line_when_quiet()

    def waits(self, record: TrialRecord) -> None:
        """Show that a trial waits at a rung; ``record`` is as if it had ended there."""
        with suppress(*_HARMLESS), self._lock:
            self._running.pop(record.key, None)
            self._waiting[record.key] = record
            name = f"{record.key} {self._shown(record.validation_error)}"
            self._line(f"{name}, waits at epoch {wording.epochs_trained(record)}: ")

    def ended(self, record: TrialRecord) -> None:
        with suppress(*_HARMLESS), self._lock:
            self._running.pop(record.key, None)
            waited = self._waiting.pop(record.key, None)
            self._ended[record.key] = record
            if waited is not None:
                return  # the leaderboard, which follows, has it
            name = f" ({record.name})" if record.name else ""
            self._line(f"{record.key}{name} {record.state} {self._shown(record.validation_error)}: ")

    def summary(self) -> str:
        with self._lock:
            counts, best, left = self._counts(), self._best(), self._left()
        return f"{counts}; {best}; {left}"

    def _counts(self) -> str:
        states = [record.state for record in self._ended.values()]
        done, stopped, failed = (states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL"))
        waiting = f"{len(self._waiting)} waiting, " if self._waiting else ""
        running = f"{len(self._running)} running, {waiting}"
        return f"{done} done, {running}{stopped} stopped, {failed} failed of {self._all()}"

    def _all(self) -> int:
        return max(self._total, len(self._ended) + len(self._running) + len(self._waiting))

    def _best(self) -> str:
        known = (*self._ended.values(), *self._waiting.values())
        complete = [r for r in known if r.state == "COMPLETE" and finite(r.validation_error)]
        best = next(iter(rank([r for r in complete if r.name != BASELINE], self._study.measure)), None)
        text = f"best so far {self._shown(best.validation_error)} ({best.key})" if best else "best so far –"
        if self._study.target is not None:
            return f"{text}, target {self._study.target}"
        baseline = [r.validation_error for r in complete if r.name == BASELINE]
        return f"{text}, supervised baseline {self._shown(baseline[0])}" if baseline else text

    def _left(self) -> str:
        now = self._clock()
        seconds = time_left(
            [r.seconds for r in (*self._ended.values(), *self._waiting.values()) if finite(r.seconds)],
            [(now - r.since, min(1.0, r.epoch / max(1, r.epochs))) for r in self._running.values()],
            self._all() - len(self._ended) - len(self._running) - len(self._waiting),
            self._concurrency,
        )
        return f"time left {wording.duration(seconds)}"

    def _line_when_quiet(self) -> None:
        if self._clock() - self._last_line >= QUIET_SECONDS:
            self._line()

    def _line(self, prefix: str = "") -> None:
        if self._live_view:
            return
        self._last_line = self._clock()
        self._console.say(prefix + self.summary())

    def _view(self) -> View:
        with self._lock:
            return View(
                lines=[self._study.name, self._counts(), self._best()],
                done=len(self._ended),
                total=self._all(),
                times=f"{self._left()}, running for {wording.duration(self._clock() - self._begun)}",
                rows=[
                    (key, f"epoch {r.epoch}/{r.epochs or '?'}", self._shown(r.error))
                    for key, r in self._running.items()
                ],
            )
