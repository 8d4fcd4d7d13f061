"""Reports of unfinished trials, written to disk before anything else receives them.

Journal, spool, checkpoints and records are written later, so a kill may leave them behind the ledger. A resume sends
the reports again with their original times, so none is lost or duplicated. Each trial has a file of JSON lines::

    {"trial": {"key": "t0007", "number": 7, "name": "", "params": {…}, "settings": {…}}}
    {"rows": [{"epoch": 1, …}, …], "time_ms": 1700000000000, "seconds": 4.2}
    {"changed": {"params": {…}, "settings": {…}}}                    changed by population based training
    {"rows": […], "time_ms": …, "seconds": 8.1, "end": ["COMPLETE", "trained to its budget"]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladder_search.disk.files import append_line
from ladder_search.errors import StudyFolderError
from ladder_search.metrics import EPOCH
from ladder_search.record.trial import TrialState, files_by_key

IDENTITY = ("key", "number", "name")
CONFIGURATION = ("params", "settings")
BEST_FIRST: tuple[TrialState, ...] = ("COMPLETE", "PRUNED", "FAIL")
"""If a trial has different ends, the first of these is kept."""


@dataclass(slots=True)
class TrialLog:
    trial: dict[str, Any]
    """``IDENTITY`` and ``CONFIGURATION`` at the start."""
    configurations: list[dict[str, Any]] = field(default_factory=list)
    """``CONFIGURATION`` at the start and after each change."""
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    times: dict[int, int | None] = field(default_factory=dict)
    """Time of the first report of each epoch, in milliseconds since 1970; None for rows that come from a record."""
    reports: list[int] = field(default_factory=list)
    """Last epoch of every report to the sampler and the scheduler."""
    seconds: float = 0.0
    end: tuple[TrialState, str] | None = None
    """State and reason, once decided."""

    @property
    def last_epoch(self) -> int:
        return max(self.rows, default=0)

    def take(self, line: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "changed" in line:
            self.configurations.append(line["changed"])
        fresh = [row for row in line.get("rows", ()) if row[EPOCH] not in self.rows]
        for row in fresh:
            self.rows[row[EPOCH]] = row
            self.times[row[EPOCH]] = line["time_ms"]
        if fresh:
            self.reports.append(fresh[-1][EPOCH])
        self.seconds = line.get("seconds", self.seconds)
        if line.get("end"):
            state, reason = line["end"]
            # An end is final: a later fault loses weights, but no result.
            if self.end is None or BEST_FIRST.index(state) < BEST_FIRST.index(self.end[0]):
                self.end = (state, reason)
        return fresh


class Ledger:
    """The logs of all trials that have not ended.

    State for one trial::

        begin(trial)     -> it has a log, possibly from an earlier execution
        report(key, …)   -> its rows, and possibly its end, are on disk
        end(key, …)      -> the end of a trial that cannot report any more is on disk
        settle(key)      -> its end is recorded everywhere, and the log is deleted
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        logs = {key: _read(path) for key, path in files_by_key(folder, ".jsonl").items()}
        self.logs = {key: log for key, log in logs.items() if log is not None}
        self._waiting: dict[str, list[bytes]] = {}
        self.problems: set[str] = set()
        """Errors of writing; unwritten lines are buffered and written with the next ones."""

    def __getitem__(self, key: str) -> TrialLog:
        return self.logs[key]

    def begin(self, trial: Mapping[str, Any]) -> TrialLog:
        key = trial["key"]
        if key not in self.logs:
            entries = {name: trial[name] for name in (*IDENTITY, *CONFIGURATION)}
            self.logs[key] = _begun(entries)
            self._append(key, {"trial": entries})
        return self.logs[key]

    def report(
        self,
        trial: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        *,
        time_ms: int | None,
        seconds: float,
        end: tuple[TrialState, str] | None,
    ) -> list[dict[str, Any]]:
        key = trial["key"]
        log = self.logs[key]
        configuration = {name: trial[name] for name in CONFIGURATION}
        if configuration != log.configurations[-1]:
            self._take(key, {"changed": configuration})
        line = {"rows": list(rows), "time_ms": time_ms, "seconds": seconds, **({"end": end} if end else {})}
        return self._take(key, line)

    def end(self, key: str, state: TrialState, reason: str, seconds: float) -> None:
        self._take(key, {"seconds": seconds, "end": (state, reason)})

    def settle(self, key: str) -> None:
        """Delete the log of a recorded trial; its last rows stay in memory."""
        self._waiting.pop(key, None)
        with suppress(OSError):  # a remaining log is settled again by the next execution
            _path(self._folder, key).unlink()

    def flush(self) -> None:
        """Write the buffered lines; keep those that cannot be written."""
        for key, lines in list(self._waiting.items()):
            try:
                append_line(_path(self._folder, key), b"".join(lines))
            except OSError as error:
                self.problems.add(f"ledger: {error}")
            else:
                del self._waiting[key]

    def close(self) -> None:
        """Remove the folder if it is empty; its absence marks a completed search."""
        self.flush()
        with suppress(OSError):
            self._folder.rmdir()

    def _take(self, key: str, line: dict[str, Any]) -> list[dict[str, Any]]:
        self._append(key, line)
        return self.logs[key].take(line)

    def _append(self, key: str, line: dict[str, Any]) -> None:
        self._waiting.setdefault(key, []).append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self.flush()


def _read(path: Path) -> TrialLog | None:
    """Return the log in a file, which ends at its first incomplete line."""
    log: TrialLog | None = None
    try:
        content = path.read_bytes()
        whole = content.rpartition(b"\n")[0]
        if len(whole) + 1 < len(content):
            os.truncate(path, len(whole) + 1 if whole else 0)
    except OSError as error:
        raise StudyFolderError(
            f"a search is resumed from the reports of its trials and {path} cannot be used: {error.strerror or error}; "
            "change its permissions, or delete it to train that trial again."
        ) from error
    try:
        for text in whole.splitlines():
            line = json.loads(text)
            if log is not None:
                log.take(_checked(line))
            elif line["trial"]["key"] == path.stem:
                log = _begun(line["trial"])
    except (ValueError, LookupError, TypeError, RecursionError):
        pass  # a damaged disk; the lines before are valid
    return log


def _checked(line: Any) -> dict[str, Any]:
    if not isinstance(line, dict):
        raise TypeError(line)
    for row in line.get("rows", ()):
        if not isinstance(row[EPOCH], int) or not all(isinstance(value, int | float) for value in row.values()):
            raise TypeError(row)
    return line


def _begun(trial: dict[str, Any]) -> TrialLog:
    return TrialLog(trial, configurations=[{name: trial[name] for name in CONFIGURATION}])


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.jsonl"
