"""Restore the state of each trial of a resumed search: ended, or unfinished with its last checkpoint.

``outcomes`` decides between the ledger, the records and Optuna's journal; entries that one of them lacks are added. A
COMPLETE trial without its last checkpoint continues from the one before to get its weights.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from pyarrow.fs import FileSelector, FileType
from ray import tune

from ladder_search.config import as_mapping, build, flat
from ladder_search.driver.journal import Journal
from ladder_search.driver.ledger import CONFIGURATION, IDENTITY, Ledger, TrialLog
from ladder_search.driver.outcomes import REASONS, InJournal, InLedger, InRecord, outcome_of
from ladder_search.driver.searcher import Unfinished
from ladder_search.errors import CheckpointError, LadderSearchError, SettingError
from ladder_search.metrics import EPOCH, VALIDATION_ERROR
from ladder_search.record.checkpoint import ForeignCheckpointError, check_checkpoint, read_draws
from ladder_search.record.folder import StudyFolder, latest
from ladder_search.record.trial import TrialRecord, TrialState, number_of
from ladder_search.studies import Study
from ladder_search.tracking.address import redacted
from ladder_search.tracking.clock import steady_time
from ladder_search.training.checkpoint import read_member
from ladder_search.trial import TrialSpec

SHOWN = 8
"""Maximum number of unfinished trials that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial that ended before the search was killed; its record or run may be missing."""

    key: str
    checkpoint: str | None


@dataclass(slots=True, kw_only=True)
class Past:
    """Results of the earlier executions of a search; empty for a new one."""

    records: list[TrialRecord] = field(default_factory=list)
    """Trials that have ended and are recorded everywhere."""
    ended: list[Ended] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    halted: list[TrialRecord] = field(default_factory=list)
    """Records of unfinished trials that a halt stopped."""
    suggested: int = 0
    """Number of trials suggested so far, which is the number of the next trial."""
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """Metrics of every epoch of each trial, by key."""

    def outlook(self, trials: int) -> str:
        """Return for example "3 of 24 trials have ended; going on with t0003 from epoch 40, t0004 from its start"."""
        going = [f"{t.trial['key']} from {f'epoch {t.epoch}' if t.epoch else 'its start'}" for t in self.unfinished]
        if len(going) > SHOWN:
            going[SHOWN:] = [f"{len(going) - SHOWN} more"]
        text = f"{len(self.records) + len(self.ended)} of {trials} trials have ended"
        return f"{text}; going on with {', '.join(going)}" if going else text


def check_unchanged(
    description: Mapping[str, Any], study: Study, space: Mapping[str, Any], provenance: Mapping[str, Any], folder: Path
) -> list[str]:
    """Return a line about changed code; raise ``SettingError`` if settings, space or data have changed."""
    original = description.get("provenance", {})
    if original.get("data_digest") != provenance["data_digest"]:
        raise SettingError(
            f"a resumed search keeps its data, and the data of {folder} has the digest {original.get('data_digest')}, "
            f"{provenance['data_name']} here has {provenance['data_digest']}; restore the data or start a new search."
        )
    study_then = _as_known_now(description.get("study", {}), study)
    _same("setting", _settings(study_then), _settings(as_mapping(study)), folder)
    _same("parameter", description.get("space", {}), space, folder)
    before, now = _code(latest(description)["provenance"]), _code(provenance)
    return [f"The code was {before} and is now {now}; space and settings are the same."] if before != now else []


def _as_known_now(begun: Mapping[str, Any], study: Study) -> dict[str, Any]:
    settings = dict(begun)
    for section in ("data", "model", "training", "space", "stop"):
        with suppress(LadderSearchError):  # a setting that no longer exists is reported as a change
            settings[section] = as_mapping(build(type(getattr(study, section)), begun.get(section, {}), where=section))
    return settings


def _settings(study: Mapping[str, Any]) -> dict[str, Any]:
    groups = ("data", "model", "training", "teacher", "space", "stop", "sources")
    sections = ("family", *groups, "baseline", "report_every")
    return {
        path.replace("/", "."): value for path, value in flat({name: study.get(name, {}) for name in sections}).items()
    }


def _same(kind: str, before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for name in (*before, *now):
        was, is_ = before.get(name, "absent"), now.get(name, "absent")
        if was != is_:
            raise SettingError(
                f"a resumed search keeps its settings and its space, and the {kind} {name} of "
                f"{folder} was {was} and is now {is_}; leave the option out, go back to the code of then, or start a "
                "new search."
            )


def _code(facts: Mapping[str, Any]) -> str:
    changes = facts.get("git_diff_sha256") if facts.get("git_dirty") else None
    return f"{facts.get('git_sha') or 'unknown'}{f' with changes {changes[:7]}' if changes else ''}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    place: str
    epoch: int
    settings: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of a search's trials; each execution has its own folders: ``t0007/…``, then ``t0007.2/…``."""

    def __init__(self, place: str, steps_per_epoch: Callable[[TrialSpec], int], search: str | None = None) -> None:
        self._place, self._steps_per_epoch, self._search = place, steps_per_epoch, search

    def latest(self, log: TrialLog) -> Checkpoint | None:
        """Return a trial's last readable checkpoint; raise ``ForeignCheckpointError`` if another search has written
        there."""
        spec = TrialSpec.from_mapping(log.trial["settings"])
        places = [
            (int(life or 1), int(index), f"{self._place}/{folder}/{name}")
            for folder, life in self._named(self._place, rf"{log.trial['key']}(?:\.(\d+))?")
            for name, index in self._named(f"{self._place}/{folder}", r"checkpoint_(\d+)")
        ]
        for _, _, place in sorted(places, reverse=True):
            try:
                with tune.Checkpoint(place).as_directory() as folder:
                    check_checkpoint(Path(folder), self._search, redacted(place))
                    members = [read_member(Path(folder) / f"member-{draw}") for draw in range(spec.draws)]
                    complete = read_draws(Path(folder))[0] * spec.training.epochs
            except ForeignCheckpointError:
                raise
            except (CheckpointError, OSError):
                continue
            epoch = complete + members[0][0].step // self._steps_per_epoch(spec)
            # A report is written before its checkpoint, but a power failure may lose it.
            if epoch <= log.last_epoch and all(state.step == members[0][0].step for state, _ in members):
                return Checkpoint(place, epoch, members[0][1])
        return None

    @staticmethod
    def _named(place: str, pattern: str) -> list[tuple[str, str]]:
        """Return the names of the folders in ``place`` that match ``pattern``, each with the text of its first
        group."""
        base = tune.Checkpoint(place)
        assert base.filesystem is not None  # it is derived from the place
        entries = base.filesystem.get_file_info(FileSelector(base.path, allow_not_found=True))
        matches = [re.fullmatch(pattern, info.base_name) for info in entries if info.type == FileType.Directory]
        return [(match.group(0), match.group(1) or "") for match in matches if match]


