"""The Ray actor that owns a pack shared by trials.

A trial is a thin process that sends its configuration and the next epoch to the host, waits, and reports to Ray. The
host trains all its seated trials as one program, interval by interval, and handles calls between intervals.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from ladder_search import plugins
from trainables.notice import TrialMovesError
from trainables.seat import Stretch

if TYPE_CHECKING:  # it imports PyTorch, and the desk reads this file without it
    from trainables.host import Host

_LOOK_SECONDS = 2.0
"""Interval between checks for dead trial processes."""
_SHORTEST_GRACE, _LONGEST_GRACE = 0.1, 0.25


@dataclass(slots=True, kw_only=True)
class Account:
    """Statistics of a host."""

    node: str
    place: str
    """GPU, or lane of the node's cores."""
    signature: str
    trials: int
    intervals: int = 0
    trial_intervals: int = 0
    """Sum over the intervals of the number of trials trained."""
    trained_s: float = 0.0
    waited_s: float = 0.0
    """Time without a trial to train, between the first interval and the last."""
    seated: int = 0
    """Trials seated; a trial that returns counts again."""
    copied: int = 0
    """Of these, trials that continued from another trial's members, copied on the device (exploits of a population)."""
    read: int = 0
    """Of these, trials that continued from checkpoint files."""


class SeatLostError(TrialMovesError):
    """Raised if a trial loses its seat with its host or its process; Ray restarts the trial from its checkpoint."""


