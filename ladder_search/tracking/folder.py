"""The spool folder: its file names, its two locks, its acknowledgement and status files.

::

    events.jsonl     one event per line, appended only (events.py, spool.py)
    artifacts/       files, copied at the time of the call
    ack.json         up to which byte everything is stored, except the files listed there, and the run id of each key
    writer.json      how the background writer is doing; writer.log has its details
    appender.lock    held by the search; writer.lock by the sender
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ladder_search.disk.files import write_atomically

MAX_LISTED = 20
"""Files that a message names."""
LOCK_PATIENCE_S = 5.0
"""How long a lock is waited for that its holder may be about to free: a process that ends, or another sender."""


class SpoolFolder:
    """The names of the files in one spool folder."""

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
    """A file or a data set of a run that the store does not have yet."""

    key: str
    file: str = ""
    """Relative to the spool folder."""
    folder: str = ""
    """Folder among the run's artifacts."""
    dataset: dict[str, Any] | None = None
    """Name, digest and rows of a data set, instead of a file."""
    reason: str = ""
    """Why the last attempt failed; empty before the first."""

    @property
    def target(self) -> str:
        """The run and the place in it that this attachment fills."""
        return f"{self._place} of {self.key}"

    @property
    def _place(self) -> str:
        return f"data set {self.dataset['name']}" if self.dataset else str(Path(self.folder, Path(self.file).name))

    def __str__(self) -> str:
        return f"{self._place} of {self.key.rpartition('/')[2]}"


@dataclass(slots=True)
class Ack:
    """What one store has of one spool. Losing it costs time and nothing else: every event may be sent twice."""

    spool: str
    """Id of the spool; an acknowledgement of another spool counts as none."""
    store: str
    """Digest of store address and experiment; an acknowledgement of another store counts as none."""
    position: int = 0
    """Byte offset in ``events.jsonl`` up to which the store has everything."""
    last_event: int = 0
    """Number of the last stored event."""
    runs: dict[str, str] = field(default_factory=dict)
    """Our key of a run -> its id in the store."""
    open: list[str] = field(default_factory=list)
    """Keys of the runs that were started and not ended."""
    ended: bool = False
    """Whether the last stored event is the search's goodbye."""
    rejected: int = 0
    """Items that the store refused for good."""
    unreadable: int = 0
    """Lines that were no events."""
    missing: int = 0
    """Events that never reached the spool (full disk), seen as gaps in the numbers."""
    waiting: dict[str, Attachment] = field(default_factory=dict)
    """Files and data sets up to ``position`` that the store does not have, by their targets."""

    def refusals(self) -> list[str]:
        """Return one sentence for each reason why attachments are not in the store."""
        names: dict[str, list[str]] = {}
        for attachment in self.waiting.values():
            names.setdefault(attachment.reason or "not sent yet", []).append(str(attachment))
        return [f"{_listed(each)} not stored: {reason.rstrip('.')}" for reason, each in names.items()]

    def save(self, folder: SpoolFolder) -> None:
        """Raises ``OSError`` when the disk refuses."""
        write_atomically(folder.ack, json.dumps(asdict(self)).encode(), sync=False)


def load_ack(folder: SpoolFolder) -> Ack | None:
    """Return the acknowledgement, or None when there is none that can be read."""
    content = _load(folder.ack)
    try:
        waiting = {target: Attachment(**fields) for target, fields in content.pop("waiting", {}).items()}
        return Ack(**content, waiting=waiting) if content else None
    except (TypeError, AttributeError):  # written by another version
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterStatus:
    """How sending goes, for people: written by the sender, shown by the driver and ``ladder-search doctor``."""

    pid: int = 0
    state: str = "absent"
    """absent, starting, waiting (for the lock), idle, sending, retrying, done."""
    last_success: str | None = None
    """Time of the last stored batch, ISO 8601 in UTC."""
    last_error: str | None = None
    """One sentence; None once a later attempt has succeeded."""
    backlog_bytes: int = 0
    rejected: int = 0
    last_rejection: str | None = None
    unreadable: int = 0
    missing: int = 0
    waiting: int = 0
    """Files and data sets that the store does not have; ``ack.json`` lists them with the reasons."""

    def save(self, folder: SpoolFolder) -> None:
        """Raises ``OSError`` when the disk refuses."""
        write_atomically(folder.status, json.dumps(asdict(self)).encode(), sync=False)


def load_status(folder: SpoolFolder) -> WriterStatus:
    """Return the sender's last words; state ``absent`` when it has not said any."""
    known = {f.name for f in fields(WriterStatus)}
    try:
        return WriterStatus(**{name: value for name, value in _load(folder.status).items() if name in known})
    except TypeError:
        return WriterStatus()


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED])
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)} file(s) ({shown}{more})"


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
