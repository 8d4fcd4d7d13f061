"""Ray Tune's view of our Optuna study: a Searcher that tells Optuna what really happened to each trial.

Ray's own OptunaSearch tells a stopped trial as complete at its low-budget value, which misleads the sampler and every
analysis. Here a stopped trial is PRUNED with its intermediate values, a diverged or crashed one is FAIL, and only one
that was trained to its end is COMPLETE.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ladder_search.metrics import DIVERGED, EPOCH, VALIDATION_ERROR
from ladder_search.record import TrialState as State

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "cma-es": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """A configuration that is run as it is, before any suggestion, and never stopped."""

    name: str
    """"published" or "supervised baseline"."""
    settings: dict[str, Any]
    """The whole trial's nested settings."""
    params: dict[str, Any] | None
    """Its flat parameters where the space has that point: then the sampler learns from it; None: it does not."""


def outcome(result: Mapping[str, Any] | None, epochs: int, *, error: bool = False) -> State:
    """Return the state of an ended trial from its last result and the epochs it was to be trained for."""
    if error or not result or result.get(DIVERGED) or not math.isfinite(result.get(VALIDATION_ERROR, math.nan)):
        return "FAIL"
    return "COMPLETE" if result.get(EPOCH, 0) >= epochs else "PRUNED"


class _Journal(JournalFileBackend):
    """Optuna's journal file, which waits for the disk when a trial changes its state, not at every parameter.

    Optuna's own waits about 14 times per trial, in Tune's event loop: a tenth of a second on a busy disk. What is
    written survives the end of the process at once; a power cut costs what was suggested and reported since.
    """

    def __init__(self, path: str) -> None:
        self._path, self._writing = path, JournalFileSymlinkLock(path)
        super().__init__(path, lock_obj=self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._writing.acquire()
        try:
            with open(self._path, "ab") as file:
                file.write(lines.encode())
                file.flush()
                if any("state" in log for log in logs):
                    os.fsync(file.fileno())
        finally:
            self._writing.release()


def open_studies(journal: Path, name: str, sampler: str, seed: int) -> tuple[optuna.Study, optuna.Study]:
    """Create the Optuna study of a search in ``journal``, and a second one for fixed points outside its space.

    A point that lies outside the space would, inside the study, shrink the space that the sampler models to the
    parameters which all trials share: none.
    """
    storage = JournalStorage(_Journal(str(journal)))
    study = optuna.create_study(storage=storage, study_name=name, direction="minimize", sampler=SAMPLERS[sampler](seed))
    references = optuna.create_study(storage=storage, study_name=f"{name}/references", direction="minimize")
    return study, references


class OptunaSearcher(Searcher):
    """Suggests trials from an Optuna study and tells it their ends.

    State for one trial::

        suggest(id)             -> the Optuna trial is RUNNING
        on_trial_result(id, …)  -> one more intermediate value, by epoch
        on_trial_complete(id,…) -> COMPLETE, PRUNED or FAIL; nothing changes it afterwards
        close()                 -> no trial is RUNNING
    """

    def __init__(
        self,
        study: optuna.Study,
        references: optuna.Study,
        suggest_settings: Callable[[optuna.trial.BaseTrial], dict[str, Any]],
        points: Sequence[FixedPoint],
        *,
        epochs: int,
        common: Mapping[str, Any],
    ) -> None:
        """Args: ``suggest_settings`` turns an Optuna trial into a trial's nested settings; ``common`` goes into every
        configuration that Ray's trials get."""
        super().__init__(metric=VALIDATION_ERROR, mode="min")
        self._study, self._references = study, references
        self._suggest_settings = suggest_settings
        self._points = list(points)
        self._epochs = epochs
        self._common = dict(common)
        self._running: dict[str, tuple[optuna.Study, optuna.Trial]] = {}
        self._suggested = 0

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles searchers into its snapshot; a search is rebuilt from Optuna's journal instead."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the configuration of the next trial: fixed points first."""
        number = self._suggested
        self._suggested += 1
        point = self._points[number] if number < len(self._points) else None
        study = self._study
        if point is None:
            trial = study.ask()
            settings, name, params = self._suggest_settings(trial), "", dict(trial.params)
        elif point.params is not None:
            study.enqueue_trial(point.params)
            trial = study.ask()
            settings, name, params = self._suggest_settings(trial), point.name, dict(trial.params)
        else:
            study = self._references
            trial = study.ask()
            settings, name, params = point.settings, point.name, {}
        key = f"t{number:04d}"
        trial.set_user_attr("key", key)
        trial.set_user_attr("name", name)
        trial.set_user_attr("settings", json.dumps(settings))
        self._running[trial_id] = (study, trial)
        return {
            **self._common,
            "key": key,
            "number": number,
            "name": name,
            "protected": bool(name),
            "params": params,
            "settings": settings,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an intermediate value; one that was reported before (a restored trial) is not reported twice."""
        running = self._running.get(trial_id)
        if running is not None:
            self._report(running[1], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended."""
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        study, trial = running
        state = outcome(result, self._epochs, error=error)
        if result:
            self._report(trial, result)
        if state == "COMPLETE" and result:
            study.tell(trial, result[VALIDATION_ERROR])
        elif state == "PRUNED":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, state=TrialState.FAIL)

    def close(self) -> None:
        """Tell Optuna the end of the trials that Tune left without one, because the search was halted."""
        for study, trial in self._running.values():
            study.tell(trial, state=TrialState.PRUNED)
        self._running.clear()

    def save(self, checkpoint_path: str) -> None:
        """Write what Ray's snapshot needs; the record of the search is Optuna's journal."""
        Path(checkpoint_path).write_text(json.dumps({"suggested": self._suggested}))

    def restore(self, checkpoint_path: str) -> None:
        """Read what ``save`` wrote."""
        self._suggested = int(json.loads(Path(checkpoint_path).read_text())["suggested"])

    @staticmethod
    def _report(trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        value, epoch = result.get(VALIDATION_ERROR, math.nan), int(result.get(EPOCH, 0))
        known = trial.storage.get_trial(trial._trial_id).intermediate_values
        if math.isfinite(value) and epoch not in known:
            trial.report(value, epoch)
