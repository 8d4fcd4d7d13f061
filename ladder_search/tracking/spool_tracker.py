"""The tracker of a search: it writes every call to the spool, and a separate process sends the spool to the store.

The process (``writer.py``) imports MLflow, which takes a second, and isolates the search from databases and servers. It
detects the search's end by the end of its standard input, sends the rest and exits.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import ladder_search
from ladder_search import environment
from ladder_search.disk.files import copy_content
from ladder_search.tracking.address import normal_store
from ladder_search.tracking.clock import steady_time
from ladder_search.tracking.events import STATUSES, Artifact, Close, CloseStale, End, Event, Metrics, Start, Tags
from ladder_search.tracking.folder import WriterStatus, load_ack, load_status
from ladder_search.tracking.limits import (
    MAX_STEP,
    safe_folder,
    safe_name,
    safe_params,
    safe_prefix,
    safe_tags,
    safe_value,
)
from ladder_search.tracking.protocol import DatasetInput, MetricPoint, RunStatus
from ladder_search.tracking.spool import SpoolAppender

STORE_VARIABLE = "LADDER_SEARCH_WRITER_STORE"
"""Passes the address to the writer; a command line would expose its password to all users."""
LOG_BYTES = 1 << 20
RESTART_S = 10.0
MAX_RESTARTS = 5
MAX_PROBLEMS = 20

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")


def _never_raises(call: Callable[Concatenate[SpoolTracker, _P], None]) -> Callable[Concatenate[SpoolTracker, _P], None]:
    """Convert exceptions into problems that are reported at the end: tracking never stops a search."""

    @wraps(call)
    def guarded(self: SpoolTracker, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            call(self, *args, **kwargs)
        except Exception as error:
            self._problem(f"{call.__name__} was not recorded ({type(error).__name__}: {error})")

    return guarded


class SpoolTracker:
    """Implements ``Tracker``. Only opening raises: ``TrackingError`` for an unusable folder or address.

    With ``start_writer=False``, nothing is sent until ``ladder-search sync`` is run (offline clusters).
    """

    def __init__(
        self,
        spool_dir: Path,
        store: str,
        experiment: str,
        *,
        start_writer: bool = True,
        now: Callable[[], float] = steady_time,
    ) -> None:
        self._store = normal_store(store)
        self._experiment = experiment
        self._now = now
        self._spool = SpoolAppender(spool_dir.absolute(), experiment)
        self._non_finite: set[tuple[str, str]] = set()
        self._problems: list[str] = []
        self._problem_count = 0
        self._stored: bool | None = None
        self.stored_but_files = False
        """After ``close``: whether all parameters, metrics, tags and ends are stored."""
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._look_at = 0.0
        if self._spool.cut_bytes:
            self._problem(
                f"the last event of the previous run was incomplete and is dropped ({self._spool.cut_bytes} bytes)"
            )
        if start_writer:
            self._start_writer()

    @_never_raises
    def start_run(
        self,
        key: str,
        *,
        name: str,
        params: Mapping[str, str | float | int | bool],
        tags: Mapping[str, str],
        parent: str | None = None,
        dataset: DatasetInput | None = None,
    ) -> None:
        if dataset is not None:
            tags = {**tags, "data.sha256": dataset.digest}
        self._add(
            Start(
                key=safe_name(key),
                name=safe_value(name, 250),
                time_ms=self._time_ms(),
                params=safe_params(params),
                tags=safe_tags(tags),
                parent=None if parent is None else safe_name(parent),
                dataset=dataset,
            )
        )

    @_never_raises
    def log_metrics(self, key: str, points: Sequence[MetricPoint]) -> None:
        key = safe_name(key)
        finite: list[MetricPoint] = []
        first_bad: dict[str, str] = {}
        for point in points:
            try:  # an invalid point must not lose the others
                clean = _clean(point)
            except (TypeError, ValueError, OverflowError) as error:
                self._problem(f"a point of {point.name} was not recorded ({error})")
                continue
            if math.isfinite(clean.value):
                finite.append(clean)
            elif (key, clean.name) not in self._non_finite:
                self._non_finite.add((key, clean.name))
                first_bad[safe_name(f"non_finite.{clean.name}")] = str(clean.step)
        if finite:
            self._add(Metrics(key, tuple(finite)))
        if first_bad:
            self._add(Tags(key, first_bad))

    @_never_raises
    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        self._add(Tags(safe_name(key), safe_tags(tags)))

    @_never_raises
    def log_artifact(self, key: str, path: Path, folder: str = "") -> None:
        """Copy the file or folder into the spool immediately; it should be small, as the search's event loop waits."""
        spool = self._spool.folder
        place = spool.artifacts / f"{self._spool.next_number:08d}"
        while place.exists():  # left by an event that was never written
            place = place.with_name(place.name + "_")
        place.mkdir(parents=True)
        target = place / path.name
        copy_content(path, target)
        self._add(Artifact(safe_name(key), str(target.relative_to(spool.path)), safe_folder(folder)))

    @_never_raises
    def end_run(self, key: str, status: RunStatus) -> None:
        if status not in STATUSES:
            raise ValueError(f"a run ends as one of {', '.join(STATUSES)}, not as {status!r}")
        self._add(End(safe_name(key), status, self._time_ms()))
        self._spool.fsync_soon()

    @_never_raises
    def close_stale_runs(self, prefix: str, live: Collection[str]) -> None:
        self._add(CloseStale(safe_prefix(prefix), tuple(map(safe_name, live)), self._time_ms()))

    def close(self, timeout_s: float = 60.0) -> bool:
        """Wait for the writer to send everything and end it; return whether the store is complete.

        Problems are logged as warnings and listed by ``problems``. Further calls do nothing.
        """
        if self._stored is not None:
            return self._stored
        self._stored = False
        try:
            self._spool.append(Close(self._time_ms()))
            self._spool.flush()
            self._end_writer(timeout_s)
            ack = load_ack(self._spool.folder)
            complete = self._spool.lost == self._spool.pending == 0
            # Without a writer, the acknowledgement is of an earlier execution.
            if self._process is not None and ack is not None and ack.spool == self._spool.header.spool:
                self.stored_but_files = complete and ack.position == self._spool.size
                self._stored = self.stored_but_files and not ack.waiting
            if self.stored_but_files and ack is not None:
                for sentence in ack.refusals():
                    self._problem(sentence)
            self._spool.close()
            if self._spool.lost:
                self._problem(f"{self._spool.lost} event(s) were lost: {self._spool.last_error}")
        except Exception as error:
            self._problem(f"closing failed ({type(error).__name__}: {error})")
        for problem in self.problems():
            _log.warning("tracking: %s", problem)
        return self._stored

    def problems(self) -> list[str]:
        """Return a sentence for each problem; beyond ``MAX_PROBLEMS``, the last one counts the rest."""
        more = self._problem_count - len(self._problems)
        return [*self._problems, *([f"{more} more of this kind"] if more else [])]

    def status(self) -> WriterStatus:
        return load_status(self._spool.folder)

    def run_id(self, key: str) -> str | None:
        """Return the store's id of a run, or None if it is not stored yet. Reads a file, so avoid it in hot paths."""
        ack = load_ack(self._spool.folder)
        return None if ack is None else ack.runs.get(safe_name(key))

    def _add(self, event: Event) -> None:
        if self._stored is not None:
            raise RuntimeError("the tracker is closed")
        self._spool.append(event)
        if self._process is not None and self._now() >= self._look_at:
            self._look_at = self._now() + RESTART_S
            if self._process.poll() is not None and self._restarts < MAX_RESTARTS:
                self._restarts += 1
                self._problem(f"the writer process ended with code {self._process.returncode} and was started again")
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._start_writer()

    def _start_writer(self) -> None:
        """Start ``python -m ladder_search.tracking.writer`` in a new session, which Ctrl-C does not reach."""
        folder = self._spool.folder
        home = str(Path(ladder_search.__file__).parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {STORE_VARIABLE: self._store, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-P", "-m", "ladder_search.tracking.writer", "--spool", str(folder.path)]
        command += ["--experiment", self._experiment, "--parent", str(os.getpid())]
        with suppress(OSError):
            if folder.log.stat().st_size > LOG_BYTES:
                folder.log.unlink()
        try:
            with folder.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env={**environment.settled(os.environ), **variables},
                    start_new_session=True,
                )
        except OSError as error:
            self._problem(f"the writer process did not start ({error}); nothing is sent before it can")
        self._look_at = self._now() + RESTART_S

    def _end_writer(self, timeout_s: float) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()  # signals the writer to finish
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _problem(self, sentence: str) -> None:
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(sentence)

    def _time_ms(self) -> int:
        return int(self._now() * 1000)


def _clean(point: MetricPoint) -> MetricPoint:
    """Return the point with Python numbers within MLflow's limits; raise ``ValueError`` if they do not fit."""
    name, value, step, time_ms = safe_name(point.name), float(point.value), int(point.step), int(point.time_ms)
    if abs(step) > MAX_STEP or not 0 <= time_ms <= MAX_STEP:
        raise ValueError(f"step {step} or time {time_ms} does not fit 64 bits")
    return MetricPoint(name=name, value=value, step=step, time_ms=time_ms)
