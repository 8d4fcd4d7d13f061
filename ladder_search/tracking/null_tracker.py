"""A tracker that records nothing, to measure the cost of tracking."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ladder_search.tracking.protocol import DatasetInput, MetricPoint, RunStatus


class NullTracker:
    def start_run(
        self,
        key: str,
        *,
        name: str,
        params: Mapping[str, str | float | int | bool],
        tags: Mapping[str, str],
        parent: str | None = None,
        dataset: DatasetInput | None = None,
    ) -> None:
        pass

    def log_metrics(self, key: str, points: Sequence[MetricPoint]) -> None:
        pass

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        pass

    def log_artifact(self, key: str, path: Path, folder: str = "") -> None:
        pass

    def end_run(self, key: str, status: RunStatus) -> None:
        pass

    def close_stale_runs(self, prefix: str, live: Collection[str]) -> None:
        pass

    def close(self, timeout_s: float = 60.0) -> bool:
        return True
