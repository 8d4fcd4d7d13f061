"""The content of an MLflow store, read from its tables with SQL instead of MLflow, including duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy

Point = tuple[str, str, int, int, float]
"""Key of the run, metric, step, time in milliseconds, value."""


@dataclass(slots=True)
class StoredRun:
    """One row of ``runs`` that is not deleted, with its tags and parent."""

    key: str
    status: str
    ended: bool
    parent: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def stored_runs(store: str, experiment: str) -> list[StoredRun]:
    """Return every run of an experiment, including duplicates."""
    runs: dict[str, StoredRun] = {}
    for run_id, status, ended in _rows(store, experiment, "runs", "status", "end_time"):
        runs[run_id] = StoredRun(key="", status=status, ended=ended is not None)
    for run_id, name, value in _rows(store, experiment, "params", "key", "value"):
        runs[run_id].params[name] = value
    for run_id, name, value in _rows(store, experiment, "tags", "key", "value"):
        runs[run_id].tags[name] = value
    for run in runs.values():
        run.key = run.tags.get("ladder.key", "")
    for run in runs.values():
        parent = run.tags.get("mlflow.parentRunId")
        run.parent = None if parent is None else runs[parent].key
    return list(runs.values())


def stored_points(store: str, experiment: str) -> list[Point]:
    """Return every row of ``metrics``, including duplicates."""
    keys = {
        run_id: value
        for run_id, name, value in _rows(store, experiment, "tags", "key", "value")
        if name == "ladder.key"
    }
    rows = _rows(store, experiment, "metrics", "key", "step", "timestamp", "value")
    return [(keys.get(run_id, ""), name, step, time_ms, value) for run_id, name, step, time_ms, value in rows]


def lost_and_doubled(expected: Mapping[tuple[str, str, int], float], found: Iterable[Point]) -> tuple[int, int]:
    """Return how many points (key, metric, step) -> value are missing or wrong, and how many rows are redundant."""
    rows: dict[tuple[str, str, int], list[float]] = {}
    for key, name, step, _, value in found:
        rows.setdefault((key, name, step), []).append(value)
    lost = sum(value not in rows.get(point, ()) for point, value in expected.items())
    return lost, sum(len(values) - (point in expected) for point, values in rows.items())


def _rows(store: str, experiment: str, table: str, *columns: str) -> list[tuple[Any, ...]]:
    engine = sqlalchemy.create_engine(store, poolclass=sqlalchemy.NullPool)
    names = ", ".join(f"t.{column}" for column in ("run_uuid", *columns))
    query = (
        f"SELECT {names} FROM {table} t JOIN runs r ON r.run_uuid = t.run_uuid"
        " JOIN experiments e ON e.experiment_id = r.experiment_id"
        " WHERE e.name = :experiment AND r.lifecycle_stage = 'active'"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(query), {"experiment": experiment})]
