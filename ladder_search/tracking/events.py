"""The lines of a spool: one event per line, as JSON, in the order of the tracker's calls.

``{"n": 7, "e": "metrics", "key": "digits-100/ab/t0001", "points": [["valid_error", 0.25, 40, 1700000000000]]}``

``n`` counts from 1; a gap marks a lost event. Line 0 is the header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ladder_search.errors import TrackingError
from ladder_search.tracking.protocol import DatasetInput, MetricPoint, RunStatus

FORMAT = 1
STATUSES = ("FINISHED", "KILLED", "FAILED")


@dataclass(frozen=True, slots=True)
class Header:
    spool: str
    experiment: str


@dataclass(frozen=True, slots=True)
class Start:
    key: str
    name: str
    time_ms: int
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    dataset: DatasetInput | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    key: str
    points: tuple[MetricPoint, ...]


@dataclass(frozen=True, slots=True)
class Tags:
    key: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Artifact:
    """``file`` is relative to the spool folder."""

    key: str
    file: str
    folder: str


@dataclass(frozen=True, slots=True)
class End:
    key: str
    status: RunStatus
    time_ms: int


@dataclass(frozen=True, slots=True)
class CloseStale:
    prefix: str
    live: tuple[str, ...]
    time_ms: int


@dataclass(frozen=True, slots=True)
class Close:
    """The search closed its tracker; after a crash, this event is missing."""

    time_ms: int


RunEvent = Start | Metrics | Tags | Artifact | End
Event = RunEvent | CloseStale | Close


def header_line(header: Header) -> bytes:
    return _line({"ladder_spool": FORMAT, "spool": header.spool, "experiment": header.experiment})


def parse_header(line: bytes) -> Header:
    """Parse the first line; raise ``TrackingError`` unless it is of a spool in a known version."""
    try:
        fields = json.loads(line)
        version, header = fields["ladder_spool"], Header(str(fields["spool"]), str(fields["experiment"]))
    except (ValueError, KeyError, TypeError):
        raise TrackingError(
            f"a spool starts with a header line, this file starts with {line[:60]!r}: move the file away or restore it."
        ) from None
    if version != FORMAT:
        raise TrackingError(
            f"this program reads spools of version {FORMAT}, this one is {version!r}: use the program that wrote it."
        )
    return header


def event_line(n: int, event: Event) -> bytes:
    fields: dict[str, Any] = {"n": n}
    match event:
        case Start():
            fields |= {"e": "start", "key": event.key, "name": event.name, "time": event.time_ms}
            fields |= {"params": dict(event.params), "tags": dict(event.tags), "parent": event.parent}
            if event.dataset is not None:
                data = event.dataset
                fields["dataset"] = {"name": data.name, "digest": data.digest, "rows": dict(data.rows)}
        case Metrics():
            points = [[p.name, p.value, p.step, p.time_ms] for p in event.points]
            fields |= {"e": "metrics", "key": event.key, "points": points}
        case Tags():
            fields |= {"e": "tags", "key": event.key, "tags": dict(event.tags)}
        case Artifact():
            fields |= {"e": "artifact", "key": event.key, "file": event.file, "folder": event.folder}
        case End():
            fields |= {"e": "end", "key": event.key, "status": event.status, "time": event.time_ms}
        case CloseStale():
            fields |= {"e": "close_stale", "prefix": event.prefix, "live": list(event.live), "time": event.time_ms}
        case Close():
            fields |= {"e": "close", "time": event.time_ms}
    return _line(fields)


def parse_event(line: bytes) -> tuple[int, Event]:
    """Decode one complete line into number and event; raise ``ValueError`` if it is invalid."""
    try:
        fields = json.loads(line)
        return int(fields["n"]), _event(fields)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no spool event: {line[:60]!r}") from error


def _event(f: dict[str, Any]) -> Event:
    match f["e"]:
        case "start":
            data = f.get("dataset")
            dataset = None
            if data is not None:
                rows = {str(k): int(v) for k, v in data["rows"].items()}
                dataset = DatasetInput(name=str(data["name"]), digest=str(data["digest"]), rows=rows)
            parent = None if f["parent"] is None else str(f["parent"])
            return Start(
                str(f["key"]), str(f["name"]), int(f["time"]), _texts(f["params"]), _texts(f["tags"]), parent, dataset
            )
        case "metrics":
            points = (
                MetricPoint(name=str(m), value=float(v), step=int(s), time_ms=int(t)) for m, v, s, t in f["points"]
            )
            return Metrics(str(f["key"]), tuple(points))
        case "tags":
            return Tags(str(f["key"]), _texts(f["tags"]))
        case "artifact":
            return Artifact(str(f["key"]), str(f["file"]), str(f["folder"]))
        case "end":
            if f["status"] not in STATUSES:
                raise ValueError(f"unknown status {f['status']!r}")
            return End(str(f["key"]), cast(RunStatus, f["status"]), int(f["time"]))
        case "close_stale":
            return CloseStale(str(f["prefix"]), tuple(map(str, f["live"])), int(f["time"]))
        case "close":
            return Close(int(f["time"]))
        case other:
            raise ValueError(f"unknown event {other!r}")


def _texts(mapping: Mapping[str, Any]) -> dict[str, str]:
    return {str(k): str(v) for k, v in mapping.items()}


def _line(fields: dict[str, Any]) -> bytes:
    # ASCII escapes avoid newlines and lone surrogates in a line; NaN is filtered before and refused here.
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
