"""Sends the events of a spool to a store in few, repeatable calls, acknowledged on disk and in order per run.

``Courier.step`` does one round and returns how long to wait, so the writer process, ``sync`` and the tests share the
code but use their own clocks.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from ladder_search.disk.lock import Lock
from ladder_search.errors import TrackingError
from ladder_search.tracking.attachments import FIRST_WAIT_S, LONGEST_WAIT_S, AttachmentQueue
from ladder_search.tracking.events import Header, Start
from ladder_search.tracking.folder import LOCK_PATIENCE_S, Ack, Attachment, SpoolFolder, WriterStatus, load_ack
from ladder_search.tracking.plan import Plan, RunWork, take_plan
from ladder_search.tracking.protocol import Batch, DatasetInput, EmptiedError, RejectedError, RunStore, UnavailableError
from ladder_search.tracking.spool import Record, SpoolReader

PLAN_BYTES = 1 << 17
"""Bytes of the spool per acknowledgement, which a killed writer sends again."""
MAX_BISECTIONS = 64
"""Maximum number of calls to find the rejected items of one batch; the rest of the batch is then dropped."""
MAX_FAILURES = 5
"""Consecutive failures of one call after which it counts as refused, if the store accepts other writes."""
INTERRUPTED = "ladder.interrupted"
SPOOL = "ladder.spool"

ATTACHMENTS_S = 1.0
"""Seconds for which attachments are sent before checking for events and saving the acknowledgement."""
TURN_POLL_S = 0.1

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Courier:
    """Sends one spool to one store.

    ``open_store`` receives the spool's id; ``now`` returns seconds since 1970::

        courier = Courier(folder, partial(open_store, uri, name, folder), address=uri, experiment=name, now=time.time)
        courier.step()  -> 0.0   there is more: call again at once
        courier.step()  -> None  everything in the file is stored
        courier.step()  -> 8.0   the store failed: call again after 8 s
    """

    def __init__(
        self,
        path: Path,
        open_store: Callable[[str], RunStore],
        *,
        address: str,
        experiment: str,
        now: Callable[[], float],
    ) -> None:
        self.folder = SpoolFolder(path)
        self.status = WriterStatus(state="starting")
        self.failures = 0
        self.sent_events = 0
        self.ack: Ack | None = None
        """Acknowledgement of the store; None before it was reached."""
        self._open_store = open_store
        self._target = hashlib.sha256(f"{address}\n{experiment}".encode()).hexdigest()[:32]
        self._now = now
        self._store: RunStore | None = None
        self._reader = SpoolReader(path)
        self._records: deque[Record] = deque()
        self._plan: Plan | None = None
        self._ack_error: str | None = None
        self._unreadable_before = 0
        self._saved_status: WriterStatus | None = None
        self._attachments = AttachmentQueue(path, now)
        self._failing: tuple[str, str | None] | None = None
        self._failures_of_call = 0
        self._turn_until: float | None = None
        """Deadline of ``finish`` for the spool's lock; None before the first attempt."""

    @property
    def struggling(self) -> bool:
        return bool(self.failures or self._attachments.failures)

    def backlog(self) -> int:
        return max(0, self._reader.size() - (self.ack.position if self.ack else 0))

    def step(self) -> float | None:
        """Send some events; return the seconds to wait, 0 if there are more, or None if all are stored."""
        try:
            done = self._step()
        except EmptiedError as error:
            self._start_over()
            return self._failed(str(error))
        except TrackingError as error:
            return self._failed(str(error))
        except Exception as error:  # an unexpected error must not end the writer: the spool keeps everything
            _log.exception("unexpected error while sending")
            return self._failed(f"unexpected {type(error).__name__}: {error}")
        if not done:
            return None
        self.failures = 0
        success = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
        problem = self._ack_error or self._attachments.last_error
        self.status = replace(self.status, last_error=problem, last_success=success)
        return 0.0

    def finish(self) -> float | None:
        """After ``step`` returned None: end runs that the search left open as FAILED, tagged ``ladder.interrupted``.

        Does nothing while the search runs, that is, has neither closed its tracker nor released its lock. A dying
        process releases its lock shortly after its pipe, so the lock is retried. Returns what ``step`` returns.
        """
        ack, store, lock = self.ack, self._store, Lock(self.folder.appender_lock)
        if ack is None or store is None:
            return None
        try:
            if not ack.ended:
                if not lock.acquire():  # the search still runs or was resumed, or is dying
                    self._turn_until = self._turn_until or self._now() + LOCK_PATIENCE_S
                    return TURN_POLL_S if self._now() < self._turn_until else None
                self._turn_until = None
                self._records.extend(self._reader.read())
                if self._records:
                    return 0.0  # resumed and ended meanwhile
            for key in list(ack.open):
                run_id, time_ms = ack.runs[key], int(self._now() * 1000)
                with self._rejections():
                    self._insist(run_id, store.log_batch, run_id, Batch(tags=((INTERRUPTED, "true"),)))
                    self._insist(run_id, store.set_terminated, run_id, "FAILED", time_ms)
                ack.open.remove(key)
            with self._rejections():
                self._insist(None, store.drop_twins, ack.runs)
            self._save_ack(ack)
        except EmptiedError as error:
            self._start_over()
            return self._failed(str(error))
        except OSError as error:  # of the store or the disk
            return self._failed(str(error))
        finally:
            lock.release()
        return self._attachments.wait()

    def save_status(self, state: str) -> None:
        """Write ``writer.json`` if it changed; errors of the disk are ignored."""
        ack = self.ack
        self.status = replace(self.status, state=state, pid=os.getpid(), backlog_bytes=self.backlog())
        if ack is not None:
            counts = {name: getattr(ack, name) for name in ("rejected", "unreadable", "missing")}
            self.status = replace(self.status, **counts, waiting=len(ack.waiting))
        if self.status != self._saved_status:
            with suppress(OSError):
                self.status.save(self.folder)
                self._saved_status = self.status

    def _step(self) -> bool:
        header = self._reader.header()
        if header is None:
            return False  # no spool yet
        if self._store is None:
            self._store = self._open_store(header.spool)
            self.failures = 0
            self.status = replace(self.status, last_error=None)
        ack = self.ack or self._resume(self._store, header)
        if self._plan is None:
            if not self._records:
                self._records.extend(self._reader.read(PLAN_BYTES))
            if not self._records:
                if self._reader.position > ack.position:  # only damaged lines
                    ack.position = self._reader.position
                    ack.unreadable = self._unreadable_before + self._reader.unreadable
                    self._save_ack(ack)
                return self._send_attachment(self._store, ack)
            self._plan = take_plan(self._records, ack.last_event)
        plan = self._plan
        for key in list(plan.works):
            self._send(self._store, ack, plan.works[key])
            del plan.works[key]
        if plan.stale is not None:
            stale = plan.stale
            with self._rejections():
                self._insist(None, self._store.close_stale_runs, stale.prefix, stale.live, stale.time_ms)
            live = set(stale.live)
            ack.open = [key for key in ack.open if key in live or not key.startswith(stale.prefix)]
        self.sent_events += plan.last_event - ack.last_event
        ack.position, ack.last_event, ack.ended = plan.position, plan.last_event, plan.closed
        ack.missing += plan.missing
        ack.unreadable = self._unreadable_before + self._reader.unreadable
        self._save_ack(ack)
        self._plan = None
        return True

    def _send_attachment(self, store: RunStore, ack: Ack) -> bool:
        """Send attachments for about a second; return whether one was due."""

        def send(attachment: Attachment) -> None:
            run_id = ack.runs[attachment.key]
            if attachment.dataset is not None:
                self._repeat_if_emptied(run_id, store.log_dataset, run_id, DatasetInput(**attachment.dataset))
            else:
                path = self.folder.path / attachment.file
                self._repeat_if_emptied(run_id, store.log_artifact, run_id, path, attachment.folder)

        until, sent = self._now() + ATTACHMENTS_S, False
        while self._attachments.send_next(ack, send):
            sent = True
            if self._now() >= until:
                break
        if sent:
            self._save_ack(ack)
        return sent

    def _resume(self, store: RunStore, header: Header) -> Ack:
        """Return the acknowledgement of the store; if it is unsure, an empty one, as repeated events are harmless."""
        ack = load_ack(self.folder)
        fits = ack is not None and ack.spool == header.spool and ack.store == self._target
        if ack is None or not fits or ack.position > self._reader.size():
            ack = Ack(spool=header.spool, store=self._target)
        elif ack.runs:
            self._check_runs(store, ack)
        self._reader.position = ack.position
        self._unreadable_before = ack.unreadable
        self.ack = ack
        self._attachments.begin(ack)
        return ack

    def _check_runs(self, store: RunStore, ack: Ack, run_id: str | None = None) -> None:
        """Raise ``EmptiedError`` if the store lost the given run, or the last one.

        The store is called even if no run is known, because this restores a deleted experiment.
        """
        last = run_id or next(reversed(ack.runs.values()), "")
        if not store.still_has(last) and last:
            raise EmptiedError("the store no longer has the items sent before: everything is sent again.")

    def _start_over(self) -> None:
        header = self._reader.header()
        assert header is not None
        _log.warning("the store no longer has the items sent before: sending everything again")
        self.ack = Ack(spool=header.spool, store=self._target)
        self._attachments.begin(self.ack)
        self._plan = None
        self._records.clear()
        self._reader.position = self._reader.unreadable = self._unreadable_before = 0

    def _send(self, store: RunStore, ack: Ack, work: RunWork) -> None:
        """Bring one run up to date; after an error, only the rest is repeated."""
        if work.run_id is None:
            with self._rejections(1 + len(work.params) + len(work.tags) + len(work.points)):
                work.run_id = self._insist(None, self._run_id, store, ack, work)
            if work.run_id is None:
                return
            self.failures = 0
        run_id = work.run_id
        if work.start is not None:
            if work.start.dataset is not None:
                self._attachments.add(ack, Attachment(work.key, dataset=asdict(work.start.dataset)))
            work.start = None  # its params and tags are sent with the next batch
        while batch := work.next_batch():
            try:
                self._insist(run_id, store.log_batch, run_id, batch)
            except RejectedError:
                self._bisect(store, run_id, batch, [MAX_BISECTIONS])
            work.drop(batch)
            self.failures = 0
        while work.artifacts:
            artifact = work.artifacts.popleft()
            self._attachments.add(ack, Attachment(work.key, artifact.file, artifact.folder))
        if work.end is not None:
            with self._rejections():
                self._insist(run_id, store.set_terminated, run_id, work.end.status, work.end.time_ms)
            if work.key in ack.open:
                ack.open.remove(work.key)
            self.failures = 0

    def _run_id(self, store: RunStore, ack: Ack, work: RunWork) -> str:
        start = work.start
        run_id = None if start else ack.runs.get(work.key) or store.find_run(work.key)
        if run_id is None:
            # Without a start, a full disk has lost it.
            start = start or Start(work.key, work.key, int(self._now() * 1000))
            parent_id = start.parent and (ack.runs.get(start.parent) or store.find_run(start.parent))
            run_id = store.create_run_once(work.key, name=start.name, parent_id=parent_id, time_ms=start.time_ms)
            if work.key not in ack.open:
                ack.open.append(work.key)
        ack.runs[work.key] = run_id
        return run_id

    def _bisect(self, store: RunStore, run_id: str, batch: Batch, calls: list[int]) -> None:
        """Send a batch; if it is rejected, bisect it to find and drop the rejected items."""
        calls[0] -= 1
        error = self._refusal(store, run_id, batch)
        if error is None:
            return
        if len(batch) == 1 or calls[0] <= 0:
            self._reject(len(batch), error)
            return
        for half in batch.halves():
            if half:
                self._bisect(store, run_id, half, calls)

    def _refusal(self, store: RunStore, run_id: str, batch: Batch) -> TrackingError | None:
        """Send a batch; return why it was refused, explicitly or by failing while other writes succeed, or None."""
        failure: TrackingError | None = None
        for attempt in range(1, MAX_FAILURES + 1):
            try:
                store.log_batch(run_id, batch)
            except RejectedError as error:
                return error
            except UnavailableError:
                raise
            except TrackingError as error:
                self._check_writes(store, run_id, attempt)
                failure = error
            else:
                return None
        return failure

    def _check_writes(self, store: RunStore, run_id: str, times: int) -> None:
        """Write an existing tag of the run; raise ``TrackingError`` if the store does not accept that either.

        The number of writes varies, because behind a load balancer with one broken server every second or third request
        fails, which must not always be the same one.
        """
        assert self.ack is not None
        for _ in range(times):
            store.log_batch(run_id, Batch(tags=((SPOOL, self.ack.spool),)))

    def _insist(self, run_id: str | None, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the store; treat a call as refused if it fails repeatedly while the store accepts another write.

        Otherwise one item that breaks a server or proxy would block all later ones. A full database does not count: it
        accepts an existing tag, but no new metric.
        """
        assert self._store is not None and self.ack is not None
        try:
            result = self._repeat_if_emptied(run_id, call, *args, **kwargs)
        except (RejectedError, UnavailableError, EmptiedError):
            raise
        except TrackingError as error:
            last = run_id or next(reversed(self.ack.runs.values()), None)
            before, self._failing = self._failing, None
            call_and_run = (getattr(call, "__name__", ""), run_id)
            self._failures_of_call = self._failures_of_call + 1 if before == call_and_run else 1
            if last is not None:
                self._check_writes(self._store, last, self._failures_of_call - 1)
                if self._failures_of_call >= MAX_FAILURES:
                    raise RejectedError(str(error)) from error
            self._failing = call_and_run
            raise
        self._failing = None
        return result

    def _repeat_if_emptied(self, run_id: str | None, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the store; if it refuses, check that it still has its runs and call again."""
        assert self._store is not None and self.ack is not None
        try:
            return call(*args, **kwargs)
        except RejectedError:
            pass
        self._check_runs(self._store, self.ack, run_id)
        return call(*args, **kwargs)

    @contextmanager
    def _rejections(self, count: int = 1) -> Iterator[None]:
        try:
            yield
        except RejectedError as error:
            self._reject(count, error)

    def _reject(self, count: int, error: Exception) -> None:
        assert self.ack is not None
        self.ack.rejected += count
        self.status = replace(self.status, last_rejection=str(error))
        _log.warning("%d item(s) rejected permanently: %s", count, error)

    def _failed(self, sentence: str) -> float:
        self.failures += 1
        self.status = replace(self.status, last_error=sentence)
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.failures - 1, 16))

    def _save_ack(self, ack: Ack) -> None:
        try:
            ack.save(self.folder)
            self._ack_error = None
        except OSError as error:  # events are only sent again
            self._ack_error = f"the acknowledgement file cannot be written ({error.strerror or error})"
