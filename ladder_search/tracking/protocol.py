"""Interfaces of tracking.

``Tracker`` is called by the driver and Ray's callback; it never raises or blocks. ``RunStore`` is called only by the
background writer and ``sync``; it may be slow and may raise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ladder_search.errors import TrackingError

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]
"""FINISHED: trained to its budget; KILLED: stopped by the scheduler; FAILED: diverged or crashed."""


class RejectedError(TrackingError):
    """The store works but refuses this item; an immediate retry is pointless."""


class UnavailableError(TrackingError):
    """The database of the store is full, locked or unreachable, which no item causes."""


class EmptiedError(TrackingError):
    """The store has lost runs; everything is to be sent again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricPoint:
    """One value of one metric at one step; the time is part of its identity, so a replay adds no duplicate."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInput:
    """The training data of a run: name, sha256 of its content, and numbers of examples by kind."""

    name: str
    digest: str
    rows: Mapping[str, int]


class Tracker(Protocol):
    """Records runs by keys (``digits-100/ab12cd/t0007``), not by the store's run ids.

    State after each call, for one key::

        start_run(key)      -> the run exists once and is RUNNING, also if it is called again after a crash
        log_metrics(key, …) -> each point is stored once, also after a replay; for non-finite values,
                               the tag ``non_finite.<metric>`` holds the first step
        set_tags(key, …)    -> last value wins
        log_artifact(key,…) -> the file (copied at the time of the call) is in the run's artifacts
        end_run(key, …)     -> the run has that status and an end time
        close_stale_runs(…) -> of earlier executions, only the live runs are RUNNING
        close()             -> everything so far is stored, or is on disk for ``ladder-search sync``
    """

    def start_run(
        self,
        key: str,
        *,
        name: str,
        params: Mapping[str, str | float | int | bool],
        tags: Mapping[str, str],
        parent: str | None = None,
        dataset: DatasetInput | None = None,
    ) -> None: ...

    def log_metrics(self, key: str, points: Sequence[MetricPoint]) -> None: ...

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None: ...

    def log_artifact(self, key: str, path: Path, folder: str = "") -> None: ...

    def end_run(self, key: str, status: RunStatus) -> None: ...

    def close_stale_runs(self, prefix: str, live: Collection[str]) -> None:
        """End as FAILED every RUNNING run whose key starts with ``prefix`` and is not in ``live``."""
        ...

    def close(self, timeout_s: float = 60.0) -> bool:
        """Wait at most ``timeout_s`` seconds until everything is stored; return whether it is."""
        ...


class NullTracker(Tracker):
    """A tracker that records nothing, to measure the cost of tracking."""

    def close(self, timeout_s: float = 60.0) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Batch:
    """Metrics, parameters and tags of one run for one call; names and values fit MLflow's limits."""

    points: tuple[MetricPoint, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.points) + len(self.params) + len(self.tags)

    def halves(self) -> tuple[Batch, Batch]:
        """Split all kinds in two, so that a rejected item can be found by bisection; single items one by one."""
        if len(self) == 1:
            return self, Batch()
        if sum(map(bool, (self.points, self.params, self.tags))) > 1:
            return Batch(points=self.points), Batch(params=self.params, tags=self.tags)
        p, q, r = len(self.points) // 2, len(self.params) // 2, len(self.tags) // 2
        return (
            Batch(self.points[:p], self.params[:q], self.tags[:r]),
            Batch(self.points[p:], self.params[q:], self.tags[r:]),
        )


class RunStore(Protocol):
    """The store of the runs of one spool. All calls are idempotent.

    They raise ``RejectedError`` if the store refuses the item, ``TrackingError`` if a retry may help.
    """

    def create_run_once(self, key: str, *, name: str, parent_id: str | None, time_ms: int) -> str: ...

    def find_run(self, key: str) -> str | None: ...

    def still_has(self, run_id: str) -> bool:
        """Return whether the run exists; restore its experiment first if it was deleted."""
        ...

    def log_batch(self, run_id: str, batch: Batch) -> None: ...

    def log_dataset(self, run_id: str, dataset: DatasetInput) -> None: ...

    def log_artifact(self, run_id: str, path: Path, folder: str) -> None: ...

    def set_terminated(self, run_id: str, status: RunStatus, time_ms: int) -> None: ...

    def close_stale_runs(self, prefix: str, live: Collection[str], time_ms: int) -> int:
        """Apply ``Tracker.close_stale_runs``; return the number of runs."""
        ...

    def drop_twins(self, runs: Mapping[str, str]) -> None:
        """Delete RUNNING runs that have a key of ``runs`` but another id.

        A slow server may create a run long after the client has given up and repeated the call.
        """
        ...
