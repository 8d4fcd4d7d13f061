"""A pack that trials share, without Ray: each trains as if alone, whoever comes, goes, fails or waits beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.training import stepping
from ladder_search.training.checkpoint import read_member
from ladder_search.training.pack import MemberState, Pack
from ladder_search.trial import TrialSpec
from tests.unit.trainables.hosts import (
    FIRST,
    SECOND,
    THIRD,
    assert_agree,
    new_host,
    rows_alone,
    run_until,
    trial_settings,
)
from trainables.host import Host

pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def _two_on_their_way() -> Host:
    """A host with two trials, one epoch into five."""
    host = new_host(2)
    host.seat("a", FIRST, compiled=False)
    host.seat("b", SECOND, compiled=False)
    host.head_for("a", 5)
    host.head_for("b", 5)
    host.interval()
    return host


def test_trials_with_goals_of_their_own_train_as_alone() -> None:
    host = new_host(3)
    for key, settings in (("a", FIRST), ("b", SECOND), ("c", THIRD)):
        assert host.seat(key, settings, compiled=False) == 0
    assert host.full and not host.busy
    host.head_for("a", 2)
    host.head_for("b", 5)
    assert host.interval() == {}
    arrived = host.interval()
    assert set(arrived) == {"a"} and (arrived["a"].epoch, arrived["a"].step) == (2, 20)
    assert_agree(arrived["a"].history, rows_alone(FIRST, 2))
    host.head_for("c", 1)  # a is not told to go on: it stands still while the others train
    assert set(host.interval()) == {"c"}
    b = run_until(host, "b")
    assert_agree(b.history, rows_alone(SECOND, 5))
    host.head_for("a", 4)
    assert_agree(run_until(host, "a").history, rows_alone(FIRST, 4)[2:])
    assert not host.busy


def test_a_freed_seat_is_taken_again_and_a_late_trial_trains_as_alone() -> None:
    host = new_host(2)
    host.seat("a", FIRST, compiled=False)
    host.seat("b", SECOND, compiled=False)
    pack = host.pack
    host.head_for("a", 4)
    host.head_for("b", 2)
    run_until(host, "b")
    host.unseat("b")
    host.unseat("b")  # it is gone: nothing happens
    host.seat("c", THIRD, compiled=False)
    assert host.pack is pack  # refilled in place: nothing is built or compiled again
    host.head_for("c", 5)
    assert_agree(run_until(host, "a").history, rows_alone(FIRST, 4))
    assert_agree(run_until(host, "c").history, rows_alone(THIRD, 5))


def test_a_trial_moves_from_host_to_host_by_its_checkpoint(tmp_path: Path) -> None:
    here, there = new_host(2), new_host(4)
    here.seat("a", FIRST, compiled=False)
    here.head_for("a", 3)
    run_until(here, "a")
    here.save("a", tmp_path)
    there.seat("b", SECOND, compiled=False)
    assert there.seat("a", FIRST, compiled=False, checkpoint=tmp_path) == 3
    there.head_for("a", 7)
    there.head_for("b", 7)
    assert_agree(run_until(there, "a").history, rows_alone(FIRST, 7)[3:])


def _states(host: Host, key: str) -> list[MemberState]:
    assert host.pack is not None
    return [host.pack.state(slot) for slot in host._guests[key].slots]


def _same(ours: list[MemberState], theirs: list[MemberState]) -> bool:
    """Whether two trials agree in every bit."""
    return len(ours) == len(theirs) and all(
        a.step == b.step
        and all(
            getattr(a, part).keys() == getattr(b, part).keys()
            and all(
                torch.equal(tensor.cpu(), getattr(b, part)[name].cpu()) for name, tensor in getattr(a, part).items()
            )
            for part in ("params", "first", "second", "carried")
        )
        for a, b in zip(ours, theirs, strict=True)
    )


def _without_tensors(checkpoint: Path) -> Path:
    """Make sure that nobody reads the tensors of a checkpoint."""
    for tensors in checkpoint.glob("*/tensors.safetensors"):
        tensors.unlink()
    return checkpoint


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
@pytest.mark.parametrize("draws", [1, 2])
def test_an_exploit_is_a_copy_on_the_device_with_the_bits_of_the_checkpoint(
    draws: int, device: str, tmp_path: Path
) -> None:
    """In population based training a trial goes on from another's checkpoint, under settings of its own."""

    def exploit(snapshots: int, folder: Path) -> Host:
        host = new_host(2, snapshots, device)
        host.seat("winner", trial_settings(draws=draws), compiled=False)
        host.seat("loser", trial_settings(draws=draws, seed=2), compiled=False)
        host.head_for("winner", 3)
        host.head_for("loser", 5)
        run_until(host, "winner")
        host.save("winner", folder)
        host.head_for("winner", 5)  # it does not wait for anybody to copy it
        run_until(host, "loser")
        written = [read_member(folder / f"member-{draw}")[0] for draw in range(draws)]
        if snapshots:
            _without_tensors(folder)
        before = _states(host, "winner")
        host.unseat("loser")
        assert (
            host.seat(
                "loser", trial_settings(draws=draws, seed=2, training={"lr": 0.004}), compiled=False, checkpoint=folder
            )
            == 3
        )
        assert _same(_states(host, "loser"), written) and not _same(written, before)
        assert _same(_states(host, "winner"), before), "the winner has lost something"
        return host

    copied, read = exploit(2, tmp_path / "a"), exploit(0, tmp_path / "b")
    assert (copied.copied, copied.read, read.copied, read.read) == (1, 0, 0, 1)
    for host in (copied, read):
        host.head_for("winner", 7)
        host.head_for("loser", 6)
    rows = [run_until(host, "loser").history for host in (copied, read)]
    strip = [[{name: v for name, v in row.items() if name != "step_time_ms"} for row in history] for history in rows]
    assert strip[0] == strip[1]
    for key in ("winner", "loser"):
        assert _same(_states(copied, key), _states(read, key))


