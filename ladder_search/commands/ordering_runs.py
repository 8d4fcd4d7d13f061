"""A tested ordering in MLflow: one run with its means, its differences and its verdict, and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ladder_search.commands.sending import close, send_files
from ladder_search.console import Console
from ladder_search.final.results import SPOOL
from ladder_search.ordering.judging import FILE, JudgedOrdering
from ladder_search.provenance import as_tags, collect
from ladder_search.report.orderings import verdict
from ladder_search.tracking import MetricPoint, SpoolTracker


def record(found: JudgedOrdering, folder: Path, *, digests: Mapping[str, str], store: str, console: Console) -> None:
    """Log the ordering in ``folder``; what the store does not take is said, and costs nothing.

    Called again on the same results, it stores nothing twice and sends what was not sent.

    Args:
        digests: data set -> its digest.
    """
    ordering = found.ordering
    key = f"{ordering.name}/ordering/{_digest(found)[:16]}"
    tracker = SpoolTracker(folder / SPOOL, store, ordering.name)
    data_name, data_digest = next(iter(sorted(digests.items())))
    tags = {
        "kind": "ordering",
        "ordering": ordering.name,
        "source": ordering.source,
        "measure": ordering.measure,
        "mlflow.source.name": "ladder-search ordering",
        "verdict": found.verdict,
        "summary": verdict(found),
        **{f"data.sha256.{name}": digest for name, digest in digests.items()},
    }
    settings = {"seeds": len(found.seeds), "epochs": "the studies' own" if found.epochs is None else found.epochs}
    provenance = as_tags(collect(data_name=data_name, data_digest=data_digest))
    tracker.start_run(key, name=f"ordering {ordering.name}", params=settings, tags={**provenance, **tags})
    values = {f"mean/{one.study}": one.summary.mean if one.summary else None for one in found.reached}
    for claim in found.claims:
        pair = f"{claim.first}/{claim.second}"
        values |= {f"difference/{pair}": claim.difference, f"p_holm/{pair}": claim.p_holm}
    values["claims_held"] = sum(claim.verdict == "held" for claim in found.claims)
    time_ms = (folder / FILE).stat().st_mtime_ns // 10**6  # the same in every call: the time is part of a point
    points = [
        MetricPoint(name=name, value=float(value), step=0, time_ms=time_ms)
        for name, value in values.items()
        if value is not None
    ]
    tracker.log_metrics(key, points)
    send_files(tracker, key, folder)
    tracker.end_run(key, "FINISHED")
    close(tracker, store, console)


def _digest(found: JudgedOrdering) -> str:
    """Names what was tested: claims, seeds and what was reached on them."""
    return hashlib.sha256(json.dumps(found.as_json(), sort_keys=True).encode()).hexdigest()
