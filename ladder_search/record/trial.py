"""The record of one ended trial, and the keys that name trials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PUBLISHED = "published"
"""Name of the trial that runs the paper's configuration."""
STOPPED = "stopped with the search"
"""Reason in the record of a trial that has not ended: a resume goes on with it."""
_KEY = re.compile(r"t(\d{4,})")

TrialState = Literal["COMPLETE", "PRUNED", "FAIL"]
"""COMPLETE: trained to its budget; PRUNED: stopped before it, by a rung, the failure rule or the search's end; FAIL:
diverged or crashed."""


def key_of(number: int) -> str:
    """Return the key of the trial with this number: ``t0007``, ``t12345``."""
    return f"t{number:04d}"


def number_of(key: str) -> int:
    """Return the number of the trial with this key; keys are sorted by it, as ``t10000`` comes after ``t9999``.

    Raises:
        ValueError: it is no key.
    """
    match = _KEY.fullmatch(key)
    if match is None or key_of(int(match[1])) != key:
        raise ValueError(f"a trial's key must be like t0007, got {key!r:.80}")
    return int(match[1])


def identity(settings: Mapping[str, Any]) -> str:
    """Return what two trials have in common only if they train the same configuration with the same seeds."""
    return json.dumps(settings, sort_keys=True)


def files_by_key(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files in ``folder`` that are named by a trial's key and ``suffix``, in the order of the numbers."""
    paths = {}
    for path in folder.glob(f"t*{suffix}"):
        with suppress(ValueError):
            paths[number_of(path.name.removesuffix(suffix))] = path
    return {key_of(number): paths[number] for number in sorted(paths)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One ended trial."""

    key: str
    """``t0007``: its name in Optuna (user attribute ``key``), Ray and MLflow."""
    number: int
    name: str
    """"published", "supervised baseline", or "" for a suggestion of the sampler."""
    state: TrialState
    reason: str
    """Why it ended, in a few words."""
    params: dict[str, Any]
    """What the sampler chose, flat: ``model/lambda_0`` -> 1000.0."""
    settings: dict[str, Any]
    """The whole trial, for ``TrialSpec.from_mapping``."""
    epochs: tuple[dict[str, Any], ...]
    """Metrics of every epoch (names of ``metrics``), oldest first."""
    validation_error: float | None
    """Error at the trial's last report, a fraction; None when it never reported a finite one."""
    seconds: float
    """Wall time from start to end."""
    checkpoint: str | None
    """Folder of its last checkpoint, relative to the study folder or absolute; None: there is none."""

    @property
    def is_reference(self) -> bool:
        """Whether the trial is a fixed configuration and not a suggestion."""
        return bool(self.name)

    @property
    def is_halted(self) -> bool:
        """Whether the trial has not ended: the search was interrupted, and a resume goes on with it."""
        return self.reason == STOPPED


def best_trials(records: list[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that ran to their budget, by validation error and then by number."""
    finished = [record for record in records if record.state == "COMPLETE" and record.validation_error is not None]
    return sorted(finished, key=lambda record: (record.validation_error, record.number))