def test_a_trial_that_comes_back_finds_itself_on_the_device(tmp_path: Path) -> None:
    host = new_host(2, snapshots=2)
    host.seat("a", FIRST, compiled=False)
    host.head_for("a", 2)
    run_until(host, "a")
    host.save("a", tmp_path)
    written = _states(host, "a")
    host.unseat("a")
    assert host.seat("a", FIRST, compiled=False, checkpoint=_without_tensors(tmp_path)) == 2
    assert _same(_states(host, "a"), written)
    assert (host.copied, host.read) == (0, 0), "it has copied nobody else"


def test_what_is_not_on_the_device_any_more_is_read(tmp_path: Path) -> None:
    host, elsewhere = new_host(3, snapshots=1), new_host(3, snapshots=1)
    for key, settings in (("a", FIRST), ("b", SECOND)):
        host.seat(key, settings, compiled=False)
        host.head_for(key, 1)
        run_until(host, key)
        host.save(key, tmp_path / key)
    for place, key, counts in ((host, "a", (0, 1)), (host, "b", (1, 1)), (elsewhere, "b", (0, 1))):
        place.seat("c", THIRD, compiled=False, checkpoint=tmp_path / key)
        assert _same(_states(place, "c"), _states(host, key))
        assert (place.copied, place.read) == counts
        place.unseat("c")


def test_another_signature_reads_and_is_refused_as_ever(tmp_path: Path) -> None:
    host = new_host(1, snapshots=1)
    host.seat("a", FIRST, compiled=False)
    host.save("a", tmp_path)
    host.unseat("a")
    with pytest.raises(CheckpointError, match="must fit its model"):
        host.seat("b", trial_settings(model={"widths": [64, 21, 10]}), compiled=False, checkpoint=tmp_path)
    host.seat("c", FIRST, compiled=False, checkpoint=tmp_path)
    assert (host.copied, host.read) == (1, 1), "the copy of a went with its pack"


