"""Successive halving with promotion over rungs of epochs and label draws.

A rung is a pair (epochs, draws). Every trial trains to the lowest rung and waits there with its checkpoint. Whenever a
slot is free, the best waiting trial that belongs to the best ``1 / reduction`` of the values at its rung goes on to the
next rung; without one, a new trial starts (asynchronous successive halving, Li et al. 2020, with rungs of draws). All
trials of a rung are compared on the same label draws. What was trained is never trained again: a trial goes on from its
checkpoint, and the values of its earlier draws stay.

Progress is counted in epochs of all draws: with schedules of E epochs, draw d (from 0) spans the epochs d E + 1 to
(d + 1) E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ladder_search.metrics import DRAW_ERROR, EPOCH, VALIDATION_ERROR, Measure
from ladder_search.studies import StopConfig


@dataclass(frozen=True, slots=True)
class Rung:
    epochs: int
    draws: int

    def __str__(self) -> str:
        return f"epoch {self.epochs}" if self.draws == 1 else f"{self.draws} draws"


LEAST_AT_RUNG = 2
"""Number of trials expected at a rung of several draws below which the rung is left out."""


def ladder_of(
    epochs: int, steps_per_epoch: int, stop: StopConfig, *, trials: int, most_draws: float = math.inf
) -> tuple[Rung, ...]:
    """Return the rungs for a search of ``trials`` trials with schedules of ``epochs`` epochs, lowest first.

    They are ``epochs / reduction`` on one draw (unless that is before ``stop.first_rung_steps`` updates), the whole
    schedule on one draw, then on ``reduction`` and ``reduction**2`` draws while at least ``LEAST_AT_RUNG`` trials are
    expected there. ``most_draws`` limits the draws.
    """
    rungs = [Rung(epochs, 1)]
    early = math.ceil(epochs / stop.reduction)
    if early < epochs and early * steps_per_epoch >= stop.first_rung_steps:
        rungs.insert(0, Rung(early, 1))
    for power in (1, 2):
        draws = stop.reduction**power
        if draws <= most_draws and trials / stop.reduction ** (power + 1) >= LEAST_AT_RUNG:
            rungs.append(Rung(epochs, draws))
    return tuple(rungs)


class Ladder:
    """The rungs of one search and the trials at them.

    States of a trial::

        goal_after(0)        -> the epoch that it trains to first
        report(key, rows)    -> its values at the rungs are known
        wait(key, epoch)     -> it waits at a rung
        promoted()           -> the best waiting trial that may go on, and its next goal
        leave(key)           -> it has ended; its values still count
    """

    def __init__(self, rungs: Sequence[Rung], *, epochs: int, reduction: int, measure: Measure) -> None:
        """Args: ``rungs``, lowest first; ``epochs`` (E) is the length of a schedule."""
        self.rungs, self.epochs = tuple(rungs), epochs
        self.goals = tuple(r.epochs if r.draws == 1 else r.draws * epochs for r in self.rungs)
        self._reduction, self._measure = reduction, measure
        self._losses: list[dict[str, float]] = [{} for _ in self.goals]
        """Loss by key at each rung."""
        self._waiting: dict[str, int] = {}
        """Key -> index of the rung at which the trial waits."""
        self._errors: dict[str, dict[int, float]] = {}
        """Key -> draw -> value after a whole schedule."""

    @property
    def top(self) -> int:
        """Progress at which a trial is complete on all draws, in epochs."""
        return self.goals[-1]

    @property
    def waiting(self) -> list[str]:
        return list(self._waiting)

    def goal_after(self, epoch: int) -> int:
        """Return the progress at which a trial at ``epoch`` reaches its next rung."""
        return next(goal for goal in self.goals if goal > epoch)

    def report(self, key: str, rows: Iterable[Mapping[str, Any]], *, reference: bool = False) -> None:
        """Record the values in the metrics of some epochs; values that are not finite are the worst.

        A ``reference`` climbs every rung and takes no suggestion's place there.
        """
        for row in rows:
            epoch, error = int(row[EPOCH]), row.get(VALIDATION_ERROR)
            loss = math.inf if error is None or not math.isfinite(error) else self._measure.loss(error)
            if epoch in self.goals and not reference:
                self._losses[self.goals.index(epoch)].setdefault(key, loss)
            own = row.get(DRAW_ERROR)
            if epoch % self.epochs == 0 and own is not None and math.isfinite(own):
                self._errors.setdefault(key, {})[epoch // self.epochs - 1] = own

    def pauses(self, epoch: int) -> bool:
        """Return whether a trial that has reached ``epoch`` waits there."""
        return epoch in self.goals[:-1]

    def wait(self, key: str, epoch: int) -> None:
        self._waiting[key] = self.goals.index(epoch)

    def leave(self, key: str) -> None:
        self._waiting.pop(key, None)

    def promoted(self, ready: Callable[[str], bool] = lambda key: True) -> tuple[str, int] | None:
        """Take the best trial that may go on and is ``ready``, from the highest rung with one; return its key and its
        next goal."""
        for index in reversed(range(len(self.goals) - 1)):
            losses = self._losses[index]
            ranked = sorted(losses, key=lambda key: (losses[key], key))
            for key in ranked[: len(losses) // self._reduction]:
                if self._waiting.get(key) == index and math.isfinite(losses[key]) and ready(key):
                    del self._waiting[key]
                    return key, self.goals[index + 1]
        return None

    def errors(self) -> dict[str, dict[int, float]]:
        """Return the value of each whole schedule, by key and draw."""
        return self._errors

    def reason(self, key: str) -> str:
        """Return why a waiting trial is not promoted, in a few words."""
        index = self._waiting[key]
        losses = self._losses[index]
        place = 1 + sum(other < losses[key] for other in losses.values())
        return f"number {place} of {len(losses)} at the rung of {self.rungs[index]}"
