"""The Optuna studies of a search: two in memory, and the same two in a journal file.

The sampler reads the studies in memory. Each trial is written to the journal in one line after its parameters are
drawn, so a kill leaves no incomplete trial.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from ladder_search.disk.files import append_line
from ladder_search.errors import StudyFolderError
from ladder_search.internals.optuna import frozen_trial, set_intermediate_value, set_state
from ladder_search.record.trial import TrialState as State

REFERENCES = "references"
"""Suffix of the name of the study of fixed points outside the space."""


class _Backend(JournalFileBackend):
    """Optuna's journal file, which waits for the disk only when a trial ends.

    Lines survive the end of the process immediately; a power failure loses those since the last end of a trial. While
    the disk is full, lines are buffered in memory. Some file systems lack symbolic links, which are Optuna's default
    lock; this lock uses the same name, so both exclude each other.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._writing = path, JournalFileOpenLock(str(path))
        self.waiting: list[dict[str, Any]] = []
        self.error: OSError | None = None
        """Why lines are buffered; None if there are none."""
        super().__init__(str(path), lock_obj=self._writing)
        self._logs, self._first = list(super().read_logs(0)), 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._logs += logs
        self.waiting += logs
        self.flush()

    def flush(self) -> None:
        """Write the buffered lines; keep them if that fails."""
        if not self.waiting:
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in self.waiting)
        ends = any("state" in log and "trial_id" in log for log in self.waiting)
        try:
            self._writing.acquire()
            try:
                append_line(self._path, lines.encode(), wait=ends)
                self.waiting.clear()
                self.error = None
            finally:
                with suppress(RuntimeError):  # the lock file no longer exists
                    self._writing.release()
        except OSError as error:
            self.error = error

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield unread lines and discard those already read; there is only one reader."""
        del self._logs[: log_number_from - self._first]
        self._first = log_number_from
        yield from self._logs


@dataclass(frozen=True, slots=True)
class _Pair:
    memory: optuna.Study
    kept: optuna.Study

    @property
    def both(self) -> tuple[optuna.Study, optuna.Study]:
        return self.memory, self.kept


class Journal:
    """The trials of a search by their keys.

    State for one trial::

        ask(…) and keep(key, …)  -> RUNNING, in memory and in the file
        report(key, …)           -> one more intermediate value, by epoch
        end(key, …)              -> COMPLETE, PRUNED or FAIL, which is final
        pause(key)               -> WAITING: the search stopped before the trial ended; the sampler ignores it
        go_on(key)               -> RUNNING again
    """

    def __init__(
        self, path: Path, name: str, *, new: bool, direction: Literal["minimize", "maximize"] = "minimize"
    ) -> None:
        """Create a journal at ``path``, or open that of an earlier execution, whose direction is in the file; raise
        ``StudyFolderError`` if that fails."""
        self.notes: list[str] = []
        if new:
            with suppress(OSError):  # of a search that was killed before it began
                path.unlink(missing_ok=True)
        else:
            self._mend(path)
        self._path = path
        self._backend, storage = _opened(path)
        pairs = []
        for title in (name, f"{name}/{REFERENCES}"):
            if new:
                stored = optuna.create_study(storage=storage, study_name=title, direction=direction)
            else:
                stored = _load(storage, title, path)
            memory = optuna.create_study(study_name=title, direction=stored.direction)
            if not new:
                memory.add_trials(stored.get_trials(deepcopy=False))
            pairs.append(_Pair(memory, stored))
        if new and self._backend.error is not None:
            with suppress(OSError):
                path.unlink()
            raise _unwritable(path, self._backend.error) from self._backend.error
        self._main, self._references = pairs
        self._numbers: dict[str, tuple[_Pair, int]] = {
            trial.user_attrs["key"]: (pair, trial.number)
            for pair in pairs
            for trial in pair.kept.get_trials(deepcopy=False)
            if "key" in trial.user_attrs
        }

    @property
    def study(self) -> optuna.Study:
        """The study that the sampler reads: all trials except fixed points outside its space."""
        return self._main.memory

    @property
    def mode(self) -> Literal["min", "max"]:
        """Direction of the studies in Ray's words."""
        return "max" if self.study.direction == optuna.study.StudyDirection.MAXIMIZE else "min"

    @property
    def references(self) -> optuna.Study:
        """The fixed points outside the space, kept apart because they would shrink the sampler's search space."""
        return self._references.memory

    def keep(self, trial: optuna.Trial, key: str, name: str, settings: Mapping[str, Any]) -> None:
        for attribute, value in (("key", key), ("name", name), ("settings", json.dumps(settings))):
            trial.set_user_attr(attribute, value)
        pair = self._main if trial.study is self._main.memory else self._references
        pair.kept.add_trial(frozen_trial(pair.memory, trial.number))
        self._numbers[key] = pair, trial.number

    def restore(self, identity: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> None:
        """Restore a trial that the file has lost; ``identity`` has key, name, params and settings."""
        pair = self._references if identity["name"] and not identity["params"] else self._main
        params = identity["params"]
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={name: distributions[name] for name in params},
            user_attrs={"key": identity["key"], "name": identity["name"], "settings": json.dumps(identity["settings"])},
        )
        for study in pair.both:
            study.add_trial(trial)
        self._numbers[identity["key"]] = pair, len(pair.memory.get_trials(deepcopy=False)) - 1

    def trials(self) -> dict[str, FrozenTrial]:
        return {key: frozen_trial(pair.memory, number) for key, (pair, number) in self._numbers.items()}

    def known(self, values: Mapping[str, float]) -> optuna.Study:
        """Return a study for a sampler: trials with a value in ``values`` (by key) are COMPLETE with it; unfinished
        ones with intermediate values are PRUNED, whatever their state in the search.

        It is a copy, in memory. The states of the search itself are in ``study``.
        """
        copy = optuna.create_study(direction=self.study.direction)
        for trial in self.study.get_trials(deepcopy=False):
            value = values.get(trial.user_attrs.get("key", ""))
            if value is not None:
                trial = _as(trial, TrialState.COMPLETE, value)
            elif trial.state in (TrialState.RUNNING, TrialState.WAITING) and trial.intermediate_values:
                trial = _as(trial, TrialState.PRUNED, None)
            copy.add_trial(trial)
        return copy

    def report(self, key: str, error: float, epoch: int) -> None:
        """Report an intermediate value; known epochs, values that are not finite and ended trials are ignored."""
        pair, number = self._numbers[key]
        for study in pair.both:
            trial = frozen_trial(study, number)
            if math.isfinite(error) and epoch not in trial.intermediate_values and not trial.state.is_finished():
                set_intermediate_value(study, trial, epoch, error)

    def end(self, key: str, state: State, error: float | None) -> None:
        """Set the final state of a trial; ``error`` is the value of a COMPLETE one."""
        self.go_on(key)
        pair, number = self._numbers[key]
        for study in pair.both:
            value = error if state == "COMPLETE" else None
            study.tell(number, value, state=TrialState[state], skip_if_finished=True)

    def pause(self, key: str) -> None:
        self._set_state(key, TrialState.RUNNING, TrialState.WAITING)

    def go_on(self, key: str) -> None:
        self._set_state(key, TrialState.WAITING, TrialState.RUNNING)

    def close(self) -> list[str]:
        self._backend.flush()
        if self._backend.error is None:
            return []
        return [
            f"{self._path.name}: the disk accepted nothing ({self._backend.error}), so that "
            f"{len(self._backend.waiting)} entries are missing from it; a resume restores them from the records and "
            "reports of the trials"
        ]

    def _set_state(self, key: str, before: TrialState, after: TrialState) -> None:
        pair, number = self._numbers[key]
        for study in pair.both:
            trial = frozen_trial(study, number)
            if trial.state == before:
                set_state(study, trial, after)

    def _mend(self, path: Path) -> None:
        """Remove an incomplete last line, after which Optuna could not read a further one."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StudyFolderError(
                f"a search is resumed from its journal and {path} cannot be read: {error.strerror}; "
                "copy it back or start a new search."
            ) from error
        with suppress(OSError):
            Path(f"{path}.lock").unlink()  # left by the killed process; this process holds the folder
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if _is_entry(line):
                continue
            if number < len(lines):
                raise StudyFolderError(
                    f"each line of a journal must be a JSON object and line {number} of {path} is not; "
                    "copy the file back or start a new search."
                )
            with path.open("r+b") as file:
                file.truncate(len(content) - len(line))
            self.notes.append(
                f"The last line of {path.name} was incomplete and is dropped; its content is restored from the records."
            )


def _as(trial: FrozenTrial, state: TrialState, value: float | None) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs=trial.user_attrs,
    )


def space_as_json(distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    texts = {name: optuna.distributions.distribution_to_json(value) for name, value in distributions.items()}
    return {name: json.loads(text) for name, text in texts.items()}


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _opened(path: Path) -> tuple[_Backend, JournalStorage]:
    try:
        backend = _Backend(path)
        return backend, JournalStorage(backend)
    except OSError as error:
        raise _unwritable(path, error) from error
    except Exception as error:  # a line of valid JSON may raise any error in Optuna
        raise StudyFolderError(
            f"a journal must hold Optuna's entries and {path} holds others ({type(error).__name__}: {error}); "
            "copy the file back or start a new search."
        ) from error


def _unwritable(path: Path, error: OSError) -> StudyFolderError:
    return StudyFolderError(
        f"a search keeps its journal on disk and {path} must be writable, found: {error.strerror or error}; make room, "
        "change its permissions, or choose another --root."
    )


def _load(storage: JournalStorage, name: str, path: Path) -> optuna.Study:
    try:
        return optuna.load_study(storage=storage, study_name=name)
    except KeyError as error:
        raise StudyFolderError(
            f"a journal must hold the study {name!r} and {path} does not; copy the file back or start a new search."
        ) from error