def test_a_device_that_is_full_costs_no_checkpoint(tmp_path: Path) -> None:
    host, copy = new_host(2, snapshots=2), Pack.state

    def full(pack: Pack, slot: int, *, device: torch.device | None = None) -> MemberState:
        if device is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total")
        return copy(pack, slot)

    host.seat("a", FIRST, compiled=False)
    with patch.object(Pack, "state", full):
        host.save("a", tmp_path)
    host.seat("b", SECOND, compiled=False, checkpoint=tmp_path)
    assert _same(_states(host, "b"), _states(host, "a"))
    with patch.object(Pack, "state", side_effect=RuntimeError("an illegal memory access")), pytest.raises(RuntimeError):
        host.save("a", tmp_path)


def test_on_music_a_trial_is_judged_by_its_best_epoch_wherever_it_was(tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    pieces = {
        part: tuple((draws.random((steps, KEYS)) < 0.05).astype(np.uint8) for steps in lengths)
        for part, lengths in {"train": (9, 30, 17), "valid": (14, 8), "test": (20,)}.items()
    }
    corpus = as_dataset(MusicCorpus(name="jsb-chorales", **pieces, digest="d" * 64))
    settings = {
        "family": "sequence",
        "data": {"dataset": "jsb-chorales", "labels": None, "validation": 2},
        "model": {"hidden": 30, "dropout": 0.0},
        "training": {"epochs": 60, "labelled_batch": 3, "window": 8, "lr": 0.05},
    }
    here, there = (Host(corpus, trials=1, device=torch.device("cpu")) for _ in range(2))
    here.seat("a", settings, compiled=False)
    here.head_for("a", 40)
    rows = run_until(here, "a").history
    here.save("a", tmp_path)
    assert there.seat("a", settings, compiled=False, checkpoint=tmp_path) == 40
    there.head_for("a", 45)
    rows += run_until(there, "a").history
    own = [row["validation_nll"] for row in rows]
    assert [row["validation_error"] for row in rows] == np.minimum.accumulate(own).tolist()
    assert min(own[40:]) > min(own), "notes of a coin are learned by heart, so that the later epochs are worse"


def test_a_diverged_trial_ends_and_its_neighbour_never_notices() -> None:
    host = _two_on_their_way()
    assert host.pack is not None
    next(iter(host.pack._params.values()))[1].fill_(math.inf)
    lost = host.interval()
    assert set(lost) == {"b"} and lost["b"].diverged and lost["b"].epoch == 2
    assert math.isnan(lost["b"].history[-1]["validation_error"])
    assert_agree(run_until(host, "a").history, rows_alone(FIRST, 5))  # with b's infinite numbers still in the pack


def test_a_trial_in_a_hurry_ends_its_stretch_where_it_is() -> None:
    host = new_host(2)
    host.seat("a", FIRST, compiled=False)
    assert host.hurry("a") is None and host.hurry("nobody") is None  # no stretch, nothing to end
    host.head_for("a", 6)
    assert host.hurry("a") is None  # it has trained nothing: one epoch more
    assert host.interval()["a"].epoch == 1
    host.head_for("a", 6)
    host.interval()
    host.interval()
    stretch = host.hurry("a")
    assert stretch is not None and stretch.epoch == 3 and [row["epoch"] for row in stretch.history] == [2, 3]
    assert not host.busy
    host.head_for("a", 4)
    assert [row["epoch"] for row in host.interval()["a"].history] == [4]


def test_several_draws_take_a_slot_each() -> None:
    host = new_host(2)
    both = trial_settings(draws=2)
    host.seat("a", both, compiled=False)
    host.seat("b", trial_settings(draws=2, seed=7), compiled=False)
    assert host.pack is not None and host.pack.slots == 4
    host.head_for("a", 3)
    assert_agree(run_until(host, "a").history, rows_alone(both, 3))


def test_what_does_not_fit_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    host = new_host(2)
    host.seat("a", FIRST, compiled=False)
    with pytest.raises(SettingError, match="share one signature"):
        host.seat("b", trial_settings(model={"widths": [64, 21, 10]}), compiled=False)
    host.head_for("a", 1)
    run_until(host, "a")
    host.save("a", tmp_path)
    (tmp_path / "member-0" / "tensors.safetensors").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError):
        host.seat("b", SECOND, compiled=False, checkpoint=tmp_path)
    assert set(host.guests) == {"a"} and host.pack is not None and host.pack.active == [0]
    host.seat("b", SECOND, compiled=False)
    with pytest.raises(SettingError, match="all 2 slots"):
        host.seat("c", THIRD, compiled=False)


