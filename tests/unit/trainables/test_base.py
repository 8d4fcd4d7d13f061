"""The Ray side of a trial, without a cluster: its reports, reuse, checkpoints and failures."""

from __future__ import annotations

import copy
import errno
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.errors import CheckpointError
from ladder_search.studies import STUDIES
from ladder_search.training.memory import out_of_memory
from ladder_search.training.pack import Pack
from trainables import PackTrainable, host
from trainables.base import MachineGoesError
from trainables.host import Host, OwnSeat
from trainables.seat import Stretch

SMALL = {
    "model": {"widths": [64, 20, 10], "noise_std": [0.3] * 3, "lambda_": [1000.0, 10.0, 0.1]},
    "training": {"epochs": 7},
}


def _config(every: int = 3, **changed: Any) -> dict[str, Any]:
    settings = merge(merge(STUDIES["digits-100"].trial().as_mapping(), SMALL), changed)
    how = {"compiled": False, "report_every": every, "report_at": [], "threads": 1, "device": "cpu", "start": None}
    how |= {"share": None, "in_turn": False, "until": settings["training"]["epochs"]}
    return {"search": "a", "key": "t0000", "settings": settings, "desk": None, "keeper": None, **how}


def _trainable(config: dict[str, Any]) -> PackTrainable:
    """An instance as Ray's actor has it after its construction."""
    trainable = PackTrainable.__new__(PackTrainable)
    trainable._storage = trainable._last_result = None
    trainable.setup(copy.deepcopy(config), dataset=datasets.load("digits"))
    return trainable


@pytest.fixture(autouse=True)
def _sigterm() -> Iterator[None]:
    """A trainable takes the signal for itself, as befits a process of its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _to_the_end(trainable: PackTrainable) -> list[dict[str, Any]]:
    results = [trainable.step()]
    while not results[-1]["done"]:
        results.append(trainable.step())
    return results


def _numbers(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that a trial reports, apart from the time it took."""
    return [{name: v for name, v in row.items() if name != "step_time_ms"} for r in results for row in r["history"]]


def _host(trainable: PackTrainable) -> Host:
    assert isinstance(trainable._seat, OwnSeat)
    return trainable._seat.host


def _weights(trainable: PackTrainable) -> dict[str, torch.Tensor]:
    host = _host(trainable)
    assert host.pack is not None
    return host.pack.state(host._guests["t0000"].slots[0]).params


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_trial_requests_what_the_search_or_its_family_says() -> None:
    config = _config()
    assert PackTrainable.default_resource_request(config).bundles == [{"CPU": 1.0}]
    on_a_gpu = {**config, "device": "cuda"}
    assert PackTrainable.default_resource_request(on_a_gpu).bundles == [{"CPU": 1.0, "GPU": 1.0}]
    shared = {**on_a_gpu, "share": {"CPU": 0.25, "GPU": 0.125}}
    assert PackTrainable.default_resource_request(shared).bundles == [{"CPU": 0.25, "GPU": 0.125}]
    assert PackTrainable.default_resource_request({**config, "share": {"CPU": 2.0, "GPU": 0.0}}).bundles == [{"CPU": 2}]


def test_a_trial_reports_every_epoch_once_and_ends_with_its_budget() -> None:
    results = _to_the_end(_trainable(_config()))
    assert [result["epoch"] for result in results] == [3, 6, 7]
    assert [row["epoch"] for row in _numbers(results)] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["step"] for row in _numbers(results)] == [10, 20, 30, 40, 50, 60, 70]
    assert [result["done"] for result in results] == [False, False, True]
    assert not any(result["diverged"] for result in results)
    row = results[-1]["history"][-1]
    assert set(row) == {
        "epoch", "step", "validation_error", "learning_rate", "step_time_ms", "cost", "cost_supervised",
        "cost_denoising_0", "cost_denoising_1", "cost_denoising_2",
    }  # fmt: skip
    parts = [row[name] for name in row if name.startswith("cost_")]
    assert row["cost"] == pytest.approx(sum(parts), rel=1e-5)
    assert all(results[-1][name] == value for name, value in row.items())
    assert 0.0 < row["validation_error"] < 0.9 and round(row["validation_error"] * 297, 6).is_integer()
    # Decay from 0.67 of 7 epochs: constant while 4.69 are not completed, then 0.002 (7 - e) / (7 - 4.69).
    assert [r["learning_rate"] for r in _numbers(results)[3:]] == pytest.approx(
        [0.002, 0.002, 0.002 * 2 / 2.31, 0.002 * 1 / 2.31]
    )


