"""What happens around Ray's trials: records on disk, runs in the tracker, lines on the console.

An exception in a Tune callback aborts the whole search, so nothing here raises: what goes wrong is kept as a sentence
and told at the end.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pyarrow.fs import LocalFileSystem
from ray.tune import Callback

from ladder_search import metrics
from ladder_search.config import flat
from ladder_search.driver.halt import Halt
from ladder_search.driver.progress import Progress
from ladder_search.driver.searcher import outcome
from ladder_search.record import StudyFolder, TrialRecord, TrialState
from ladder_search.tracking import DatasetInput, MetricPoint, RunStatus, Tracker

CRASHED = "crashed"
"""How the reason of a crashed trial begins."""
HOPELESS = 3
"""So many crashes without a single report by any trial: it is not the configurations."""

_STATUS: dict[TrialState, RunStatus] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}

Hook = TypeVar("Hook", bound=Callable[..., None])


def _never_raises(hook: Hook) -> Hook:
    @functools.wraps(hook)
    def guarded(self: SearchCallback, *args: Any, **kwargs: Any) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self.note(hook.__name__, error)

    return cast(Hook, guarded)


class SearchCallback(Callback):
    """Follows every trial from its start to its record."""

    def __init__(
        self,
        *,
        search: str,
        folder: StudyFolder,
        tracker: Tracker,
        progress: Progress,
        epochs: int,
        tags: Mapping[str, str],
        dataset: DatasetInput,
        reasons: Mapping[str, str],
        halt: Halt,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args: ``search`` prefixes tracker keys; ``reasons`` tells, by key, why the scheduler stopped a trial;
        ``halt`` is told when no trial can be trained."""
        self._halt = halt
        self._search, self._folder, self._tracker, self.progress = search, folder, tracker, progress
        self._epochs, self._tags, self._dataset, self._reasons, self._clock = epochs, tags, dataset, reasons, clock
        self._begun: dict[str, float] = {}
        self._trials: dict[str, Any] = {}
        self._rows: dict[str, dict[int, dict[str, Any]]] = {}
        self.records: dict[str, TrialRecord] = {}
        self.problems: list[str] = []
        self._noted: set[tuple[str, str]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks into its snapshot; a search is rebuilt from the study folder instead."""
        return {}

    @_never_raises
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        config, key = trial.config, trial.config["key"]
        if key in self._begun:
            return  # started again after a fault or a pause: the same run goes on
        self._begun[key], self._trials[key] = self._clock(), trial
        self._rows[key] = {}
        self.progress.started(key)
        settings = config["settings"]
        self._tracker.start_run(
            f"{self._search}/{key}",
            name=f"{key} {config['name']}".strip(),
            params={**flat(settings), **{f"search/{name}": value for name, value in config["params"].items()}},
            tags={
                **self._tags,
                "trial": key,
                "name": config["name"],
                "seed": str(settings["seed"]),
                "label_seed": str(settings["label_seed"]),
                "status": "RUNNING",
                "device": config["device"],
            },
            parent=f"{self._search}/search",
            dataset=self._dataset,
        )

    @_never_raises
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key, rows = trial.config["key"], self._rows[trial.config["key"]]
        fresh = [row for row in result[metrics.HISTORY] if row[metrics.EPOCH] not in rows]
        rows |= {row[metrics.EPOCH]: row for row in fresh}
        self.progress.reported(key, result[metrics.EPOCH], self._epochs, result[metrics.VALIDATION_ERROR])
        now = int(self._clock() * 1000)
        self._tracker.log_metrics(
            f"{self._search}/{key}",
            [
                MetricPoint(name=name, value=float(value), step=row[metrics.EPOCH], time_ms=now)
                for row in fresh
                for name, value in row.items()
                if name != metrics.EPOCH
            ],
        )
        if len(rows) == len(fresh):
            self._tracker.set_tags(f"{self._search}/{key}", {"host": str(result.get("hostname", ""))})

    @_never_raises
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, error=False)

    @_never_raises
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, error=True)
        crashes = sum(record.reason.startswith(CRASHED) for record in self.records.values())
        self._halt.hopeless = crashes >= HOPELESS and not any(self._rows.values())

    @_never_raises
    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        record = self.records.get(trial.config["key"])
        if record is not None:  # the last checkpoint arrives after the trial's end
            self._end(trial, error=record.reason.startswith(CRASHED))

    def end_all(self) -> None:
        """Record the trials that were still running when the search was stopped."""
        for trial in [trial for key, trial in self._trials.items() if key not in self.records]:
            self._halted(trial)

    @_never_raises
    def _halted(self, trial: Any) -> None:
        self._end(trial, error=False, halted=True)

    def note(self, where: str, error: Exception | str) -> None:
        """Keep a problem, once: a full disk says the same at every report."""
        problem = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if (where, problem) not in self._noted:
            self._noted.add((where, problem))
            self.problems.append(f"{where}: {problem}")

    def _end(self, trial: Any, *, error: bool, halted: bool = False) -> None:
        config, key = trial.config, trial.config["key"]
        rows = self._rows.get(key, {})
        last = rows[max(rows)] if rows else None
        result = (
            {**last, metrics.DIVERGED: trial.last_result.get(metrics.DIVERGED)} if last and trial.last_result else last
        )
        state = outcome(result, self._epochs, error=error)
        if halted and not rows:
            state = "PRUNED"  # nobody knows how it would have ended
        again = self.records.get(key)
        error_value = last[metrics.VALIDATION_ERROR] if last else math.nan
        record = TrialRecord(
            key=key,
            number=config["number"],
            name=config["name"],
            state=state,
            reason=self._reason(key, state, trial, error),
            params=dict(config["params"]),
            settings=config["settings"],
            epochs=tuple(_json_ready(rows[epoch]) for epoch in sorted(rows)),
            validation_error=error_value if math.isfinite(error_value) else None,
            seconds=again.seconds if again else self._clock() - self._begun.get(key, self._clock()),
            checkpoint=self._checkpoint(trial, key),
        )
        self.records[key] = record
        try:
            self._folder.write_trial(record)
        except OSError as error:
            self.note(f"record of {key}", error)
        if again:
            return
        self.progress.ended(record)
        run = f"{self._search}/{key}"
        rung = str(last[metrics.EPOCH]) if last else "0"
        self._tracker.set_tags(run, {"status": state, "reason": record.reason, "rung": rung})
        self._tracker.end_run(run, _STATUS[state])

    def _checkpoint(self, trial: Any, key: str) -> str | None:
        """Where the trial's last checkpoint is; one in a bucket is fetched, so that the study folder is complete."""
        checkpoint = trial.checkpoint
        if checkpoint is None:
            return None
        path = Path(checkpoint.path)
        if not isinstance(checkpoint.filesystem, LocalFileSystem):
            path = self._folder.checkpoints / key
            try:
                checkpoint.to_directory(str(path))
            except Exception as error:  # the trial's result counts without its weights, too
                self.note(f"checkpoint of {key}", error)
                return None
        root = self._folder.path
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    def _reason(self, key: str, state: TrialState, trial: Any, error: bool) -> str:
        if error:
            lines = str(trial.get_error() or "").strip().splitlines() if hasattr(trial, "get_error") else []
            reason = f"{CRASHED}: {lines[-1] if lines else 'see its log'}"
            error_file = self._folder.checkpoints / key / "error.txt"
            self.note(key, f"{reason}{f' (see {error_file})' if error_file.exists() else ''}")
            return reason
        if state == "COMPLETE":
            return "trained to its budget"
        if state == "FAIL":
            return "diverged"
        return self._reasons.get(key, "stopped with the search")


def _json_ready(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what diverged becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
