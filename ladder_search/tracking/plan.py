"""Merges the events of a stretch of a spool by run, so that few calls store them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from ladder_search.tracking.events import Artifact, Close, CloseStale, End, Event, Metrics, Start, Tags
from ladder_search.tracking.protocol import Batch, MetricPoint
from ladder_search.tracking.spool import Record

MAX_ENTITIES = 1000
"""Maximum number of items per call to MLflow, including at most ``MAX_NAMED`` parameters and ``MAX_NAMED`` tags."""
MAX_NAMED = 100


@dataclass(slots=True)
class RunWork:
    """Merged events of one run; stored parts are removed."""

    key: str
    run_id: str | None = None
    start: Start | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[MetricPoint] = field(default_factory=list)
    artifacts: deque[Artifact] = field(default_factory=deque)
    end: End | None = None

    def add(self, event: Event) -> bool:
        """Merge one event; return False if it must wait for the rest (a restart after an end)."""
        match event:
            case Start():
                if self.end is not None or self.start is not None:
                    return False
                self.start = event
                self.params |= event.params
                self.tags |= event.tags
            case Metrics():
                self.points.extend(event.points)
            case Tags():
                self.tags |= event.tags
            case Artifact():
                self.artifacts.append(event)
            case End():
                self.end = event
        return True

    def next_batch(self) -> Batch:
        params = tuple(islice(self.params.items(), MAX_NAMED))
        tags = tuple(islice(self.tags.items(), MAX_NAMED))
        return Batch(tuple(self.points[: MAX_ENTITIES - len(params) - len(tags)]), params, tags)

    def drop(self, batch: Batch) -> None:
        del self.points[: len(batch.points)]
        for name, _ in batch.params:
            del self.params[name]
        for name, _ in batch.tags:
            del self.tags[name]


@dataclass(slots=True)
class Plan:
    works: dict[str, RunWork] = field(default_factory=dict)
    stale: CloseStale | None = None
    closed: bool = False
    position: int = 0
    last_event: int = 0
    missing: int = 0


def take_plan(records: deque[Record], last_event: int) -> Plan:
    """Take the events from the front of ``records`` that can be merged without changing their meaning."""
    plan = Plan(last_event=last_event)
    while records:
        event = records[0].event
        if isinstance(event, CloseStale):  # affects several runs: alone
            if plan.works or plan.stale is not None:
                break
            plan.stale, plan.closed = event, False
        elif isinstance(event, Close):
            plan.closed = True
        else:
            if plan.stale is not None or not plan.works.setdefault(event.key, RunWork(event.key)).add(event):
                break
            plan.closed = False
        record = records.popleft()
        plan.missing += max(0, record.n - plan.last_event - 1)
        plan.position, plan.last_event = record.end, max(plan.last_event, record.n)
    return plan
