"""The event file of a spool, with one writing and one reading process, which may be killed at any byte.

Each line is written by one system call without buffering. An incomplete last line is ignored by readers and removed
when the file is next opened for appending.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ladder_search.disk.files import sync_file
from ladder_search.disk.lock import Lock
from ladder_search.errors import TrackingError
from ladder_search.tracking.events import Event, Header, event_line, header_line, parse_event, parse_header
from ladder_search.tracking.folder import LOCK_PATIENCE_S, SpoolFolder

CHUNK_BYTES = 1 << 20
"""Bytes per read: some thousand events, a few megabytes of memory."""

PENDING_BYTES = 16 << 20
"""Limit of the buffer used while the disk is full; further events are lost, counted and reported."""

PENDING_RETRY_S = 1.0


class SpoolAppender:
    """Appends events; holds the spool's ``appender.lock``.

    Tests may replace ``write(fd, data) -> int`` and ``clock() -> seconds``. Raises ``TrackingError`` if the folder is
    in use, not writable, or holds something else.
    """

    def __init__(
        self,
        path: Path,
        experiment: str,
        *,
        pending_bytes: int = PENDING_BYTES,
        write: Callable[[int, bytes], int] = os.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = SpoolFolder(path)
        self.lost = 0
        """Number of events lost because disk and buffer were full."""
        self.cut_bytes = 0
        """Length of an incomplete line that was removed."""
        self.last_error: str | None = None
        self.size = 0
        """Bytes of complete lines in the file."""
        self._experiment = experiment
        self._write = write
        self._clock = clock
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._pending_limit = pending_bytes
        self._retry_at = 0.0
        self._fsync: threading.Thread | None = None
        self._fd = -1
        self._lock = Lock(self.folder.appender_lock)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not self._lock.acquire(LOCK_PATIENCE_S):
                raise TrackingError(
                    f"one search writes to a spool, {path} is in use by process {self._lock.holder()}: "
                    "wait until it ends or stop it first."
                )
            self._fd = os.open(self.folder.events, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self.header, self._n = self._take_over()
            if self.header.experiment != experiment:
                raise TrackingError(
                    f"a spool belongs to one experiment, {path} to {self.header.experiment!r} and not to "
                    f"{experiment!r}: name another folder."
                )
        except OSError as error:
            self._release()
            if isinstance(error, TrackingError):
                raise
            raise TrackingError(
                f"the spool folder must be writable, {path} is not ({error}): free it or name another."
            ) from None

    @property
    def pending(self) -> int:
        return len(self._pending)

    @property
    def next_number(self) -> int:
        return self._n + 1

    def append(self, event: Event) -> None:
        """Write one event, or buffer it while the disk is full. Raises ``ValueError`` if it is invalid."""
        line = event_line(self._n + 1, event)
        self._n += 1
        if self._pending:
            if self._clock() >= self._retry_at:
                self._write_pending()
            if self._pending:
                self._keep(line)
                return
        if not self._write_line(line):
            self._keep(line)

    def fsync_soon(self) -> None:
        """Sync the file in a thread, as this takes long on a busy disk."""
        if self._fsync is None or not self._fsync.is_alive():
            self._fsync = threading.Thread(target=self._fsync_now, name="spool-fsync", daemon=True)
            self._fsync.start()

    def close(self) -> None:
        """Write buffered events, sync the file and release the lock; events that cannot be written count as lost."""
        if self._fd < 0:
            return
        self.flush()
        self.lost += len(self._pending)
        self._pending.clear()
        self._release()

    def flush(self) -> None:
        """Write buffered events and sync the file; return even if that fails."""
        self._write_pending()
        if self._fsync is not None:
            self._fsync.join()
        self._fsync_now()

    def _take_over(self) -> tuple[Header, int]:
        """Remove an incomplete line and read header and last number, or write the header of a new spool."""
        self.size = os.fstat(self._fd).st_size
        end = _end_of_lines(self._fd, self.size)
        if end < self.size:
            self.cut_bytes = self.size - end
            os.ftruncate(self._fd, end)
            self.size = end
        if self.size == 0:
            header = Header(uuid.uuid4().hex, self._experiment)
            if not self._write_line(header_line(header)):
                raise OSError(self.last_error)
            return header, 0
        start_of_last_line = _end_of_lines(self._fd, self.size - 1)
        reader = SpoolReader(self.folder.path, position=start_of_last_line)
        spool_header = reader.header()
        assert spool_header is not None  # the file has at least one complete line
        records = reader.read()
        if not records and self.size > reader.first_event:  # the last line is unreadable: read all
            reader.position = 0
            while chunk := reader.read():
                records = chunk
        reader.close()
        return spool_header, records[-1].n if records else 0

    def _write_line(self, line: bytes) -> bool:
        done = 0
        try:
            while done < len(line):
                done += self._write(self._fd, line[done:] if done else line)
        except OSError as error:
            self.last_error = f"the spool in {self.folder.path} cannot be written ({error.strerror or error})"
            self._retry_at = self._clock() + PENDING_RETRY_S
            if done:  # works on a full disk
                os.ftruncate(self._fd, self.size)
            return False
        self.size += done
        return True

    def _write_pending(self) -> None:
        while self._pending and self._write_line(self._pending[0]):
            self._pending_bytes -= len(self._pending.popleft())

    def _keep(self, line: bytes) -> None:
        if self._pending_bytes + len(line) > self._pending_limit:
            self.lost += 1
            return
        self._pending.append(line)
        self._pending_bytes += len(line)

    def _fsync_now(self) -> None:
        try:
            sync_file(self._fd)
        except OSError as error:
            self.last_error = (
                f"the disk of {self.folder.path} does not store the written data ({error.strerror or error})"
            )

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.release()


@dataclass(frozen=True, slots=True)
class Record:
    n: int
    event: Event
    end: int


class SpoolReader:
    """Reads complete lines from ``position``, at most a chunk at a time. A missing file counts as empty."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self.folder = SpoolFolder(path)
        self.position = position
        self.unreadable = 0
        self.first_event = 0
        """Byte offset after the header, once it is read."""
        self._header: Header | None = None
        self._fd: int | None = None

    def header(self) -> Header | None:
        """Return the header, or None before it is written; raise ``TrackingError`` if this is not a spool."""
        if self._header is None:
            line, newline, _ = self._pread(CHUNK_BYTES, 0).partition(b"\n")
            if newline:
                self._header = parse_header(line)
                self.first_event = len(line) + 1
        return self._header

    def size(self) -> int:
        try:
            return self.folder.events.stat().st_size
        except OSError:
            return 0

    def backlog(self) -> int:
        return max(0, self.size() - self.position)

    def read(self, limit: int = CHUNK_BYTES) -> list[Record]:
        """Return the next complete events, about ``limit`` bytes of them; empty at the end."""
        if self.header() is None:
            return []
        self.position = max(self.position, self.first_event)
        records: list[Record] = []
        while not records:
            data = self._pread(limit, self.position)
            cut = data.rfind(b"\n") + 1
            if cut == 0:
                if len(data) < limit:
                    return []  # at the end or an incomplete line
                limit *= 2  # the line is longer than the chunk
                continue
            for line in data[:cut].splitlines(keepends=True):
                self.position += len(line)
                try:
                    n, event = parse_event(line)
                except ValueError:
                    self.unreadable += 1
                else:
                    records.append(Record(n, event, self.position))
        return records

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _pread(self, length: int, offset: int) -> bytes:
        # Unbuffered, because the next appender may replace an incomplete line.
        try:
            if self._fd is None:
                self._fd = os.open(self.folder.events, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._fd, length, offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TrackingError(f"a spool must be readable, {self.folder.events} is not ({error}).") from None


def _end_of_lines(fd: int, size: int) -> int:
    """Return the offset after the last newline before ``size``; 0 if there is none."""
    end = size
    while end > 0:
        start = max(0, end - CHUNK_BYTES)
        index = os.pread(fd, end - start, start).rfind(b"\n")
        if index >= 0:
            return start + index + 1
        end = start
    return 0
