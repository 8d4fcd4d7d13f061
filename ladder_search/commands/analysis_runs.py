"""An analysis in MLflow: one run with its numbers by layer, its settings, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ladder_search.analysis.result import ANALYSIS, SPOOL, Analysis
from ladder_search.commands.sending import close, send_files
from ladder_search.config import as_mapping, flat
from ladder_search.console import Console
from ladder_search.provenance import as_tags
from ladder_search.tracking import MetricPoint, SpoolTracker


def record(
    analysis: Analysis,
    folder: Path,
    *,
    values: Mapping[str, Mapping[int, float]],
    name: str,
    store: str,
    console: Console,
) -> None:
    """Log the analysis in ``folder``; what the store does not take is said, and costs nothing.

    Called again, it stores nothing twice and sends what was not sent.

    Args:
        values: metric -> layer -> value.
    """
    experiment = analysis.study or name
    key = f"{experiment}/analysis/{analysis.asked[:16]}"
    tracker = SpoolTracker(folder / SPOOL, store, experiment)
    time_ms = (folder / ANALYSIS).stat().st_mtime_ns // 10**6  # the same in every call: the time is part of a point
    tags = {
        "study": analysis.study,
        "family": analysis.family,
        "kind": "analysis",
        "mlflow.source.name": "ladder-search analyse",
        "bundle": analysis.bundle,
        "part": analysis.part,
        "data.sha256": analysis.data_digest,
    }
    settings = flat(as_mapping(analysis.settings))
    tracker.start_run(key, name=f"analysis {name}", params=settings, tags={**as_tags(analysis.provenance), **tags})
    points = [
        MetricPoint(name=what, value=float(number), step=layer, time_ms=time_ms)
        for what, by_layer in {**values, "seconds": {0: analysis.seconds}}.items()
        for layer, number in by_layer.items()
    ]
    tracker.log_metrics(key, points)
    send_files(tracker, key, folder)
    tracker.end_run(key, "FINISHED")
    close(tracker, store, console)
