"""The spool folder: its file names, its two locks, its acknowledgement and status files.

::

    events.jsonl     one event per line, appended only (events.py, spool.py)
    artifacts/       files, copied at the time of the call
    ack.json         up to which byte everything is stored, and which run id each key got
    writer.json      how the background writer is doing; writer.log has its details
    appender.lock    held by the search; writer.lock by whoever sends
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


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


class Lock:
    """An exclusive lock on a file, freed by the kernel when its process ends however it ends.

    The file holds the process id of the holder, for messages only. A file system without locks grants every request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free; return whether it is ours. Raises ``OSError`` where nothing can be written."""
        if self._fd is not None:
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(fd)
                return False
        self._fd = fd
        with suppress(OSError):  # a full disk may refuse the number, the lock holds all the same
            os.ftruncate(fd, 0)
            os.write(fd, str(os.getpid()).encode())
        return True

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def holder(self) -> str:
        """Return the process id written by the last holder, or ``?``."""
        try:
            return self.path.read_text(encoding="ascii").strip() or "?"
        except (OSError, ValueError):
            return "?"


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by a file that holds ``text``; a reader sees the old file or the new one, never half of one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


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

    def save(self, folder: SpoolFolder) -> None:
        """Raises ``OSError`` when the disk refuses."""
        write_atomically(folder.ack, json.dumps(asdict(self)))


def load_ack(folder: SpoolFolder) -> Ack | None:
    """Return the acknowledgement, or None when there is none that can be read."""
    found = _load(folder.ack)
    try:
        return Ack(**found) if found else None
    except TypeError:  # written by another version
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

    def save(self, folder: SpoolFolder) -> None:
        """Raises ``OSError`` when the disk refuses."""
        write_atomically(folder.status, json.dumps(asdict(self)))


def load_status(folder: SpoolFolder) -> WriterStatus:
    """Return the sender's last words; state ``absent`` when it has not said any."""
    known = {f.name for f in fields(WriterStatus)}
    try:
        return WriterStatus(**{name: value for name, value in _load(folder.status).items() if name in known})
    except TypeError:
        return WriterStatus()


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
