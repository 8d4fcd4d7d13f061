"""Ray Tune's searcher on top of an Optuna study.

Unlike Ray's OptunaSearch, it reports stopped trials as PRUNED with their intermediate values, diverged and crashed ones
as FAIL, and only completely trained ones as COMPLETE.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from ray.tune.search import Searcher

from ladder_search.driver.estimates import estimates
from ladder_search.driver.journal import Journal
from ladder_search.driver.rungs import Ladder
from ladder_search.metrics import DIVERGED, EPOCH, HISTORY, VALIDATION_ERROR
from ladder_search.record.trial import TrialState as State
from ladder_search.record.trial import identity, key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    name: str
    """"published" or "proposed", or "supervised baseline", which are never stopped; "" for an ordinary suggestion."""
    settings: dict[str, Any]
    params: dict[str, Any] | None
    """Flat parameters if the point lies in the space, so that the sampler learns from it; None otherwise."""


def outcome(result: Mapping[str, Any] | None, epochs: int, *, error: bool = False) -> State:
    """Return the state of an ended trial from its last result; ``epochs`` is the configured length."""
    if error or not result or result.get(DIVERGED) or not math.isfinite(result.get(VALIDATION_ERROR, math.nan)):
        return "FAIL"
    return "COMPLETE" if result.get(EPOCH, 0) >= epochs else "PRUNED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    trial: dict[str, Any]
    checkpoint: str | None
    """Folder or address of the checkpoint to continue from; None: restart."""
    epoch: int


Untried = Callable[
    [optuna.Study, Callable[[int], optuna.samplers.BaseSampler], int, Collection[str]], dict[str, Any] | None
]
"""(study, sampler by number, trial number, identities of tried settings) -> flat parameters."""


class OptunaSearcher(Searcher):
    """Suggests trials from an Optuna study and reports their results to it.

    State for one trial::

        suggest(id)             -> the Optuna trial is RUNNING
        on_trial_result(id, …)  -> one more intermediate value, by epoch
        on_trial_complete(id,…) -> COMPLETE, PRUNED or FAIL, which is final; with a ladder it may wait at a rung
        suggest(another id)     -> with a ladder: the trial goes on from its checkpoint, in a Ray trial of its own
        close()                 -> no trial is RUNNING; unfinished ones are WAITING for a resume

    With a ladder, the sampler learns from waiting trials as well: from the estimated mean of those with a complete
    schedule, and from the intermediate values of the others.
    """

    def __init__(
        self,
        journal: Journal,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        suggest_settings: Callable[[optuna.trial.BaseTrial], dict[str, Any]],
        points: Sequence[FixedPoint],
        *,
        epochs: int,
        common: Mapping[str, Any],
        needed: Callable[..., dict[str, Any]],
        reasons: Mapping[str, str],
        unfinished: Sequence[Unfinished] = (),
        first: int = 0,
        over: Callable[[], bool] = bool,
        most: float = math.inf,
        untried: Untried = lambda study, sampler, number, tried: None,
        ladder: Ladder | None = None,
        checkpoint: Callable[[str], str | None] = lambda key: None,
        arriving: Callable[[str], bool] = lambda key: False,
    ) -> None:
        """Args:
        sampler: returns the sampler for a trial number.
        needed: returns the program for given settings.
        reasons: why the scheduler stopped a trial, by key; trials without a reason were stopped with the search.
        unfinished: trials to resume before new ones.
        first: number of the first new trial.
        most: number of trials to suggest. The end is reported after all have ended, as Ray reuses the processes of
        paused trials.
        untried: returns parameters that no trial has yet; None if the sampler cannot repeat itself.
        ladder: the rungs at which trials wait; None: a trial is trained to its end, unless a scheduler stops it.
        checkpoint: returns the place of a waiting trial's checkpoint, by key; None: there is none.
        arriving: returns whether a waiting trial's checkpoint may still arrive.
        """
        super().__init__(metric=VALIDATION_ERROR, mode=journal.mode)
        self._journal, self._sampler = journal, sampler
        self._suggest_settings = suggest_settings
        self._points = list(points)
        self._epochs = epochs if ladder is None else ladder.top
        self.common = dict(common)
        self._needed = needed
        self._reasons = reasons
        self._unfinished = deque(unfinished)
        self._running: dict[str, str] = {}
        self._suggested = first
        self._over = over
        self._left = most
        self._untried = untried
        self._ladder, self._checkpoint, self._arriving = ladder, checkpoint, arriving
        self._begun: dict[str, dict[str, Any]] = {}
        """Key, name, parameters and settings of the trials of this execution."""
        self._stretches: Counter[str] = Counter()
        self._tried = {identity(json.loads(trial.user_attrs["settings"])) for trial in journal.trials().values()}

    def __getstate__(self) -> dict[str, Any]:
        """Exclude this object from Ray's snapshot: a search is restored from Optuna's journal."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next configuration, unfinished trials and fixed points first; None if no trial may start."""
        if self._over():  # Ray would wait for minutes for a suggestion if no trial were left to run
            return None if self._running else cast(Any, Searcher.FINISHED)  # not in the supertype's annotation
        promoted = self._promoted() if not self._unfinished else None
        if promoted is not None:
            self._running[trial_id] = promoted["key"]
            return promoted
        if not self._left:
            waits = self._running or (self._ladder is not None and any(map(self._arriving, self._ladder.waiting)))
            return None if waits else cast(Any, Searcher.FINISHED)
        self._left -= 1
        start, epoch = None, 0
        if self._unfinished:
            resumed = self._unfinished.popleft()
            self._journal.go_on(resumed.trial["key"])
            trial, start, epoch = resumed.trial, resumed.checkpoint, resumed.epoch
        else:
            trial = self._new()
        self._running[trial_id] = trial["key"]
        self._begun[trial["key"]] = trial
        return {**self._config(trial), "start": start, "until": self._until(epoch, trial), "stretch": 0}

    def wait(self, unfinished: Unfinished) -> None:
        """Let a trial of an earlier execution wait at the rung that it has reached."""
        assert self._ladder is not None, "trials wait at the rungs of a ladder"
        key = unfinished.trial["key"]
        self._journal.go_on(key)  # Optuna would start a WAITING trial as a new one
        self._begun[key] = unfinished.trial
        self._ladder.wait(key, unfinished.epoch)

    def _promoted(self) -> dict[str, Any] | None:
        """Return the configuration of a trial that goes on to its next rung; None without one whose checkpoint has
        arrived."""
        found = self._ladder.promoted(lambda key: self._checkpoint(key) is not None) if self._ladder else None
        if found is None:
            return None
        key, until = found
        self._stretches[key] += 1
        start = {"start": self._checkpoint(key), "until": until, "stretch": self._stretches[key]}
        return {**self._config(self._begun[key]), **start}

    def _config(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        fixed = bool(trial["name"])
        return {**self.common, **trial, **self._needed(trial["settings"], fixed=fixed), "protected": fixed}

    def _until(self, epoch: int, trial: Mapping[str, Any]) -> int:
        """Return the epoch at which a trial ends for now; fixed points climb every rung without waiting."""
        return self._epochs if self._ladder is None or trial["name"] else self._ladder.goal_after(epoch)

    def _new(self) -> dict[str, Any]:
        number = self._suggested
        self._suggested += 1
        point = self._points[number] if number < len(self._points) else None
        study = self._journal.study
        study.sampler = self._sampler(number)
        name = point.name if point else ""
        if point is not None and point.params is None:  # outside the space
            trial = self._journal.references.ask()
            settings, params = point.settings, {}
        else:
            fixed = point.params if point else self._suggested_by(study, number)
            if fixed is not None:
                study.enqueue_trial(fixed)
            trial = study.ask()
            settings, params = self._suggest_settings(trial), dict(trial.params)
        key = key_of(number)
        self._journal.keep(trial, key, name, settings)
        self._tried.add(identity(settings))
        return {"key": key, "number": number, "name": name, "params": params, "settings": settings}

    def _suggested_by(self, study: optuna.Study, number: int) -> dict[str, Any] | None:
        """Return the flat parameters of a suggestion; None: ``study.ask()`` suggests."""
        if self._ladder is None:
            return self._untried(study, self._sampler, number, self._tried)
        known = self._journal.known(estimates(self._ladder.errors()))
        params = self._untried(known, self._sampler, number, self._tried)
        if params is not None:
            return params
        known.sampler = self._sampler(number)
        trial = known.ask()
        self._suggest_settings(trial)
        return dict(trial.params)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an intermediate value; known ones, for example of a restored trial, are ignored."""
        key = self._running.get(trial_id)
        if key is not None:
            self._report(key, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self._running.pop(trial_id, None)
        if key is None:
            return
        if result:
            self._report(key, result)
            if self._waits(key, result, error=error):
                return
        if self._ladder is not None:
            self._ladder.leave(key)
        state = outcome(result, self._epochs, error=error)
        if (state == "PRUNED" and key not in self._reasons) or (not result and not error):
            self._journal.pause(key)
        else:
            self._journal.end(key, state, result.get(VALIDATION_ERROR) if result else None)

    def _waits(self, key: str, result: Mapping[str, Any], *, error: bool) -> bool:
        """Return whether a trial waits at the rung that it has reached, and let it wait."""
        epoch = int(result.get(EPOCH, 0))
        if self._ladder is None or error or key in self._reasons or self._begun[key]["name"]:
            return False
        if outcome(result, self._epochs) != "PRUNED" or not self._ladder.pauses(epoch):
            return False
        self._ladder.wait(key, epoch)
        return True

    def end_waiting(self) -> dict[str, tuple[State, str]]:
        """End all waiting trials, which no rung takes any more; return their states and reasons by key."""
        if self._ladder is None:
            return {}
        ends: dict[str, tuple[State, str]] = {}
        for key in self._ladder.waiting:
            errors = self._ladder.errors().get(key, {})
            ends[key] = ("COMPLETE" if errors else "PRUNED", self._ladder.reason(key))
            self._ladder.leave(key)
            mean = sum(errors.values()) / len(errors) if errors else None
            self._journal.end(key, ends[key][0], mean)
        return ends

    def close(self) -> None:
        """Set trials that a halted search left RUNNING to WAITING."""
        waiting = self._ladder.waiting if self._ladder is not None else []
        unfinished = (unfinished.trial["key"] for unfinished in self._unfinished)
        for key in (*self._running.values(), *unfinished, *waiting):
            self._journal.pause(key)
        self._running.clear()
        self._unfinished.clear()

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: Ray requires this method for its snapshots, which are never read."""

    def _report(self, key: str, result: Mapping[str, Any]) -> None:
        if self._ladder is not None:
            self._ladder.report(key, result.get(HISTORY, ()), reference=bool(self._begun[key]["name"]))
        self._journal.report(key, result.get(VALIDATION_ERROR, math.nan), int(result.get(EPOCH, 0)))
