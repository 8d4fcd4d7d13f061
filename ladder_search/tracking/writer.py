"""Sends a spool to its store: alongside a search (``python -m ladder_search.tracking.writer``) or for ``sync``.

The end of standard input marks the end of the search. Until then the process retries forever; afterwards it continues
while it makes progress and leaves the rest to ``sync``.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ladder_search import environment
from ladder_search.disk.lock import Lock
from ladder_search.errors import StoreBusyError, TrackingError
from ladder_search.tracking.address import check, normal_store, sqlite_path
from ladder_search.tracking.clock import steady_time
from ladder_search.tracking.courier import Courier
from ladder_search.tracking.folder import LOCK_PATIENCE_S, SpoolFolder
from ladder_search.tracking.protocol import RunStore
from ladder_search.tracking.spool import SpoolReader
from ladder_search.tracking.spool_tracker import STORE_VARIABLE

POLL_S = 1.0
"""Seconds in which events are collected before they are sent; also the delay of MLflow's pages."""
GATHER_BYTES = 1 << 16
"""Backlog above which the next round follows immediately."""
STATUS_S = 1.0
ENDING_WAIT_S = 5.0
"""Maximum seconds between attempts after the search has ended, as a user may be waiting."""
ENDING_PATIENCE_S, ORPHAN_PATIENCE_S = 10.0, 60.0
"""Seconds of failures after which the writer gives up, while an ended search waits and after it is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    events: int
    left_bytes: int
    rejected: int
    """Items that the store has refused permanently."""
    missing: int
    """Events that a full disk lost."""
    unreadable: int
    error: str | None
    files: tuple[str, ...] = ()
    """Files that are not stored, one sentence per reason; the next ``sync`` retries them."""

    @property
    def complete(self) -> bool:
        return self.error is None and self.left_bytes == 0 and not self.files

    def __str__(self) -> str:
        oddities = {
            "byte(s) left": self.left_bytes,
            "item(s) refused by the store": self.rejected,
            "event(s) lost to a full disk": self.missing,
            "damaged line(s) skipped": self.unreadable,
        }
        parts = [f"{self.events} event(s) sent", *(f"{count} {what}" for what, count in oddities.items() if count)]
        problems = [*([f"not all: {self.error}"] if self.error else []), *self.files]
        return "; ".join([", ".join(parts), *problems])


def sync(
    spool_dir: Path,
    store: str,
    experiment: str | None = None,
    *,
    patience_s: float = 60.0,
    open_store: Callable[[str, str, Path, str], RunStore] | None = None,
    now: Callable[[], float] = steady_time,
    sleep: Callable[[float], None] = time.sleep,
) -> SyncReport:
    """Send the rest of a spool. Repeated calls are harmless.

    ``experiment`` defaults to the spool's own; ``patience_s`` is how long a failing store is retried. Raises
    ``TrackingError`` for a folder without spool, an invalid address, or a spool that another process sends.
    """
    store = normal_store(store)
    if "***" in store:
        raise TrackingError(
            f"a password is kept in no file, {store} needs one: name the store with --tracking, or leave the password "
            "out of the address (PGPASSWORD or ~/.pgpass, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
        )
    header = SpoolReader(spool_dir).header()
    if header is None:
        raise TrackingError(
            f"a spool folder holds events.jsonl, {spool_dir} does not: name the folder 'spool' of a study."
        )
    if open_store is None:
        path = sqlite_path(store)
        if path is not None and not path.parent.is_dir():
            raise TrackingError(
                f"a spool's own store is where its search ran, {path.parent} is not here: name a store with --tracking."
            )
        with suppress(StoreBusyError):  # retried below
            check(store)
        open_store = _open_mlflow
    experiment = experiment or header.experiment
    lock = Lock(SpoolFolder(spool_dir).writer_lock)
    try:
        if not lock.acquire(LOCK_PATIENCE_S):
            raise TrackingError(
                f"a spool is sent by one process at a time, {spool_dir} is being sent by process {lock.holder()}, the "
                "writer of a live search or another sync: wait until it ends."
            )
        opener = partial(open_store, store, experiment, spool_dir)
        courier = Courier(spool_dir, opener, address=_target(store, spool_dir), experiment=experiment, now=now)
        complete = _drain(courier, patience_s, now, sleep)
        courier.save_status("done" if complete else "retrying")
    except OSError as error:
        if isinstance(error, TrackingError):
            raise
        raise TrackingError(f"a spool folder must be writable to sync it, {spool_dir} is not ({error}).") from None
    finally:
        lock.release()
    ack = courier.ack
    return SyncReport(
        events=courier.sent_events,
        left_bytes=0 if complete else courier.backlog(),  # an incomplete line cannot be sent
        rejected=ack.rejected if ack else 0,
        missing=ack.missing if ack else 0,
        unreadable=ack.unreadable if ack else 0,
        error=None if complete or not courier.failures else courier.status.last_error,
        files=tuple(ack.refusals()) if ack else (),
    )


def _drain(courier: Courier, patience_s: float, now: Callable[[], float], sleep: Callable[[float], None]) -> bool:
    """Send everything and end open runs; return False if the store fails for too long."""
    give_up = now() + patience_s
    while True:
        wait = courier.step()
        if wait is None:
            wait = courier.finish()
        if wait is None:
            return True
        if not courier.struggling:
            give_up = now() + patience_s
        elif now() + wait > give_up:
            return False
        if wait:
            sleep(wait)


class Parent:
    """The search that started this process, observed by its pipe to standard input and its process id."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.search_ended = False
        """Whether the pipe is closed: the search has closed its tracker or has ended."""

    def gone(self) -> bool:
        return self.search_ended and (self._pid is None or os.getppid() != self._pid)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.search_ended:
                time.sleep(min(left, POLL_S))
                if self.gone():
                    return
            elif self._pid is not None and os.getppid() != self._pid:
                self.search_ended = True  # a child of the search still holds the pipe
                return
            elif select.select([sys.stdin], [], [], min(left, POLL_S))[0] and not os.read(sys.stdin.fileno(), 4096):
                self.search_ended = True
                return


