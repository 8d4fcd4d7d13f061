"""The actor that owns a pack and the desk that seats trials, without a cluster: their loops, threads and clocks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.errors import CheckpointError
from ladder_search.studies import STUDIES
from ladder_search.training.pack import Pack
from trainables import desk as desk_module
from trainables.desk import Desk, Place
from trainables.pack_host import Account, PackHost, SeatLostError
from trainables.seat import Stretch

SMALL = {
    "model": {"widths": [64, 20, 10], "noise_std": [0.3] * 3, "lambda_": [1000.0, 10.0, 0.1]},
    "training": {"epochs": 9},
}
OWN = os.getpid()


def _settings(**changed: Any) -> dict[str, Any]:
    return merge(merge(STUDIES["digits-100"].trial().as_mapping(), SMALL), changed)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> PackHost:
    """A host with two seats, in this process."""
    monkeypatch.setattr(ray, "get", lambda reference: datasets.load("digits"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    how = {"trials": 2, "threads": 1, "device": "cpu"}
    return PackHost([None], how, Account(node="n", place="lane 0", signature="s", trials=2), "")  # type: ignore[list-item]


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def _sit(host: PackHost, key: str, *, process: int = OWN, checkpoint: str = "", **changed: Any) -> int:
    return await host.seat(key, _settings(**changed), False, checkpoint, process)


def test_trials_train_together_each_to_its_own_goal(host: PackHost) -> None:
    async def search() -> list[Stretch]:
        await asyncio.gather(_sit(host, "a"), _sit(host, "b", seed=2))
        return await asyncio.gather(host.train("a", 3), host.train("b", 5))

    a, b = _run(search())
    assert (a.epoch, a.step, len(a.history)) == (3, 30, 3) and (b.epoch, b.step, len(b.history)) == (5, 50, 5)
    account = _run(host.account())
    assert (account.intervals, account.trial_intervals, account.seated) == (5, 8, 2)


def test_those_that_have_just_reported_are_waited_for(host: PackHost) -> None:
    async def report_every_epoch(key: str) -> None:
        for epoch in range(1, 9):
            await host.train(key, epoch)
            await asyncio.sleep(0.02)  # the way to the scheduler and back

    async def search() -> Account:
        await asyncio.gather(_sit(host, "a"), _sit(host, "b", seed=2))
        await asyncio.gather(report_every_epoch("a"), report_every_epoch("b"))
        return await host.account()

    account = _run(search())
    assert account.trial_intervals == 16
    assert account.intervals <= 10, "the pack fell into halves that trained in turns"


def test_nobody_waits_for_a_trial_that_does_not_come_back(host: PackHost) -> None:
    async def search() -> Stretch:
        await asyncio.gather(_sit(host, "a"), _sit(host, "b", seed=2))
        await asyncio.gather(host.train("a", 1), host.train("b", 1))
        return await asyncio.wait_for(host.train("b", 9), 20)  # a is being judged, or saved, or gone

    assert _run(search()).epoch == 9


def test_a_full_host_frees_the_seats_of_the_dead_and_no_others(host: PackHost) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()

    async def search() -> None:
        await asyncio.gather(_sit(host, "a"), _sit(host, "b", process=gone.pid))
        assert await _sit(host, "c") == 0
        with pytest.raises(SeatLostError, match="at most 2 trials"):
            await _sit(host, "d")
        with pytest.raises(SeatLostError, match="b has lost its slot"):
            await host.train("b", 1)
        assert (await host.train("a", 1)).epoch == 1
        await host.leave("a")
        await _sit(host, "d")

    _run(search())


def test_a_trial_comes_back_from_its_checkpoint(host: PackHost, tmp_path: Path) -> None:
    async def search() -> Stretch:
        await _sit(host, "a")
        await host.train("a", 4)
        await host.save("a", str(tmp_path))
        await host.train("a", 6)
        assert await _sit(host, "a", checkpoint=str(tmp_path)) == 4  # in its old place: it is nobody else's
        return await host.train("a", 6)

    assert [row["epoch"] for row in _run(search()).history] == [5, 6]


def test_an_exploit_in_the_same_pack_reads_no_file_and_is_accounted_for(host: PackHost, tmp_path: Path) -> None:
    host._how = {**host._how, "copies": True}

    async def search() -> Account:
        await asyncio.gather(_sit(host, "a"), _sit(host, "b", seed=2))
        await host.train("a", 2)
        await host.save("a", str(tmp_path))
        (tmp_path / "member-0" / "tensors.safetensors").unlink()
        await host.leave("b")
        assert await _sit(host, "b", checkpoint=str(tmp_path), seed=2) == 2
        assert (await host.train("b", 3)).epoch == 3
        return await host.account()

    account = _run(search())
    assert (account.seated, account.copied, account.read) == (3, 1, 0)


def test_what_is_wrong_with_one_call_is_told_to_its_caller_alone(host: PackHost, tmp_path: Path) -> None:
    async def search() -> Stretch:
        await _sit(host, "a")
        with pytest.raises(CheckpointError):
            await _sit(host, "b", checkpoint=str(tmp_path / "none"))
        with pytest.raises(OSError):
            await host.save("a", "/proc/nowhere")
        return await host.train("a", 2)

    assert _run(search()).epoch == 2


def test_a_hurry_ends_a_stretch(host: PackHost) -> None:
    async def search() -> Stretch:
        await _sit(host, "a")
        training = asyncio.create_task(host.train("a", 9_000_000))
        await asyncio.sleep(0.3)
        await host.hurry("a")
        return await training

    stretch = _run(search())
    assert 1 <= stretch.epoch == len(stretch.history) < 9_000_000


def test_without_memory_all_trials_are_told(host: PackHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")

    async def search() -> list[Stretch]:
        await asyncio.gather(_sit(host, "a"), _sit(host, "b", seed=2))
        await host.train("a", 1)
        with monkeypatch.context() as patched:
            patched.setattr(Pack, "run", full)
            ended = await asyncio.gather(host.train("a", 2), host.train("b", 2))
        await _sit(host, "c")
        assert (await host.train("c", 1)).epoch == 1
        return ended

    a, b = _run(search())
    assert a.refused == b.refused == "out of memory: the required amount could not be allocated"
    assert (a.epoch, b.epoch) == (1, 0)


class _Call:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def remote(self, *arguments: Any) -> Any:
        async def call() -> Any:
            if isinstance(self._answer, Exception):
                raise self._answer
            return self._answer

        return call()


class _Handle:
    """An actor that answers, until it is dead."""

    def __init__(self) -> None:
        self.dead = False

    @property
    def ping(self) -> _Call:
        return _Call(RayActorError() if self.dead else 1)

    @property
    def account(self) -> _Call:
        return _Call(Account(node="n", place="lane 0", signature="s", trials=2))


class _Desk(Desk):
    """Its hosts are handles alone."""

    def __init__(self, cpus: float = 1.0, gpus: float = 1.0) -> None:
        super().__init__("desk", [], {"trials": 2}, (cpus, gpus))
        self.started: list[str] = []

    def _start(self, place: Place, lane: int, signature: str, seats: int) -> Any:
        self.started.append(self._host_name(place, lane, signature))
        self._hosts[place, lane, signature] = entry = desk_module._Entry(_Handle())
        return entry


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "_cores", lambda node: 2.0)


HERE, GPU_0, GPU_1 = Place("node-1", ""), Place("node-1", "0"), Place("node-1", "1")


def test_cores_fill_evenly_and_gpus_have_a_host_each() -> None:
    async def seats() -> list[Any]:
        desk = _Desk()
        on_cores = [await desk.seat(f"t{i}", HERE, "s", 2) for i in range(4)]
        assert on_cores[0] is on_cores[2] and on_cores[1] is on_cores[3] and on_cores[0] is not on_cores[1]
        on_gpus = [await desk.seat(f"g{i}", place, "s", 2) for i, place in enumerate((GPU_0, GPU_0, GPU_1))]
        assert on_gpus[0] is on_gpus[1] and on_gpus[1] is not on_gpus[2]
        other = await desk.seat("t9", GPU_0, "another signature", 2)
        assert other is not on_gpus[0]
        return desk.started

    assert _run(seats()) == [
        "desk, node-1, lane 0, s", "desk, node-1, lane 1, s", "desk, node-1, GPU 0, s", "desk, node-1, GPU 1, s",
        "desk, node-1, GPU 0, another signature",
    ]  # fmt: skip


def test_a_pack_of_several_cores_is_one_lane() -> None:
    async def seats() -> int:
        desk = _Desk(cpus=2.0)
        return len({id(await desk.seat(f"t{i}", HERE, "s", 2)) for i in range(3)})

    assert _run(seats()) == 1


def test_two_packs_may_share_a_gpu() -> None:
    async def seats() -> list[str]:
        desk = _Desk(gpus=0.5)
        handles = [await desk.seat(f"t{i}", GPU_1, "s", 2) for i in range(4)]
        assert len({id(handle) for handle in handles}) == 2 and handles[0] is handles[2]
        return desk.started

    assert _run(seats()) == ["desk, node-1, GPU 1, s", "desk, node-1, GPU 1 part 1, s"]


def test_a_dead_host_is_replaced() -> None:
    async def seats() -> None:
        desk = _Desk()
        first = await desk.seat("a", GPU_0, "s", 2)
        first.dead = True
        second = await desk.seat("b", GPU_0, "s", 2)
        assert second is not first and await desk.seat("a", GPU_0, "s", 2) is second
        assert await desk.hosts() == {"desk, node-1, GPU 0, s": ["a", "b"]}

    _run(seats())


def test_a_host_without_trials_is_kept_for_a_while_and_then_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(desk_module, "LINGER_SECONDS", 1.5)

    async def seats() -> None:
        desk = _Desk()
        first = await desk.seat("a", GPU_0, "s", 2)
        other = await desk.seat("b", GPU_1, "s", 2)
        await desk.vacate("a")
        assert await desk.seat("c", GPU_0, "s", 2) is first  # within its time
        await desk.vacate("c")
        await asyncio.sleep(4.0)
        assert killed == [first]
        assert len(await desk.accounts()) == 2  # what it did is not forgotten
        assert len(await desk.close()) == 2
        assert killed == [first, other]

    _run(seats())
