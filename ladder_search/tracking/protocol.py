"""What a search tells its tracker. The driver and Ray's callback call it; it never raises into them, never blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]
"""End of a run: FINISHED = trained to its budget, KILLED = stopped by the scheduler, FAILED = diverged or crashed."""


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
        log_metrics(key, …) -> each point is stored once, whatever is replayed
        set_tags(key, …)    -> last value wins
        log_artifact(key,…) -> the file (copied at the time of the call) is in the run's artifacts
        end_run(key, …)     -> the run has that status and an end time
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

    def close(self, timeout_s: float = 60.0) -> bool:
        """Wait until the store has everything, at most ``timeout_s`` seconds; return whether it has."""
        ...