def test_the_pack_of_another_signature_takes_the_place_of_an_empty_one() -> None:
    host = new_host(2)
    host.seat("a", FIRST, compiled=False)
    host.unseat("a")
    host.seat("b", trial_settings(model={"decoder": "none", "lambda_": [0.0] * 3}), compiled=False)
    host.head_for("b", 1)
    assert "cost_denoising_0" not in run_until(host, "b").history[0]


def test_without_memory_every_trial_is_told_what_it_did_and_the_next_builds_anew() -> None:
    host = _two_on_their_way()
    full = patch.object(Pack, "run", side_effect=MemoryError("Unable to allocate 7.45 GiB for an array"))
    with full, pytest.raises(MemoryError):
        host.interval()
    ended = host.give_up("out of memory: 7.45 GiB could not be allocated")
    assert {key: (one.epoch, one.step, len(one.history)) for key, one in ended.items()} == {
        "a": (1, 10, 1), "b": (1, 10, 1)
    }  # fmt: skip
    assert all(one.refused.startswith("out of memory: 7.45") for one in ended.values())
    assert not host.guests and host.pack is None
    host.seat("c", THIRD, compiled=False)
    host.head_for("c", 2)
    assert_agree(run_until(host, "c").history, rows_alone(THIRD, 2))


def test_a_step_that_cannot_be_compiled_trains_as_it_is_and_the_trial_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was mounted noexec, or a full disk: before, every trial crashed after a minute of compiling."""

    def fail(*_: Any) -> Any:
        raise OSError("failed to map segment from shared object: Operation not permitted")

    monkeypatch.setattr(stepping, "compile_ahead", fail)
    host = new_host(1)
    host.seat("t", trial_settings(), compiled=True)
    host.head_for("t", 2)
    with pytest.warns(RuntimeWarning, match="steps are not compiled"):
        found = run_until(host, "t")
    assert found.note.startswith("steps are not compiled, which failed: failed to map segment")
    assert_agree(found.history, rows_alone(trial_settings(), 2))


def test_a_trial_with_folds_reports_the_mean_over_the_folds_and_continues_from_its_checkpoint(tmp_path: Path) -> None:
    data = {"validation": 0, "folds": 3, "measure": "balanced-error", "batches": "balanced"}
    settings = trial_settings(data=data, draws=3, training={"epochs": 3, "unlabelled_batch": 300})
    host = new_host(2)
    host.seat("t", settings, compiled=False)
    host.head_for("t", 2)
    history = run_until(host, "t").history
    pack = host.pack
    assert pack is not None and len(pack.active) == 3
    held_out = [TrialSpec.from_mapping(settings).member(datasets.load("digits"), draw).split for draw in range(3)]
    assert sorted(len(split.validation) for split in held_out) == [33, 33, 34]
    assert len(set(np.concatenate([split.validation for split in held_out]))) == 100
    by_fold = list(pack.validation_scores().values())
    means = {name: sum(scores[name] for scores in by_fold) / 3 for name in by_fold[0]}
    assert list(means) == ["balanced_error", "error", "log_loss"]
    assert history[-1]["validation_error"] == pytest.approx(means["balanced_error"])
    assert history[-1]["validation_classification_error"] == pytest.approx(means["error"])
    assert (
        history[-1]["validation_log_loss"] == pytest.approx(means["log_loss"]) and means["error"] != means["log_loss"]
    )
    host.save("t", tmp_path)
    again = new_host(1)
    assert again.seat("t", settings, compiled=False, checkpoint=tmp_path) == 2
    host.head_for("t", 3)
    again.head_for("t", 3)
    assert_agree(run_until(again, "t").history, run_until(host, "t").history)
