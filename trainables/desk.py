"""The desk, an actor that assigns seats in packs, and a trial's view of its seat.

    trial ── seat ──> desk ── starts ──> host (one per accelerator or lane of cores, and signature)
      └── train, save, leave ──────────────┘

The driver owns the desk and the desk owns the hosts, so all of them end with the driver.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ladder_search.data.dataset import Dataset
from ladder_search.errors import ResourceError
from trainables.pack_host import Account, PackHost, SeatLostError
from trainables.seat import Stretch

LINGER_SECONDS = 10.0
"""How long a host without trials is kept, because a new host would have to compile again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Location of a trial."""

    node: str
    gpu: str
    """The trial's GPU as named by CUDA; "" without one."""


@dataclass(slots=True)
class _Entry:
    handle: Any
    trials: set[str] = field(default_factory=set)
    idle_since: float = 0.0


class Desk:
    """A Ray actor that assigns trials to hosts.

    A node has one lane per pack that fits on its cores; a GPU shared by several packs has lanes as well. A trial gets
    the host of its accelerator or of the emptiest lane. The first trial that needs a host starts it; the host ends
    after ``LINGER_SECONDS`` without trials.
    """

    host = PackHost

    def __init__(
        self, name: str, data: Sequence[ray.ObjectRef[Any]], how: Mapping[str, Any], share: tuple[float, float]
    ) -> None:
        """Args: ``share``: cores and GPUs of one pack; the others as for ``PackHost``."""
        self._name, self._data, self._how = name, data, how
        self._cpus, self._gpus = share
        self._hosts: dict[tuple[Place, int, str], _Entry] = {}
        self._seats: dict[str, tuple[Place, int, str]] = {}
        self._accounts: list[Account] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._started = 0

    async def seat(self, key: str, place: Place, signature: str, seats: int) -> Any:
        """Return the handle of the trial's host; ``seats`` is the size of a host that has to be started."""
        self._sweeper = self._sweeper or asyncio.get_running_loop().create_task(self._sweep())
        self._release(key)
        spot = (place, self._lane(place, signature), signature)
        for _ in range(2):
            entry = self._hosts.get(spot) or self._start(*spot, seats)
            entry.trials.add(key)
            self._seats[key] = spot
            try:
                await entry.handle.ping.remote()
                return entry.handle
            except RayError:  # the host died: assign no more trials to it
                if self._hosts.get(spot) is entry:
                    del self._hosts[spot]
        raise SeatLostError(f"the host of {key} did not start; the trial is retried.")

    async def vacate(self, key: str) -> None:
        self._release(key)

    async def accounts(self) -> list[dict[str, Any]]:
        """Return the accounts of all hosts, ended ones included."""
        accounts = [await self._account(entry) for entry in list(self._hosts.values())]
        return [asdict(account) for account in (*self._accounts, *filter(None, accounts))]

    async def hosts(self) -> dict[str, list[str]]:
        """Return the name of each host and the keys of its trials."""
        return {self._host_name(*spot): sorted(entry.trials) for spot, entry in self._hosts.items()}

    async def close(self) -> list[dict[str, Any]]:
        """End all hosts and return their accounts."""
        accounts = await self.accounts()
        for spot in list(self._hosts):
            ray.kill(self._hosts.pop(spot).handle)
        return accounts

    def _lane(self, place: Place, signature: str) -> int:
        packs = 1 / self._gpus if place.gpu else _cores(place.node) / self._cpus
        lanes = max(1, math.ceil(packs - 1e-6))
        trials = [0] * lanes
        for there, lane, _ in self._seats.values():
            if there == place:
                trials[lane] += 1
        return min(range(lanes), key=lambda lane: (trials[lane], (place, lane, signature) not in self._hosts, lane))

    def _start(self, place: Place, lane: int, signature: str, seats: int) -> _Entry:
        account = Account(node=place.node, place=_where(place, lane), signature=signature, trials=seats)
        self._started += 1
        host: Any = ray.remote(self.host).options(
            # Numbered, because Ray frees the name of a dead actor with a delay.
            name=f"{self._host_name(place, lane, signature)}, {self._started}",
            num_cpus=0,
            num_gpus=0,
            max_concurrency=1000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
        )
        how = {**self._how, "trials": seats}
        self._hosts[place, lane, signature] = entry = _Entry(host.remote(self._data, how, account, place.gpu))
        return entry

    def _host_name(self, place: Place, lane: int, signature: str) -> str:
        return f"{self._name}, {place.node[:8]}, {_where(place, lane)}, {signature}"

    def _release(self, key: str) -> None:
        spot = self._seats.pop(key, None)
        entry = self._hosts.get(spot) if spot else None
        if entry is not None:
            entry.trials.discard(key)
            entry.idle_since = time.monotonic()

    async def _account(self, entry: _Entry) -> Account | None:
        try:
            account: Account = await entry.handle.account.remote()
        except RayError:
            return None
        return account

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for spot, entry in list(self._hosts.items()):
                if not entry.trials and time.monotonic() - entry.idle_since > LINGER_SECONDS:
                    del self._hosts[spot]  # first, so that no trial is seated while the account is fetched
                    account = await self._account(entry)
                    if account is not None:
                        self._accounts.append(account)
                    ray.kill(entry.handle)