def test_reports_come_at_rungs_too_and_change_no_number() -> None:
    results = _to_the_end(_trainable({**_config(), "report_at": [2, 3, 5, 9]}))
    assert [result["epoch"] for result in results] == [2, 3, 5, 6, 7]
    assert _numbers(results) == _numbers(_to_the_end(_trainable(_config())))


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"seed": 5, "training": {"lr": 0.004}},
        {"training": {"lr": 1.0}, "model": {"lambda_": [1e7, 1e7, 1e7], "noise_std": [10.0] * 3}},
        {"model": {"combinator": "vanilla"}},
        {"draws": 2},
        {"data": {"labels": 50}},
    ],
    ids=["the same", "another seed and rate", "a diverging one", "another program", "more draws", "fewer labels"],
)
def test_a_reused_process_trains_like_a_fresh_one(before: dict[str, Any]) -> None:
    fresh = _trainable(_config(seed=2))
    expected = _to_the_end(fresh)
    reused = _trainable(_config(**before))
    reused.step()
    assert reused.reset_config(_config(seed=2)) is True
    assert _numbers(_to_the_end(reused)) == _numbers(expected)
    assert _same(_weights(reused), _weights(fresh))


@pytest.mark.parametrize("draws", [1, 2])
def test_a_trial_goes_on_elsewhere_as_if_nothing_had_happened(draws: int, tmp_path: Path) -> None:
    whole = _trainable(_config(draws=draws))
    expected = _to_the_end(whole)
    first = _trainable(_config(draws=draws))
    first.step()
    first.save_checkpoint(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"member-{i}" for i in range(draws)), "trial.json"]
    other = _trainable({**_config(draws=draws), "search": "b"})
    with pytest.raises(CheckpointError, match="is of another one"):
        other.load_checkpoint(str(tmp_path))
    second = _trainable(_config(seed=9))  # a process that was busy with something else
    second.step()
    second.reset_config(_config(draws=draws))
    second.load_checkpoint(str(tmp_path))
    assert _numbers(_to_the_end(second)) == _numbers(expected[1:])
    assert _same(_weights(second), _weights(whole))


def test_a_checkpoint_with_new_settings_goes_on_under_them(tmp_path: Path) -> None:
    """What population based training does: the other trial's weights, its own parameters."""
    first = _trainable(_config())
    first.step()
    first.save_checkpoint(str(tmp_path))
    second = _trainable(_config(training={"lr": 0.0}))
    second.load_checkpoint(str(tmp_path))
    result = second.step()
    assert [row["epoch"] for row in result["history"]] == [4, 5, 6]
    assert _same(_weights(second), _weights(first))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    first = _trainable(_config())
    first.save_checkpoint(str(tmp_path))
    second = _trainable(_config(model={"widths": [64, 21, 10]}))
    with pytest.raises(CheckpointError):
        second.load_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError):
        _trainable(_config(draws=2)).load_checkpoint(str(tmp_path))