def reconcile(
    folder: StudyFolder,
    journal: Journal,
    ledger: Ledger,
    checkpoints: Checkpoints,
    distributions: Mapping[str, BaseDistribution],
    epochs: int,
) -> Past:
    """Determine the state of each trial of ``epochs`` epochs and add missing results to Optuna's journal; raise
    ``StudyFolderError`` if a record is damaged."""
    past = Past()
    records, trials = {record.key: record for record in folder.read_trials()}, journal.trials()
    for key in sorted({*records, *ledger.logs, *trials}, key=number_of):
        past.suggested = max(past.suggested, number_of(key) + 1)
        record, trial = records.get(key), trials.get(key)
        match outcome := outcome_of(_in_ledger(ledger.logs.get(key)), _in_record(record), _in_journal(trial)):
            case "starts":
                assert trial is not None, "the journal alone has it"
                past.unfinished.append(Unfinished(trial=_suggested(key, trial), checkpoint=None, epoch=0))
            case "recorded":
                assert record is not None, "it says how the trial has ended"
                past.rows[key] = list(record.epochs)
                _bring_up_to_date(journal, record, distributions)
                past.records.append(record)
            case "goes-on" | "COMPLETE" | "PRUNED" | "FAIL":
                log = ledger.logs.get(key) or ledger.begin(_configuration(record))
                _fill(ledger, log, record, trial, None if outcome == "goes-on" else outcome, epochs)
                past.rows[key] = list(log.rows.values())
                if trial is None:
                    journal.restore(log.trial, distributions)
                for epoch in log.reports:
                    journal.report(key, log.rows[epoch][VALIDATION_ERROR], epoch)
                _sort(past, log, checkpoints.latest(log), journal, epochs)
                if record is not None and past.unfinished and past.unfinished[-1].trial["key"] == key:
                    past.halted.append(record)
    return past


