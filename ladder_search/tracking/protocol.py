"""What a search reports to its tracker, and what the background writer needs of a store.

``Tracker`` is called by the driver and by Ray's callback; it never raises into them and never blocks them.
``RunStore`` is called by the background writer and by ``sync`` alone; it may be slow, and it may raise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ladder_search.errors import TrackingError

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]
"""End of a run: FINISHED = trained to its budget, KILLED = stopped by the scheduler, FAILED = diverged or crashed."""


class RejectedError(TrackingError):
    """The store works but does not accept this item; an immediate second attempt is pointless."""


class UnavailableError(TrackingError):
    """The database of the store is full, locked or away: no item is at fault, however often the call fails."""


class EmptiedError(TrackingError):
    """The store lost runs that it had: everything is to be sent again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricPoint:
    """One value of one metric at one step; the time is part of its identity, so a replay writes nothing twice."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInput:
    """The data a run was trained on: its name, the sha256 of its content, and how many examples of which kind."""

    name: str
    digest: str
    rows: Mapping[str, int]


class Tracker(Protocol):
    """Records runs by our own keys (``digits-100/ab12cd/t0007``); the store's run ids stay behind this interface.

    State after each call, for one key::

        start_run(key)      -> the run exists once and is RUNNING, also if it is called again after a crash
        log_metrics(key, …) -> each point is stored once, whatever is replayed; a non-finite value is not stored,
                               the tag ``non_finite.<metric>`` holds the first step at which it was seen
        set_tags(key, …)    -> last value wins
        log_artifact(key,…) -> the file (copied at the time of the call) is in the run's artifacts
        end_run(key, …)     -> the run has that status and an end time
        close_stale_runs(…) -> no run of an earlier life of this search is RUNNING, except the live ones
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
        """Wait until the store has everything, at most ``timeout_s`` seconds; return whether it has."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Metrics, parameters and tags of one run that travel in one call; names and values already fit MLflow's limits."""

    points: tuple[MetricPoint, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.points) + len(self.params) + len(self.tags)

    def halves(self) -> tuple[Batch, Batch]:
        """Cut every kind in two, so that a rejected item can be found by bisection; single items go one by one."""
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
    """Where the runs of one spool end up. Every call may be repeated; the second time changes nothing.

    Each raises ``RejectedError`` when the store does not accept the item, ``TrackingError`` when another try may help.
    """

    def create_run_once(self, key: str, *, name: str, parent_id: str | None, time_ms: int) -> str:
        """Return the id of the RUNNING run of ``key``, found by its tags or created."""
        ...

    def find_run(self, key: str) -> str | None: ...

    def still_has(self, run_id: str) -> bool:
        """Return whether the run is there; its experiment is brought back first if someone deleted it."""
        ...

    def log_batch(self, run_id: str, batch: Batch) -> None: ...

    def log_dataset(self, run_id: str, dataset: DatasetInput) -> None: ...

    def log_artifact(self, run_id: str, path: Path, folder: str) -> None: ...

    def set_terminated(self, run_id: str, status: RunStatus, time_ms: int) -> None: ...

    def close_stale_runs(self, prefix: str, live: Collection[str], time_ms: int) -> int:
        """Close what ``Tracker.close_stale_runs`` says; return how many runs that were."""
        ...

    def drop_twins(self, runs: Mapping[str, str]) -> None:
        """Delete RUNNING runs that have a key of ``runs`` and not its id.

        A server that is too slow may create a run long after the client gave up and had it created again.
        """
        ...
