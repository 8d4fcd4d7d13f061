"""Callback of Ray Tune that writes records, tracks runs and updates the console.

An exception in a Tune callback aborts the search, so methods collect problems instead of raising.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pyarrow.fs import LocalFileSystem
from ray import tune

from ladder_search import metrics
from ladder_search.bundles.stages import stage_tags
from ladder_search.config import flat
from ladder_search.driver.halt import Halt
from ladder_search.driver.ledger import Ledger, TrialLog
from ladder_search.driver.progress import Progress
from ladder_search.driver.rungs import Ladder
from ladder_search.driver.searcher import outcome
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import STOPPED, TrialRecord, TrialState
from ladder_search.tracking import DatasetInput, MetricPoint, RunStatus, Tracker
from ladder_search.tracking.clock import steady_time

CRASHED = "crashed"
WAITS = "waits at a rung"
HOPELESS = 3
"""The search stops after this many crashes if no trial has reported: the configurations are not the cause."""

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


class SearchCallback(tune.Callback):
    def __init__(
        self,
        *,
        search: str,
        folder: StudyFolder,
        ledger: Ledger,
        tracker: Tracker,
        progress: Progress,
        epochs: int,
        tags: Mapping[str, str],
        dataset: DatasetInput,
        reasons: Mapping[str, str],
        halt: Halt,
        ladder: Ladder | None = None,
        ended: Iterable[TrialRecord] = (),
        clock: Callable[[], float] = steady_time,
    ) -> None:
        """Args: ``search`` prefixes tracker keys; ``reasons`` holds, by key, why the scheduler stopped a trial;
        ``halt`` is notified if no trial can be trained; ``ladder`` are the rungs at which trials wait; ``ended`` are
        records of earlier executions."""
        self._halt, self._ladder = halt, ladder
        self._search, self._folder, self._tracker, self.progress = search, folder, tracker, progress
        self._epochs = epochs if ladder is None else ladder.top
        self._tags, self._dataset, self._reasons, self._clock = tags, dataset, reasons, clock
        self._begun: dict[str, float] = {}
        self._trials: dict[str, Any] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._ledger = ledger
        self._unwritten: dict[str, OSError] = {}
        self._kept: dict[str, int] = {}
        halt.running = lambda: {key for key, trial in self._trials.items() if trial.status == "RUNNING"}
        self.records = {record.key: record for record in ended}
        progress.resumed(self.records.values())

    def __getstate__(self) -> dict[str, Any]:
        """Exclude this object from Ray's snapshot: a search is restored from the study folder."""
        return {}

    @_never_raises
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        config, key = trial.config, trial.config["key"]
        if self._trials.get(key) is trial:
            return  # restarted after a fault or a pause: the run continues
        log = self._ledger.begin(config)
        goes_on = key in self._trials
        # A trial of an earlier execution is timed as if it had not been interrupted.
        self._begun[key], self._trials[key] = self._clock() - log.seconds, trial
        self.progress.started(key)
        if not goes_on:
            self._start_run(log, config["device"])

    @_never_raises
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key, log = trial.config["key"], self._ledger[trial.config["key"]]
        self.progress.reported(key, result[metrics.EPOCH], trial.config["until"], result[metrics.VALIDATION_ERROR])
        fresh = self._ledger.report(
            trial.config,
            result[metrics.HISTORY],
            time_ms=int(self._clock() * 1000),
            seconds=self._seconds(key),
            end=self._decided(key, result) if result.get("done") else None,
        )
        self._log(log, fresh)
        note = result.get(metrics.NOTE)
        if note and note not in self.notes:
            self.notes.append(note)
            self.problems.append(note)
        if len(log.rows) == len(fresh):
            self._tracker.set_tags(self._run(key), {"host": str(result.get("hostname", ""))})
            if note:
                self._tracker.set_tags(self._run(key), {"note": note})

    @_never_raises
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config["key"]
        log = self._ledger.begin(trial.config)
        if self._waits(trial.config, log):
            self._begun.pop(key, None)  # the time at a rung does not count
            complete = log.last_epoch >= log.trial["settings"]["training"]["epochs"]
            self.progress.waits(self._as_record(log, "COMPLETE" if complete else "PRUNED", WAITS, None))
        else:
            self._end(trial, error=False)

    @_never_raises
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, error=True)
        crashes = sum(record.reason.startswith(CRASHED) for record in self.records.values())
        trained = any(log.rows for log in self._ledger.logs.values()) or any(r.epochs for r in self.records.values())
        self._halt.hopeless = crashes >= HOPELESS and not trained

    @_never_raises
    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        key = trial.config["key"]
        # Ray counts failures over a trial's whole life, in which three machines may be lost: only repeated failures
        # without progress should end it.
        trial.run_metadata.num_failures = 0
        self._kept[key] = trial.last_result.get(metrics.EPOCH, 0)
        record = self.records.get(key)
        if record is not None:  # the last checkpoint arrives after the trial's end
            self._end(trial, error=record.reason.startswith(CRASHED))

    def checkpoint(self, key: str) -> str | None:
        """Return the address of a waiting trial's checkpoint, relative to the folder of all checkpoints; None if it
        has not arrived or could not be written."""
        trial, log = self._trials.get(key), self._ledger[key]
        if trial is None or trial.checkpoint is None or self._kept.get(key, 0) < log.last_epoch:
            return None
        path = Path(trial.checkpoint.path)
        return f"{path.parent.name}/{path.name}"

    def arriving(self, key: str) -> bool:
        """Return whether the last checkpoint of a waiting trial may still arrive."""
        trial = self._trials.get(key)
        return trial is not None and not trial.is_finished()

    @_never_raises
    def finish(self, key: str, state: TrialState, reason: str, place: str | None, device: str) -> None:
        """End a trial that waits at a rung; ``place`` is its checkpoint of an earlier execution."""
        log, trial = self._ledger[key], self._trials.get(key)
        self._ledger.end(key, state, reason, self._seconds(key))
        if trial is None:
            self._start_run(log, device)
        checkpoint = trial.checkpoint if trial is not None else tune.Checkpoint(place) if place else None
        self._settle(log, self._fetched(key, checkpoint))

    @_never_raises
    def settle(self, key: str, checkpoint: str | None, device: str) -> None:
        """Write record and run of a trial that had ended when the search was killed; ``checkpoint`` is its location."""
        log = self._ledger[key]
        self._start_run(log, device)
        self._settle(log, self._fetched(key, tune.Checkpoint(checkpoint) if checkpoint else None))

    def end_all(self) -> None:
        self._ledger.flush()  # a disk that was full may have space again, here and below
        for trial in [trial for key, trial in self._trials.items() if key not in self.records]:
            self._halted(trial)
        for key, error in list(self._unwritten.items()):
            if not self._write(self.records[key]):
                self.note(f"record of {key}", error)
            elif self._ledger[key].end is not None:
                self._ledger.settle(key)
        if stale := [key for key in self._trials if self._is_stale(self.records[key])]:
            self.note(", ".join(stale), "the last checkpoint could not be written; weights are older ones, or none")

    @_never_raises
    def _halted(self, trial: Any) -> None:
        log = self._ledger[trial.config["key"]]
        # A trial that was trained to its budget but lacks its last checkpoint has not ended either.
        end = log.end if log.end is not None and log.end[0] != "COMPLETE" else ("PRUNED", STOPPED)
        self._record(log, *end, self._fetched(log.trial["key"], trial.checkpoint))

    def note(self, where: str, error: Exception | str) -> None:
        """Record a problem once: a full disk raises the same error at every report."""
        problem = f"{where}: {error if isinstance(error, str) else f'{type(error).__name__}: {error}'}"
        if problem not in self.problems:
            self.problems.append(problem)

    def _end(self, trial: Any, *, error: bool) -> None:
        key = trial.config["key"]
        log = self._ledger.begin(trial.config)
        if error:
            self._ledger.end(key, "FAIL", self._crash(key, trial), self._seconds(key))
        if log.end is None:
            self._halted(trial)
        else:
            self._settle(log, self._fetched(key, trial.checkpoint))

    def _settle(self, log: TrialLog, checkpoint: str | None) -> None:
        assert log.end is not None
        if self._record(log, *log.end, checkpoint):
            self._ledger.settle(log.trial["key"])

    def _record(self, log: TrialLog, state: TrialState, reason: str, checkpoint: str | None) -> bool:
        """Write a trial's record and end its run if not done yet; return whether the record could be written."""
        key = log.trial["key"]
        again = self.records.get(key)
        self.records[key] = record = self._as_record(log, state, reason, checkpoint)
        written = self._write(record)
        if again is None:
            self.progress.ended(record)
            tags = {"status": state, "reason": reason, "rung": str(log.last_epoch)}
            self._tracker.set_tags(self._run(key), tags)
            self._tracker.end_run(self._run(key), _STATUS[state])
        return written

    def _as_record(self, log: TrialLog, state: TrialState, reason: str, checkpoint: str | None) -> TrialRecord:
        key, last = log.trial["key"], log.rows.get(log.last_epoch)
        again, error = self.records.get(key), last[metrics.VALIDATION_ERROR] if last else math.nan
        return TrialRecord(
            **{**log.trial, **log.configurations[-1]},
            state=state,
            reason=reason,
            epochs=tuple(_json_ready(log.rows[epoch]) for epoch in sorted(log.rows)),
            validation_error=error if math.isfinite(error) else None,
            seconds=again.seconds if again else self._seconds(key),
            checkpoint=checkpoint,
        )

    def _waits(self, config: Mapping[str, Any], log: TrialLog) -> bool:
        """Return whether a trial whose Ray trial has ended waits at a rung."""
        if self._ladder is None or config["protected"] or config["key"] in self._reasons:
            return False
        return log.end is None and self._ladder.pauses(log.last_epoch)

    def _write(self, record: TrialRecord) -> bool:
        try:
            self._folder.write_trial(record)
        except OSError as error:
            self._unwritten[record.key] = error
            return False
        self._unwritten.pop(record.key, None)
        return True

    def _is_stale(self, record: TrialRecord) -> bool:
        """Whether the weights of a trial are older than its end."""
        return record.state == "COMPLETE" and self._kept.get(record.key, 0) < record.epochs[-1][metrics.EPOCH]

    def _start_run(self, log: TrialLog, device: str) -> None:
        """Start a trial's run; its reports of earlier executions are sent again and stored once."""
        trial, settings = log.trial, log.trial["settings"]
        key = trial["key"]
        self._tracker.start_run(
            self._run(key),
            name=f"{key} {trial['name']}".strip(),
            params={**flat(settings), **{f"search/{name}": value for name, value in trial["params"].items()}},
            tags={
                **self._tags,
                "trial": key,
                "name": trial["name"],
                "seed": str(settings["seed"]),
                "label_seed": str(settings["label_seed"]),
                "status": "RUNNING",
                "device": device,
                **{f"source_{name}": text for name, text in stage_tags(settings).items()},
            },
            parent=f"{self._search}/search",
            dataset=self._dataset,
        )
        if log.rows:
            self._log(log, log.rows.values())

    def _log(self, log: TrialLog, rows: Iterable[Mapping[str, Any]]) -> None:
        points = [
            MetricPoint(name=name, value=float(value), step=row[metrics.EPOCH], time_ms=time_ms)
            for row in rows
            for name, value in row.items()
            # Rows that come from a record were sent by an earlier execution, and points with another time would be new.
            if name != metrics.EPOCH and (time_ms := log.times[row[metrics.EPOCH]]) is not None
        ]
        self._tracker.log_metrics(self._run(log.trial["key"]), points)

    def _run(self, key: str) -> str:
        return f"{self._search}/{key}"

    def _seconds(self, key: str) -> float:
        return self._clock() - self._begun[key] if key in self._begun else self._ledger[key].seconds

    def _fetched(self, key: str, checkpoint: Any) -> str | None:
        """Return the location of the trial's last checkpoint; a remote one is copied into the study folder first."""
        if checkpoint is None:
            return None
        path = Path(checkpoint.path)
        if not isinstance(checkpoint.filesystem, LocalFileSystem):
            path = self._folder.checkpoints / key
            try:
                checkpoint.to_directory(str(path))
            except Exception as error:  # the result of the trial counts without its weights
                self.note(f"checkpoint of {key}", error)
                return None
        root = self._folder.path.parent
        return os.path.relpath(path, self._folder.path) if path.is_relative_to(root) else str(path)

    def _crash(self, key: str, trial: Any) -> str:
        lines = str(trial.get_error() or "").strip().splitlines() if hasattr(trial, "get_error") else []
        reason = f"{CRASHED}: {lines[-1] if lines else 'see its log'}"
        lives = (path for path in self._folder.checkpoints.glob(f"{key}*/error.txt"))
        paths = [path for path in lives if re.fullmatch(rf"{key}(\.\d+)?", path.parent.name)]  # not t10000
        error_file = max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
        self.note(key, f"{reason}{f' (see {error_file})' if error_file else ''}")
        return reason

    def _decided(self, key: str, result: Mapping[str, Any]) -> tuple[TrialState, str] | None:
        """Return state and reason of a trial after its last report; None if a halt stops it."""
        match outcome(result, self._epochs):
            case "COMPLETE":
                return "COMPLETE", "trained to its budget"
            case "FAIL":
                return "FAIL", result.get(metrics.REASON) or "diverged"
        return ("PRUNED", self._reasons[key]) if key in self._reasons else None


def _json_ready(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with null for values that are not finite, which JSON cannot represent."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
