"""Ray Tune's view of our Optuna study.

Ray's own OptunaSearch reports a stopped trial as complete. Here a stopped trial is PRUNED with its intermediate values,
a diverged or crashed one is FAIL, and only a trial that was trained to its end is COMPLETE.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from ray.tune.search import Searcher

from ladder_search.driver.journal import Journal
from ladder_search.metrics import DIVERGED, EPOCH, VALIDATION_ERROR
from ladder_search.record.trial import TrialState as State
from ladder_search.record.trial import identity, key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """A configuration that is run as it is, before any suggestion."""

    name: str
    """"published" or "supervised baseline", which are never stopped; "": a point to begin with, a suggestion as any."""
    settings: dict[str, Any]
    """The whole trial's nested settings."""
    params: dict[str, Any] | None
    """Its flat parameters where the space has that point: then the sampler learns from it; None: it does not."""


def outcome(result: Mapping[str, Any] | None, epochs: int, *, error: bool = False) -> State:
    """Return the state of an ended trial from its last result and the epochs it was to be trained for."""
    if error or not result or result.get(DIVERGED) or not math.isfinite(result.get(VALIDATION_ERROR, math.nan)):
        return "FAIL"
    return "COMPLETE" if result.get(EPOCH, 0) >= epochs else "PRUNED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A trial of an earlier life of the search that has not ended."""

    trial: dict[str, Any]
    """Its key, number, name, params and settings."""
    checkpoint: str | None
    """Folder or address of the checkpoint that it goes on from; None: it starts anew."""
    epoch: int
    """Epochs in that checkpoint."""


Untried = Callable[
    [optuna.Study, Callable[[int], optuna.samplers.BaseSampler], int, Collection[str]], dict[str, Any] | None
]
"""(study, sampler by number, number of the trial, identities of what was tried) -> flat parameters."""


class OptunaSearcher(Searcher):
    """Suggests trials from an Optuna study and tells it their ends.

    State for one trial::

        suggest(id)             -> the Optuna trial is RUNNING
        on_trial_result(id, …)  -> one more intermediate value, by epoch
        on_trial_complete(id,…) -> COMPLETE, PRUNED or FAIL; nothing changes it afterwards
        close()                 -> no trial is RUNNING; what has not ended is WAITING, for a resume
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
    ) -> None:
        """Args:
        sampler: returns the sampler of a suggestion, by its number.
        suggest_settings: turns an Optuna trial into a trial's nested settings.
        common: part of the configuration of every trial.
        needed: returns the program that settings need.
        reasons: key -> why the scheduler stopped a trial; a trial without a reason was stopped with the search.
        unfinished: trials that are resumed before anything new is suggested.
        first: number of the first new trial.
        over: whether the search is being halted.
        most: trials to suggest. The searcher reports the end when all have ended: until then, Ray reuses
            the process of a paused trial.
        untried: returns parameters that no trial has yet; None where the sampler cannot repeat itself.
        """
        super().__init__(metric=VALIDATION_ERROR, mode="min")
        self._journal, self._sampler = journal, sampler
        self._suggest_settings = suggest_settings
        self._points = list(points)
        self._epochs = epochs
        self.common = dict(common)
        self._needed = needed
        self._reasons = reasons
        self._unfinished = deque(unfinished)
        self._running: dict[str, str] = {}
        self._suggested = first
        self._over = over
        self._left = most
        self._untried = untried
        self._tried = {identity(json.loads(trial.user_attrs["settings"])) for trial in journal.trials().values()}

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles searchers into its snapshot; a search is rebuilt from Optuna's journal instead."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial, unfinished ones and fixed points first; None: none may begin."""
        if self._over():
            return None
        if not self._left:
            return None if self._running else cast(Any, Searcher.FINISHED)  # a word, which the supertype leaves out
        self._left -= 1
        if self._unfinished:
            found = self._unfinished.popleft()
            self._journal.go_on(found.trial["key"])
            trial, start = found.trial, found.checkpoint
        else:
            trial, start = self._new(), None
        self._running[trial_id] = trial["key"]
        fixed = bool(trial["name"])
        needed = self._needed(trial["settings"], fixed=fixed)
        return {**self.common, **trial, **needed, "protected": fixed, "start": start}

    def _new(self) -> dict[str, Any]:
        number = self._suggested
        self._suggested += 1
        point = self._points[number] if number < len(self._points) else None
        study = self._journal.study
        study.sampler = self._sampler(number)
        if point is None:
            params = self._untried(study, self._sampler, number, self._tried)
            if params is not None:
                study.enqueue_trial(params)
            trial = study.ask()
            settings, name, params = self._suggest_settings(trial), "", dict(trial.params)
        elif point.params is not None:
            study.enqueue_trial(point.params)
            trial = study.ask()
            settings, name, params = self._suggest_settings(trial), point.name, dict(trial.params)
        else:
            trial = self._journal.references.ask()
            settings, name, params = point.settings, point.name, {}
        key = key_of(number)
        self._journal.keep(trial, key, name, settings)
        self._tried.add(identity(settings))
        return {"key": key, "number": number, "name": name, "params": params, "settings": settings}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an intermediate value; one that was reported before (a restored trial) is not reported twice."""
        key = self._running.get(trial_id)
        if key is not None:
            self._report(key, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended."""
        key = self._running.pop(trial_id, None)
        if key is None:
            return
        if result:
            self._report(key, result)
        state = outcome(result, self._epochs, error=error)
        if (state == "PRUNED" and key not in self._reasons) or (not result and not error):
            self._journal.pause(key)
        else:
            self._journal.end(key, state, result.get(VALIDATION_ERROR) if result else None)

    def close(self) -> None:
        """Leave no trial RUNNING that Tune left without an end, because the search was halted."""
        for key in (*self._running.values(), *(found.trial["key"] for found in self._unfinished)):
            self._journal.pause(key)
        self._running.clear()
        self._unfinished.clear()

    def save(self, checkpoint_path: str) -> None:
        """Ray calls it for every snapshot and warns where it is missing; nothing reads one, so nothing is written."""

    def _report(self, key: str, result: Mapping[str, Any]) -> None:
        self._journal.report(key, result.get(VALIDATION_ERROR, math.nan), int(result.get(EPOCH, 0)))