class PackHost:
    """A Ray actor that runs a ``trainables.host.Host``, with its calls between two intervals.

    One thread runs all training and all calls; the actor's event loop only waits. A trial whose process died loses its
    seat within seconds.
    """

    def __init__(self, data: Sequence[ray.ObjectRef[Any]], how: Mapping[str, Any], account: Account, gpu: str) -> None:
        """Args:
        data: the data set's object reference, in a list so that Ray does not resolve it.
        how: ``trials``, ``threads``, ``device``, ``keeper``, ``copies`` (trials continue from each other) and
            ``plugins`` (files from which families may be imported).
        gpu: the value of ``CUDA_VISIBLE_DEVICES``, "" for none.
        """
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        plugins.offer(how.get("plugins", ()))
        self._data, self._how, self._account = data, how, account
        self._host: Host | None = None
        self._sources: Any = None
        self._sources_lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: dict[str, Future[Stretch]] = {}
        self._processes: dict[str, int] = {}
        self._expected: set[str] = set()
        self._looked = self._ended = 0.0
        self._last_s = 0.0  # length of the last interval
        threading.Thread(target=self._work, name="pack", daemon=True).start()

    async def ping(self) -> int:
        """Return the process ID, to confirm that the host is alive."""
        return os.getpid()

    async def account(self) -> Account:
        return self._account

    async def seat(
        self,
        key: str,
        settings: Mapping[str, Any],
        compiled: bool,
        checkpoint: str,
        process: int,
        draws: int | None = None,
    ) -> int:
        """Seat a trial and return its epoch: 0 if ``checkpoint`` is empty, otherwise that of the checkpoint.

        ``draws`` is the number of label draws that it will train in turn; None: it trains those of its settings at
        once.

        Raises:
            MemoryError: the pack does not fit; the message contains the amount.
            SeatLostError: all seats belong to live trials.
            ResourceError: a source of the trial could not be trained.
        """
        if self._how.get("keeper") is not None:
            if self._how["device"] == "cuda":
                # No other thread may use the device during the capture of a CUDA graph.
                await self._call(lambda: self._fetch_sources(settings, draws))
            else:  # in a separate thread: seated trials continue while a source is trained
                await asyncio.get_running_loop().run_in_executor(None, self._fetch_sources, settings, draws)

        def seat() -> int:
            host = self._host_in_use()
            self._forget(key)  # present if the trial's process died
            if host.full:
                self._look_for_dead()
            if host.full:
                raise SeatLostError(
                    f"a host has slots for at most {self._how['trials']} trials, and all slots are taken; the trial is "
                    "retried."
                )
            with self._memory_errors():
                epoch = host.seat(
                    key,
                    settings,
                    compiled=compiled,
                    checkpoint=Path(checkpoint) if checkpoint else None,
                    in_turn=draws is not None,
                )
            self._account.seated += 1
            self._account.copied, self._account.read = host.copied, host.read
            self._processes[key] = process
            self._expected.add(key)
            return epoch

        epoch: int = await self._call(seat)
        return epoch

    async def train(self, key: str, until: int) -> Stretch:
        """Train a seated trial to epoch ``until`` and return its stretch."""
        stretch: Future[Stretch] = _future()

        def head_for() -> None:
            self._expected.discard(key)
            if self._host is None or key not in self._host.guests:
                raise SeatLostError(f"{key} has lost its slot; it restarts from its checkpoint.")
            self._waiting[key] = stretch
            self._host.head_for(key, until)

        await self._call(head_for)
        return await asyncio.wrap_future(stretch)

    async def hurry(self, key: str) -> None:
        """End a trial's stretch after the current interval."""

        def hurry() -> None:
            stretch = self._host_in_use().hurry(key)
            if stretch is not None:
                self._waiting.pop(key).set_result(stretch)

        await self._call(hurry)

    async def save(self, key: str, folder: str) -> None:
        """Write a trial's checkpoint into a folder of this node, or raise ``OSError``."""
        await self._call(lambda: self._host_in_use().save(key, Path(folder)))

    async def leave(self, key: str) -> None:
        """Free a trial's seat."""
        await self._call(lambda: self._forget(key))

    async def _call(self, run: Callable[[], Any]) -> Any:
        """Run a function in the training thread, before its next interval."""
        outcome = _future()

        def call() -> None:
            try:
                outcome.set_result(run())
            except BaseException as error:
                outcome.set_exception(error)

        self._calls.put(call)
        return await asyncio.wrap_future(outcome)

    def _work(self) -> None:
        while True:
            try:
                self._answer()
                if self._host is not None and self._host.busy:
                    self._interval(self._host)
            except BaseException as error:
                # The pack, and on a GPU the process, may be corrupt: its trials restart from checkpoints on a new host.
                for stretch in self._waiting.values():
                    stretch.set_exception(error)
                time.sleep(1.0)  # let the replies reach the trials
                os._exit(1)

    def _answer(self) -> None:
        """Handle all queued calls; without a trial to train, wait for one.

        Trials that have just reported return within milliseconds unless they are stopped. The host waits for them, for
        at most one interval, so that a pack does not split into halves that train alternately.
        """
        busy = self._host is not None and self._host.busy
        grace = self._ended + min(_LONGEST_GRACE, max(_SHORTEST_GRACE, self._last_s)) if self._expected else 0.0
        while True:
            left = grace - time.monotonic()
            wait = _LOOK_SECONDS if not busy else left if self._expected and left > 0 else 0.0
            try:
                call = self._calls.get(timeout=wait) if wait else self._calls.get_nowait()
            except queue.Empty:
                break
            call()
            busy = self._host is not None and self._host.busy
        self._expected.clear()
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._look_for_dead()

    def _interval(self, host: Host) -> None:
        started = time.monotonic()
        training = len(self._waiting)
        account = self._account
        if account.intervals:
            account.waited_s += started - self._ended
        try:
            arrived = host.interval()
        except (MemoryError, RuntimeError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            arrived = host.give_up(reason)
        self._ended = time.monotonic()
        self._last_s = self._ended - started
        account.intervals += 1
        account.trial_intervals += training
        account.trained_s += self._last_s
        for key, stretch in arrived.items():
            waiting = self._waiting.pop(key, None)
            if waiting is not None:
                waiting.set_result(stretch)
                if not stretch.diverged and not stretch.refused:
                    self._expected.add(key)

    def _fetch_sources(self, settings: Mapping[str, Any], draws: int | None) -> None:
        import torch

        from ladder_search.trial import TrialSpec

        torch.set_num_threads(self._how["threads"])  # a setting of the current thread
        spec = TrialSpec.from_mapping(settings)
        for draw in range((draws or spec.draws) if spec.stages else 0):
            self._sources_in_use().networks(spec, draw)

    def _sources_in_use(self) -> Any:
        with self._sources_lock:
            if self._sources is None:
                import torch

                from trainables.keeper import KeptSources

                self._sources = KeptSources(self._how["keeper"], torch.device(self._how["device"]))
            return self._sources

    def _host_in_use(self) -> Host:
        if self._host is None:
            import torch

            from trainables.host import Host

            torch.set_num_threads(self._how["threads"])
            self._host = Host(
                ray.get(self._data[0]),
                trials=self._how["trials"],
                device=torch.device(self._how["device"]),
                sources=self._sources_in_use() if self._how.get("keeper") is not None else None,
                snapshots=self._how["trials"] if self._how.get("copies") else 0,
            )
        return self._host

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            for key, stretch in self._host_in_use().give_up(reason).items():
                if key in self._waiting:
                    self._waiting.pop(key).set_result(stretch)
            raise MemoryError(reason) from error

    def _forget(self, key: str) -> None:
        self._host_in_use().unseat(key)
        self._processes.pop(key, None)
        self._waiting.pop(key, None)
        self._expected.discard(key)

    def _look_for_dead(self) -> None:
        self._looked = time.monotonic()
        for key, process in list(self._processes.items()):
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                self._forget(key)


def _reason(error: Exception) -> str | None:
    from ladder_search.training.memory import out_of_memory  # imports PyTorch, which the host has loaded by then

    return out_of_memory(error)


def _future() -> Future[Any]:
    """Return a future for the training thread, which the end of the awaiting call cannot cancel."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future
