"""Results that commands send to the tracking store; failures print a note and never end the command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladder_search.console import Console
from ladder_search.provenance import as_tags
from ladder_search.tracking import MetricPoint, SpoolTracker, address

AGAIN = "the same command sends it again"
SPOOL = "spool"
"""Folder of the tracking events in a result's folder."""

Values = Mapping[str, Mapping[int, float | None]]
"""Metric -> step -> value; None values are skipped."""


def tracking_store(arguments: argparse.Namespace) -> str:
    """Return the store of a command: ``--tracking``, else MLflow's variable, else the root folder's."""
    if arguments.tracking:
        return address.normal_store(address.with_login(arguments.tracking))
    store = address.variable_store()
    if store:
        print(address.of_variable(store))
    return address.normal_store(store or address.default_store(arguments.root))


def open_store(arguments: argparse.Namespace) -> str:
    """Return the verified ``tracking_store``; print a note if another process has locked it. Raise ``TrackingError`` if
    the store cannot be used."""
    store = tracking_store(arguments)
    busy = address.check_or_wait(store)
    if busy is not None:  # results are sent at the end
        Console().say(f"note: {busy}")
    return store


def send_result(
    file: Path,
    *,
    command: str,
    kind: str,
    name: str,
    experiment: str,
    digest: str,
    settings: Mapping[str, Any],
    tags: Mapping[str, str],
    provenance: Mapping[str, Any],
    values: Values,
    store: str,
    console: Console,
) -> None:
    """Log a command's result as one run, with all files of its folder; repeated calls send only what is missing.

    ``file`` is the result, whose modification time is that of the metrics; ``digest`` identifies it within its kind.
    """
    key = f"{experiment}/{kind}/{digest[:16]}"
    tracker = SpoolTracker(file.parent / SPOOL, store, experiment)
    tags = {**as_tags(provenance), "kind": kind, "mlflow.source.name": f"ladder-search {command}", **tags}
    tracker.start_run(key, name=f"{kind} {name}", params=settings, tags=tags)
    tracker.log_metrics(key, metric_points(file, values))
    for path in sorted(path for path in file.parent.iterdir() if path.is_file()):
        tracker.log_artifact(key, path)
    tracker.end_run(key, "FINISHED")
    close(tracker, store, console)


def metric_points(file: Path, values: Values) -> list[MetricPoint]:
    time_ms = file.stat().st_mtime_ns // 10**6  # equal in every call, because the time is part of a point
    return [
        MetricPoint(name=name, value=float(value), step=step, time_ms=time_ms)
        for name, by_step in values.items()
        for step, value in by_step.items()
        if value is not None
    ]


def close(tracker: SpoolTracker, store: str, console: Console) -> bool:
    """Send remaining events, print a note about unsent ones, and return whether all were sent."""
    stored = tracker.close()
    for problem in tracker.problems():
        console.say(f"note: {problem}")
    if not stored:
        console.say(f"note: {address.redacted(store)} did not accept everything; {AGAIN}.")
    return stored
