"""The spool folder: file names, locks, acknowledgement and status files.

::

    events.jsonl     one event per line, appended only (events.py, spool.py)
    artifacts/       files, copied at the time of the call
    ack.json         up to which byte everything is stored, except listed files, and the run id of each key
    writer.json      status of the background writer; details are in writer.log
    appender.lock    held by the search; writer.lock by the sender
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ladder_search.disk.files import write_atomically

MAX_LISTED = 20
LOCK_PATIENCE_S = 5.0
"""Seconds to wait for a lock whose holder may be ending."""


class SpoolFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = path / "events.jsonl"
        self.artifacts = path / "artifacts"
        self.ack = path / "ack.json"
        self.status = path / "writer.json"
        self.log = path / "writer.log"
        self.appender_lock = path / "appender.lock"
        self.writer_lock = path / "writer.lock"


@dataclass(slots=True)
class Attachment:
    """A file or a data set of a run that is not stored yet."""

    key: str
    file: str = ""
    """Relative to the spool folder."""
    folder: str = ""
    dataset: dict[str, Any] | None = None
    """Name, digest and rows of a data set; None for a file."""
    reason: str = ""
    """Why the last attempt failed; empty before the first one."""

    @property
    def target(self) -> str:
        """The run and the place in it where the attachment goes."""
        return f"{self._place} of {self.key}"

    @property
    def _place(self) -> str:
        return f"data set {self.dataset['name']}" if self.dataset else str(Path(self.folder, Path(self.file).name))

    def __str__(self) -> str:
        return f"{self._place} of {self.key.rpartition('/')[2]}"


@dataclass(slots=True)
class Ack:
    """What a store has of a spool. If it is lost, events are sent again, which is harmless."""

    spool: str
    """Id of the spool; acknowledgements of others are ignored."""
    store: str
    """Digest of store address and experiment; acknowledgements of others are ignored."""
    position: int = 0
    """Byte offset in ``events.jsonl`` up to which the store has everything."""
    last_event: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    ended: bool = False
    """Whether the last stored event closes the tracker."""
    rejected: int = 0
    unreadable: int = 0
    missing: int = 0
    """Events that a full disk lost, detected by gaps in the numbers."""
    waiting: dict[str, Attachment] = field(default_factory=dict)
    """Files and data sets up to ``position`` that are not stored, by their targets."""

    def refusals(self) -> list[str]:
        """Return one sentence per reason why attachments are not stored."""
        names: dict[str, list[str]] = {}
        for attachment in self.waiting.values():
            names.setdefault(attachment.reason or "not sent yet", []).append(str(attachment))
        return [f"{_listed(each)} not stored: {reason.rstrip('.')}" for reason, each in names.items()]

    def save(self, folder: SpoolFolder) -> None:
        write_atomically(folder.ack, json.dumps(asdict(self)).encode(), sync=False)


def load_ack(folder: SpoolFolder) -> Ack | None:
    """Return the acknowledgement; None if there is none or it is unreadable."""
    content = _load(folder.ack)
    try:
        waiting = {target: Attachment(**fields) for target, fields in content.pop("waiting", {}).items()}
        return Ack(**content, waiting=waiting) if content else None
    except (TypeError, AttributeError):  # written by another version
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterStatus:
    """Progress of sending, shown by the driver and ``ladder-search doctor``."""

    pid: int = 0
    state: str = "absent"
    """absent, starting, waiting (for the lock), idle, sending, retrying, done."""
    last_success: str | None = None
    """Time of the last stored batch, ISO 8601 in UTC."""
    last_error: str | None = None
    """None after a later attempt has succeeded."""
    backlog_bytes: int = 0
    rejected: int = 0
    last_rejection: str | None = None
    unreadable: int = 0
    missing: int = 0
    waiting: int = 0
    """Files and data sets that are not stored; ``ack.json`` lists the reasons."""

    def save(self, folder: SpoolFolder) -> None:
        write_atomically(folder.status, json.dumps(asdict(self)).encode(), sync=False)


def load_status(folder: SpoolFolder) -> WriterStatus:
    """Return the last status of the sender; state ``absent`` if there is none."""
    names = {f.name for f in fields(WriterStatus)}
    try:
        return WriterStatus(**{name: value for name, value in _load(folder.status).items() if name in names})
    except TypeError:
        return WriterStatus()


def _listed(names: list[str]) -> str:
    listed = ", ".join(names[:MAX_LISTED])
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)} file(s) ({listed}{more})"


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