def test_several_draws_report_their_mean() -> None:
    both = _numbers(_to_the_end(_trainable(_config(draws=2))))
    singles = [_numbers(_to_the_end(_trainable(_config(seed=1 + draw, label_seed=1 + draw)))) for draw in range(2)]
    for together, *alone in zip(both, *singles, strict=True):
        assert together["step"] == alone[0]["step"]
        assert together["validation_error"] == pytest.approx(
            sum(row["validation_error"] for row in alone) / 2, abs=1.01 / 297
        )
        assert together["cost"] == pytest.approx(sum(row["cost"] for row in alone) / 2, rel=1e-3)


def test_a_diverged_trial_says_so_ends_and_leaves_nothing_behind() -> None:
    trainable = _trainable(_config(every=4))
    trainable.step()
    pack = _host(trainable).pack
    assert pack is not None
    next(iter(pack._params.values())).fill_(math.inf)  # what a rate that is too high ends in
    result = trainable.step()
    assert result["diverged"] and result["done"]
    assert math.isnan(result["validation_error"])
    assert [row["epoch"] for row in result["history"]] == [5]
    assert trainable.reset_config(_config())
    assert _numbers(_to_the_end(trainable)) == _numbers(_to_the_end(_trainable(_config())))


def test_a_notice_to_leave_is_heeded_where_it_costs_nothing(tmp_path: Path) -> None:
    whole = _to_the_end(_trainable(_config()))
    leaving = _trainable(_config())
    interval = Host.interval

    def told_in_the_first_epoch(host: Host) -> dict[str, Stretch]:
        signal.raise_signal(signal.SIGTERM)
        return interval(host)

    with patch.object(Host, "interval", told_in_the_first_epoch):
        result = leaving.step()
    assert signal.getsignal(signal.SIGTERM) == leaving._notice._usual  # a second one ends it at once
    assert result["epoch"] == 1 and result["should_checkpoint"] and not result["done"]
    assert leaving.step()["epoch"] == 2  # what is in no checkpoint is not left behind
    leaving.save(str(tmp_path))
    with pytest.raises(MachineGoesError, match="from epoch 2"):
        leaving.step()
    leaving.save_checkpoint(str(tmp_path))
    elsewhere = _trainable(_config())
    elsewhere.load_checkpoint(str(tmp_path))
    assert _numbers(_to_the_end(elsewhere)) == _numbers(whole)[2:]


@pytest.mark.parametrize("widths", [[64, 10**13, 10], [64, 10**18, 10]], ids=["no memory", "no such number"])
def test_what_does_not_fit_into_memory_fails_with_its_reason_and_hurts_no_other(widths: list[int]) -> None:
    trainable = _trainable(_config(model={"widths": widths}))
    result = trainable.step()
    assert result["diverged"] and result["done"] and result["history"] == [] and math.isnan(result["validation_error"])
    assert result["reason"].startswith("out of memory: ")
    assert trainable.save().checkpoint is None
    assert trainable.reset_config(_config())
    assert _numbers(_to_the_end(trainable)) == _numbers(_to_the_end(_trainable(_config())))


def test_another_error_is_no_lack_of_memory() -> None:
    trainable = _trainable(_config())
    broken = patch.object(Pack, "run", side_effect=RuntimeError("an illegal memory access was encountered"))
    with broken, pytest.raises(RuntimeError, match="illegal"):
        trainable.step()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"), "2.00 GiB"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "7.45 GiB"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "the required amount"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. "), "8 b"),
    ],
)
def test_every_lack_of_memory_is_told_in_the_same_words(error: Exception, reason: str) -> None:
    assert (out_of_memory(error) or "").startswith(f"out of memory: {reason}")


def test_a_disk_that_takes_nothing_costs_a_checkpoint_and_not_the_trial(tmp_path: Path) -> None:
    trainable = _trainable(_config())
    trainable.step()
    with patch.object(host, "write_member", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        assert trainable.save().checkpoint is None
    trainable.step()
    trainable.load_checkpoint(trainable.save(str(tmp_path)).checkpoint.path)
    assert _numbers(_to_the_end(trainable)) == _numbers(_to_the_end(_trainable(_config())))[6:]