def _draws(config: Mapping[str, Any]) -> int | None:
    """Return the number of label draws that a trial trains in turn until its goal; None if it trains them at once."""
    epochs: int = config["settings"]["training"]["epochs"]
    return -(-config["until"] // epochs) if config["in_turn"] else None


def _where(place: Place, lane: int) -> str:
    if place.gpu:
        return f"GPU {place.gpu}" + (f" part {lane}" if lane else "")
    return f"lane {lane}"


@cache
def _cores(node: str) -> float:
    for one in ray.nodes():  # type: ignore[no-untyped-call]
        if one["NodeID"] == node:
            return float(one["Resources"].get("CPU", 1.0))
    return 1.0


def open_desk(
    kind: type[Desk], dataset: Dataset, how: Mapping[str, Any], *, name: str, share: tuple[float, float]
) -> Any:
    """Start a desk on this node, owned by this process, and return its handle; arguments as for ``Desk``."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk: Any = ray.remote(kind).options(name=name, num_cpus=0, max_concurrency=1000, scheduling_strategy=here)
    return desk.remote(name, [ray.put(dataset)], how, share)


class HostSeat:
    """A seat on the host assigned by the desk; see ``trainables.seat.Seat``."""

    def __init__(self, desk: str) -> None:
        self._desk = ray.get_actor(desk)
        self._host: Any = None

    @property
    def taken(self) -> bool:
        return self._host is not None

    def take(self, config: dict[str, Any]) -> None:
        self.leave()
        self._key, self._config = config["key"], config

    def load(self, folder: Path) -> int:
        return self._sit(str(folder))

    def train(self, until: int, stop: Callable[[], bool]) -> Stretch:
        if not self.taken:
            try:
                self._sit("")
            except (MemoryError, ResourceError) as error:
                return Stretch(epoch=0, step=0, history=[], refused=str(getattr(error, "cause", error)))
        with self._lost_with_its_host():
            answer, stopping = self._host.train.remote(self._key, until), False
            while not ray.wait([answer], timeout=0.5)[0]:
                if stop() and not stopping:
                    self._host.hurry.remote(self._key)
                    stopping = True
            stretch: Stretch = ray.get(answer)
        if stretch.refused:
            self._host = None
        return stretch

    def save(self, folder: Path) -> None:
        if not self.taken:
            self._sit("")
        with self._lost_with_its_host():
            ray.get(self._host.save.remote(self._key, str(folder)))

    def leave(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            with suppress(RayError):  # the host is gone, and with it the seat
                ray.get([host.leave.remote(self._key), self._desk.vacate.remote(self._key)], timeout=60)

    def _sit(self, checkpoint: str) -> int:
        self.leave()
        config = self._config
        context = ray.get_runtime_context()
        place = Place(context.get_node_id(), ",".join(context.get_accelerator_ids().get("GPU", ())))
        host: Any = ray.get(self._desk.seat.remote(self._key, place, config["signature"], config["seats"]))
        with self._lost_with_its_host():
            epoch: int = ray.get(
                host.seat.remote(
                    self._key, config["settings"], config["compiled"], checkpoint, os.getpid(), _draws(config)
                )
            )
        self._host = host
        return epoch

    @contextmanager
    def _lost_with_its_host(self) -> Iterator[None]:
        try:
            yield
        except RayActorError as error:
            self._host = None
            self._desk.vacate.remote(self._key)
            # Tune treats an actor error of the host as the death of the trial's own actor.
            raise SeatLostError(
                f"the process that trained {self._key} has died; the trial restarts from its checkpoint."
            ) from error
