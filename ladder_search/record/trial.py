"""The record of one ended trial, and the keys of trials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ladder_search.metrics import DRAW, DRAW_ERROR, EPOCH, Measure

PUBLISHED, PROPOSED = "published", "proposed"
"""Names of the trial with the study's own configuration: that of a paper, or that of a study file."""
OWN = (PUBLISHED, PROPOSED)
STOPPED = "stopped with the search"
"""Reason in the record of an unfinished trial, which a resume continues."""
_KEY = re.compile(r"t(\d{4,})")

TrialState = Literal["COMPLETE", "PRUNED", "FAIL"]
"""COMPLETE: trained to its budget; PRUNED: stopped by a rung, the failure rule or the search's end; FAIL: diverged or
crashed."""


def key_of(number: int) -> str:
    """Return the key of the trial with this number: ``t0007``, ``t12345``."""
    return f"t{number:04d}"


def number_of(key: str) -> int:
    """Return the number of the trial with this key, as ``t10000`` sorts before ``t9999``. Raises ``ValueError``."""
    match = _KEY.fullmatch(key)
    if match is None or key_of(int(match[1])) != key:
        raise ValueError(f"a trial's key must be like t0007, got {key!r:.80}")
    return int(match[1])


def identity(settings: Mapping[str, Any]) -> str:
    """Return a key that is equal for trials with the same configuration and seeds."""
    return json.dumps(settings, sort_keys=True)


def files_by_key(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files in ``folder`` named by a trial's key and ``suffix``, ordered by number."""
    paths = {}
    for path in folder.glob(f"t*{suffix}"):
        with suppress(ValueError):
            paths[number_of(path.name.removesuffix(suffix))] = path
    return {key_of(number): paths[number] for number in sorted(paths)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    key: str
    """``t0007``: name in Optuna (user attribute ``key``), Ray and MLflow."""
    number: int
    name: str
    """"published" or "proposed", "supervised baseline", or "" for a suggestion."""
    state: TrialState
    reason: str
    params: dict[str, Any]
    """Flat parameters from the sampler: ``model/lambda_0`` -> 1000.0."""
    settings: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    """Metrics of every epoch, oldest first; see ``metrics``."""
    validation_error: float | None
    """Error at the last report, a fraction; None if no report was finite."""
    seconds: float
    checkpoint: str | None
    """Folder of the last checkpoint, relative to the study folder or absolute; or None."""

    @property
    def draw_errors(self) -> dict[int, float]:
        """Draw -> value after a whole schedule, if label draws were trained in turn; otherwise empty."""
        ends = {row[DRAW]: row for row in self.epochs if row.get(DRAW) is not None}  # the last row of each draw
        epochs = self.settings.get("training", {}).get("epochs", 0)
        return {
            int(draw): row[DRAW_ERROR]
            for draw, row in ends.items()
            if row.get(DRAW_ERROR) is not None and row[EPOCH] == (draw + 1) * epochs
        }

    @property
    def begun_draws(self) -> int:
        """Number of label draws of which at least one epoch was trained in turn."""
        return 1 + max((int(row[DRAW]) for row in self.epochs if row.get(DRAW) is not None), default=0)

    @property
    def draws(self) -> int:
        """Number of label draws behind the value."""
        return max(1, len(self.draw_errors), int(self.settings.get("draws", 1)))

    @property
    def is_reference(self) -> bool:
        """Whether the trial is a fixed configuration and not a suggestion."""
        return bool(self.name)

    @property
    def is_halted(self) -> bool:
        """Whether the trial is unfinished because the search was interrupted."""
        return self.reason == STOPPED


def best_trials(records: list[TrialRecord], measure: Measure) -> list[TrialRecord]:
    """Return the COMPLETE trials, best first: those with more label draws before those with fewer, which were compared
    with them and not promoted, then by the validation value of ``measure``, then by number.

    References train all draws whatever their values; they are placed by value among the trials with the most draws.
    """
    finished = [(r, r.validation_error) for r in records if r.state == "COMPLETE" and r.validation_error is not None]
    most = max((record.draws for record, _ in finished if not record.is_reference), default=1)

    def place(entry: tuple[TrialRecord, float]) -> tuple[int, float, int]:
        record, value = entry
        return -(most if record.is_reference else record.draws), measure.loss(value), record.number

    return [record for record, _ in sorted(finished, key=place)]
