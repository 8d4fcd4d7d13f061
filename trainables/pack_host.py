"""The Ray actor that owns a pack which trials share.

A trial is a thin process: it tells the host which configuration it has and how far to train, waits, and reports to
Ray. The host trains all trials that are seated with it as one program, interval by interval, and answers calls between
two intervals.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from trainables.notice import TrialMovesError
from trainables.seat import Stretch

if TYPE_CHECKING:
    from trainables.host import Host

_LOOK_SECONDS = 2.0
"""Between two looks at which trials' processes still exist."""
_SHORTEST_GRACE, _LONGEST_GRACE = 0.1, 0.25


@dataclass(slots=True, kw_only=True)
class Account:
    """What a host did in its life."""

    node: str
    place: str
    """GPU, or lane of the node's cores."""
    signature: str
    trials: int
    """Seats."""
    intervals: int = 0
    trial_intervals: int = 0
    """Sum over the intervals of the trials that trained in them."""
    trained_s: float = 0.0
    waited_s: float = 0.0
    """Time without any trial to train, between the first interval and the last."""
    seated: int = 0
    """Trials seated, one that came back counted again."""
    copied: int = 0
    """Of these, trials that went on from another's members, copied on the device: exploits of a population."""
    read: int = 0
    """Of these, trials that went on from the files of a checkpoint."""


class SeatLostError(TrialMovesError):
    """A trial's seat is gone, with its host or with its process; Ray starts the trial again from its checkpoint."""


class PackHost:
    """A Ray actor that owns a pack: see ``trainables.host.Host``, whose calls it makes between two intervals.

    One thread does all the training and all the calls; the actor's own event loop only waits. A trial whose process
    has died loses its seat within seconds.
    """

    def __init__(self, data: Sequence[ray.ObjectRef[Any]], how: Mapping[str, Any], account: Account, gpu: str) -> None:
        """Args: ``data`` the data set, in a list so that Ray hands over the reference; ``how``: ``trials``,
        ``threads``, ``device``, ``keeper``, ``copies`` (trials go on from each other); ``gpu``: what CUDA is to see, ""
        for none."""
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        self._data, self._how, self._account = data, how, account
        self._host: Host | None = None
        self._sources: Any = None
        self._sources_lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: dict[str, Callable[[Stretch | BaseException], None]] = {}
        self._processes: dict[str, int] = {}
        self._expected: set[str] = set()
        self._looked = self._ended = 0.0
        self._last_s = 0.0  # length of the last interval
        threading.Thread(target=self._work, name="pack", daemon=True).start()

    async def ping(self) -> int:
        """Return the process id: the host is there."""
        return os.getpid()

    async def account(self) -> Account:
        return self._account

    async def seat(self, key: str, settings: Mapping[str, Any], compiled: bool, checkpoint: str, process: int) -> int:
        """Seat a trial, where ``checkpoint`` left off unless that is empty; return its epoch.

        Raises:
            MemoryError: the pack does not fit; the message tells the amount.
            SeatLostError: all seats are taken by trials that live.
            ResourceError: a source of the trial could not be trained.
        """
        if self._how.get("keeper") is not None:
            if self._how["device"] == "cuda":
                # The capture of a graph bears no other thread's work on the device.
                await self._call(lambda: self._fetch_sources(settings))
            else:  # in a thread of its own: the trials that are seated go on while a source is trained
                await asyncio.get_running_loop().run_in_executor(None, self._fetch_sources, settings)

        def seat() -> int:
            host = self._host_in_use()
            self._forget(key)  # it comes back from a process that has died
            if host.full:
                self._look_for_dead()
            if host.full:
                raise SeatLostError(
                    f"a host seats at most {self._how['trials']} trials and all of them live; it is tried again."
                )
            with self._memory_errors():
                epoch = host.seat(key, settings, compiled=compiled, checkpoint=Path(checkpoint) if checkpoint else None)
            self._account.seated += 1
            self._account.copied, self._account.read = host.copied, host.read
            self._processes[key] = process
            self._expected.add(key)
            return epoch

        epoch: int = await self._call(seat)
        return epoch

    async def train(self, key: str, until: int) -> Stretch:
        """Train a seated trial to epoch ``until`` and return what came of it."""
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def head_for() -> None:
            self._expected.discard(key)
            if self._host is None or key not in self._host.guests:
                _settle(
                    loop, future, SeatLostError(f"{key} has no seat any more; it starts again from its checkpoint.")
                )
                return
            self._waiting[key] = partial(_settle, loop, future)
            self._host.head_for(key, until)

        self._calls.put(head_for)
        stretch: Stretch = await future
        return stretch

    async def hurry(self, key: str) -> None:
        """Let a trial's stretch end with the interval that runs."""

        def hurry() -> None:
            stretch = self._host_in_use().hurry(key)
            if stretch is not None:
                self._waiting.pop(key)(stretch)

        await self._call(hurry)

    async def save(self, key: str, folder: str) -> None:
        """Write a trial's checkpoint into a folder of this node; ``OSError`` when that fails."""
        await self._call(lambda: self._host_in_use().save(key, Path(folder)))

    async def leave(self, key: str) -> None:
        """Free a trial's seat."""
        await self._call(lambda: self._forget(key))

    async def _call(self, run: Callable[[], Any]) -> Any:
        """Have something done by the training thread, before its next interval."""
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def done() -> None:
            try:
                outcome = run()
            except BaseException as error:
                outcome = error
            _settle(loop, future, outcome)

        self._calls.put(done)
        return await future

    def _work(self) -> None:
        while True:
            try:
                self._answer()
                if self._host is not None and self._host.busy:
                    self._interval(self._host)
            except BaseException as error:
                # The pack, and on a GPU the whole process, is not to be trusted any more: its trials go back to their
                # checkpoints, with a host that starts anew.
                for settle in self._waiting.values():
                    settle(error)
                time.sleep(1.0)  # the answers are on their way
                os._exit(1)

    def _answer(self) -> None:
        """Answer all calls; with nothing to train, wait for one.

        Trials that have just reported come back within milliseconds unless they are stopped: they are waited for, for
        no longer than an interval takes, so that a pack does not fall into two halves that train in turns.
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
        begun = time.monotonic()
        training = len(self._waiting)
        account = self._account
        if account.intervals:
            account.waited_s += begun - self._ended
        try:
            arrived = host.interval()
        except (MemoryError, RuntimeError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            arrived = host.give_up(reason)
        self._ended = time.monotonic()
        self._last_s = self._ended - begun
        account.intervals += 1
        account.trial_intervals += training
        account.trained_s += self._last_s
        for key, stretch in arrived.items():
            settle = self._waiting.pop(key, None)
            if settle is not None:
                settle(stretch)
                if not stretch.diverged and not stretch.refused:
                    self._expected.add(key)

    def _fetch_sources(self, settings: Mapping[str, Any]) -> None:
        import torch

        from ladder_search.trial import TrialSpec

        torch.set_num_threads(self._how["threads"])  # each thread has a number of its own
        spec = TrialSpec.from_mapping(settings)
        for draw in range(spec.draws if spec.stages else 0):
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
                    self._waiting.pop(key)(stretch)
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
    from ladder_search.training.memory import out_of_memory  # PyTorch, once the host has it anyway

    return out_of_memory(error)


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], outcome: Any) -> None:
    def settle() -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    loop.call_soon_threadsafe(settle)