def run(spool_dir: Path, store: str, experiment: str, parent: Parent) -> None:
    """Send until the search has ended and all is stored, or the store fails for too long afterwards."""
    lock = Lock(SpoolFolder(spool_dir).writer_lock)
    opener = partial(_open_mlflow, store, experiment, spool_dir)
    courier = Courier(spool_dir, opener, address=_target(store, spool_dir), experiment=experiment, now=steady_time)
    while not lock.acquire():  # the writer of an earlier execution, or sync, may still hold it
        if parent.gone():
            if not lock.acquire(ORPHAN_PATIENCE_S):
                return
            break
        parent.wait(0.2)
    courier.save_status("starting")
    status_at = well_at = 0.0
    while True:
        ending = parent.search_ended  # before the step, so that the last events are read
        wait = courier.step()
        if wait is None and ending:
            wait = courier.finish()
            if wait is None:
                break
        if not courier.struggling or not ending:
            well_at = time.monotonic()
        elif time.monotonic() - well_at > (ORPHAN_PATIENCE_S if parent.gone() else ENDING_PATIENCE_S):
            break
        if courier.failures or time.monotonic() >= status_at:
            courier.save_status("retrying" if courier.failures else "idle" if wait is None else "sending")
            status_at = time.monotonic() + STATUS_S
        if not ending and not courier.failures and courier.backlog() < GATHER_BYTES:
            wait = POLL_S
        if wait:
            parent.wait(min(wait, ENDING_WAIT_S) if ending else wait)
    courier.save_status("retrying" if courier.failures else "done")
    lock.release()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ladder_search.tracking.writer", description=__doc__)
    parser.add_argument("--spool", type=Path, required=True, help="folder of the spool")
    parser.add_argument("--store", help=f"tracking address; default: the environment variable {STORE_VARIABLE}")
    parser.add_argument("--experiment", required=True, help="name of the MLflow experiment")
    parser.add_argument("--parent", type=int, help="process id of the search")
    options = parser.parse_args(arguments)
    environment.settle()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # training has priority
    atexit.register(gc.freeze)  # the final garbage collection would delay the waiting search by half a second
    store = normal_store(options.store or os.environ[STORE_VARIABLE])
    run(options.spool, store, options.experiment, Parent(options.parent))


def _target(store: str, spool_dir: Path) -> str:
    """Return what identifies a store; a SQLite file is relative to the spool, so that both may be moved together."""
    path = sqlite_path(store)
    return store if path is None else f"sqlite:{os.path.relpath(path, spool_dir.absolute())}"


def _open_mlflow(store: str, experiment: str, spool: Path, spool_id: str) -> RunStore:
    from ladder_search.tracking.mlflow_store import open_store  # imports MLflow, which takes a second

    return open_store(store, experiment, spool, spool_id)


if __name__ == "__main__":
    main()