def _in_ledger(log: TrialLog | None) -> InLedger:
    return "absent" if log is None else "open" if log.end is None else log.end[0]


def _in_record(record: TrialRecord | None) -> InRecord:
    return "absent" if record is None else "halted" if record.is_halted else record.state


def _in_journal(trial: FrozenTrial | None) -> InJournal:
    if trial is None:
        return "absent"
    return cast(InJournal, trial.state.name) if trial.state.is_finished() else "open"


def _configuration(record: TrialRecord | None) -> dict[str, Any]:
    assert record is not None, "a trial that goes on or has ended is in the ledger or has a record"
    return {name: getattr(record, name) for name in (*IDENTITY, *CONFIGURATION)}


def _bring_up_to_date(journal: Journal, record: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> None:
    """Add the results of a record to a journal that has lost lines."""
    if record.key not in journal.trials():
        journal.restore(_configuration(record), distributions)
    if record.validation_error is not None:
        journal.report(record.key, record.validation_error, record.epochs[-1][EPOCH])
    journal.end(record.key, record.state, record.validation_error)


def _fill(
    ledger: Ledger,
    log: TrialLog,
    record: TrialRecord | None,
    trial: FrozenTrial | None,
    state: TrialState | None,
    epochs: int,
) -> None:
    """Add missing epochs, from the record or the journal, and the end of the trial to the ledger."""
    key, seconds = log.trial["key"], max(log.seconds, record.seconds if record is not None else 0.0)
    config = {**log.trial, **log.configurations[-1]}
    recorded = [_numbers(row) for row in record.epochs if row[EPOCH] not in log.rows] if record is not None else []
    if recorded:
        ledger.report(config, recorded, time_ms=None, seconds=seconds, end=None)
    if state is None:
        return  # epochs in the journal only are trained and reported again, with all their metrics
    errors = dict(trial.intermediate_values) if trial is not None else {}
    if trial is not None and trial.value is not None and state == "COMPLETE":
        errors.setdefault(epochs, trial.value)
    time_ms = int(steady_time() * 1000)
    for epoch in sorted(errors.keys() - log.rows.keys()):
        row = {EPOCH: epoch, VALIDATION_ERROR: errors[epoch]}
        ledger.report(config, [row], time_ms=time_ms, seconds=seconds, end=None)
    if log.end is None or log.end[0] != state:
        same_end = record is not None and record.state == state and not record.is_halted
        ledger.end(key, state, record.reason if record is not None and same_end else REASONS[state], seconds)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in row.items()}


def _sort(past: Past, log: TrialLog, found: Checkpoint | None, journal: Journal, epochs: int) -> None:
    key, last = log.trial["key"], log.last_epoch
    if log.end is not None and (log.end[0] != "COMPLETE" or (found is not None and found.epoch == last)):
        journal.end(key, log.end[0], log.rows[last][VALIDATION_ERROR] if log.rows else None)
        past.ended.append(Ended(key=key, checkpoint=found.place if found else None))
        return
    if found is None or found.epoch >= epochs:
        past.unfinished.append(Unfinished(trial=log.trial, checkpoint=None, epoch=0))
        return
    # Population based training may have changed the parameters since; use those that the weights were trained with.
    fitting = (entry for entry in reversed(log.configurations) if entry["settings"] == found.settings)
    trial = {**log.trial, **next(fitting, log.configurations[-1])}
    past.unfinished.append(Unfinished(trial=trial, checkpoint=found.place, epoch=found.epoch))


def _suggested(key: str, trial: FrozenTrial) -> dict[str, Any]:
    name, settings = trial.user_attrs["name"], json.loads(trial.user_attrs["settings"])
    return {
        **dict(zip(IDENTITY, (key, number_of(key), name), strict=True)),
        "params": trial.params,
        "settings": settings,
    }
