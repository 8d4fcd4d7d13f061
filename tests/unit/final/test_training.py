"""Final training on the digits, four epochs of a tiny ladder: the same numbers alone, together, and after a break."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ladder_search
from ladder_search.data.dataset import Dataset
from ladder_search.errors import CheckpointError, SettingError, StudyFolderError
from ladder_search.final import training as final
from ladder_search.final.folder import held
from ladder_search.final.results import FinalResult, read_result, write_result
from ladder_search.final.training import EpochReport, confirmation_seeds, train_final, tuning_seeds, worth_compiling
from ladder_search.models import FAMILIES
from ladder_search.record.trial import TrialRecord
from ladder_search.studies import Target, find_study
from ladder_search.training.pack import IntervalReport, Pack
from ladder_search.trial import TrialSpec

SEEDS = (1001, 1002, 1003)


class GoneError(Exception):
    """A machine that went away."""


def ticking(step: float = 1.0) -> Any:
    """A clock that goes on by ``step`` seconds at each look."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += step
        return now

    return clock


@pytest.fixture(scope="module")
def whole(dataset: Dataset, spec: TrialSpec) -> FinalResult:
    return train_final(spec, dataset, seeds=SEEDS, clock=ticking())


def same(found: FinalResult, expected: FinalResult) -> None:
    assert replace(found, seconds=0.0) == replace(expected, seconds=0.0)
    for seed, module in expected.modules.items():
        for name, value in module.state_dict().items():
            assert torch.equal(found.modules[seed].state_dict()[name], value), (
                seed,
                name,
            )


def poison(monkeypatch: pytest.MonkeyPatch, slot: int, step: int) -> None:
    """Make the member in ``slot`` diverge in the interval that begins at ``step``."""
    run = Pack.run

    def poisoned(self: Pack, steps: int) -> dict[int, IntervalReport]:
        if slot in self.active and self.state(slot).step == step:
            next(iter(self._params.values()))[slot].fill_(float("nan"))
        return run(self, steps)

    monkeypatch.setattr(Pack, "run", poisoned)


def test_the_whole_training_set_and_the_whole_schedule(whole: FinalResult, spec: TrialSpec, dataset: Dataset) -> None:
    assert whole.spec.data.validation == 0 and whole.spec.draws == 1
    assert [outcome.seed for outcome in whole.outcomes] == list(SEEDS)
    steps = len(dataset.train_y) // 200  # nothing is held out
    for outcome in whole.outcomes:
        assert [row["step"] for row in outcome.epochs] == [steps * epoch for epoch in (1, 2, 3, 4)]
        assert outcome.epochs[-1]["learning_rate"] < outcome.epochs[0]["learning_rate"] == 0.002
        assert "test_error" not in outcome.epochs[-1], "no curve was asked for"
    x = torch.from_numpy(dataset.test_x.copy()).float() / dataset.full_scale
    y = torch.from_numpy(dataset.test_y.copy()).long()
    for outcome in whole.outcomes:
        wrong = (whole.modules[outcome.seed](x).argmax(-1) != y).float().mean().item()
        assert outcome.test_error == pytest.approx(wrong, abs=1e-6), "the networks are those that were tested"
    assert len({outcome.test_error for outcome in whole.outcomes}) > 1


def test_the_same_again_and_each_seed_alone(whole: FinalResult, spec: TrialSpec, dataset: Dataset) -> None:
    other_seeds = replace(spec, seed=77, label_seed=78, draws=3)  # the configuration's own are not used
    same(train_final(other_seeds, dataset, seeds=SEEDS, clock=ticking()), whole)
    for seed, outcome in zip(SEEDS, whole.outcomes, strict=True):
        alone = train_final(spec, dataset, seeds=[seed])
        for name, value in alone.modules[seed].state_dict().items():
            torch.testing.assert_close(value, whole.modules[seed].state_dict()[name], rtol=1e-3, atol=1e-4)
        assert alone.outcomes[0].test_error == pytest.approx(outcome.test_error, abs=0.0041)  # 2 of 500 images


@pytest.mark.parametrize("end", [GoneError, KeyboardInterrupt])
def test_a_report_that_raises_ends_the_training_with_a_checkpoint(
    end: type[BaseException], whole: FinalResult, spec: TrialSpec, dataset: Dataset, tmp_path: Path
) -> None:
    def ending(progress: EpochReport) -> None:
        if progress.epoch == 3:
            raise end

    with pytest.raises(end):
        train_final(spec, dataset, seeds=SEEDS, folder=tmp_path / "final", report=ending)
    epochs: list[int] = []
    found = train_final(
        spec, dataset, seeds=SEEDS, folder=tmp_path / "final", report=lambda progress: epochs.append(progress.epoch)
    )
    assert epochs == [4]
    same(found, whole)


def test_a_seed_sets_the_label_draw(spec: TrialSpec, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    join = Pack.join
    monkeypatch.setattr(Pack, "join", lambda self, s, **k: seen.append(s) or join(self, s, **k))
    train_final(replace(spec, training=replace(spec.training, epochs=1)), dataset, seeds=(5, 6))
    assert [member.seed for member in seen] == [5, 6]
    expected = [replace(spec, label_seed=seed).member(dataset).split.labelled.tolist() for seed in (5, 6)]
    assert [member.split.labelled.tolist() for member in seen] == expected
    assert all(len(member.split.validation) == 0 for member in seen)


def test_the_test_set_is_read_once_unless_a_curve_is_asked_for(
    whole: FinalResult,
    spec: TrialSpec,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = []
    test_scores = Pack.test_scores
    monkeypatch.setattr(
        Pack,
        "test_scores",
        lambda self, test: reads.append(len(test.y)) or test_scores(self, test),
    )
    told: list[EpochReport] = []
    found = train_final(spec, dataset, seeds=SEEDS, report=told.append, clock=ticking(10.0))
    assert reads == [500] and found.curve == {} and [p.test_errors for p in told] == [None] * 4
    assert [(p.epoch, p.epochs, p.training, p.diverged) for p in told] == [(i, 4, SEEDS, ()) for i in (1, 2, 3, 4)]
    assert [(p.seconds, p.seconds_left) for p in told] == [
        (10.0, 30.0),
        (20.0, 20.0),
        (30.0, 10.0),
        (40.0, 0.0),
    ]
    assert set(told[0].costs) == set(SEEDS) and told[0].costs[1001]["cost"] > 0
    curve = train_final(spec, dataset, seeds=SEEDS, curve_every=3)
    assert set(curve.curve) == {3, 4}
    assert curve.curve[4] == {outcome.seed: outcome.test_error for outcome in curve.outcomes}
    assert curve.test_errors == whole.test_errors, "looking changes nothing"


@pytest.mark.parametrize("broken_at", [1, 3, 4])
def test_a_run_that_went_on_equals_one_that_was_not_interrupted(
    whole: FinalResult,
    spec: TrialSpec,
    dataset: Dataset,
    tmp_path: Path,
    broken_at: int,
) -> None:
    tick = ticking()

    def clock() -> float:
        now: float = tick()
        if now == 1 + broken_at:  # it is looked at once at the start and once after every epoch
            raise GoneError
        return now

    with pytest.raises(GoneError):
        train_final(spec, dataset, seeds=SEEDS, folder=tmp_path, checkpoint_every_s=0.0, clock=clock)
    told: list[EpochReport] = []
    found = train_final(spec, dataset, seeds=SEEDS, folder=tmp_path, report=told.append)
    assert [p.epoch for p in told] == list(range(broken_at, 5)), "what was done is not done again"
    same(found, whole)
    assert sorted(os.listdir(tmp_path / "progress")) == ["epoch-0004", "progress.json"]
    write_result(tmp_path, found, provenance={})
    assert sorted(os.listdir(tmp_path)) == [
        "lock",
        "result.json",
        *(f"seed-{seed}" for seed in SEEDS),
    ]
    same(train_final(spec, dataset, seeds=SEEDS, folder=tmp_path), found)  # without training


def test_checkpoints_keep_to_the_clock(spec: TrialSpec, dataset: Dataset, tmp_path: Path) -> None:
    seen = []

    def report(progress: EpochReport) -> None:
        seen.append(sorted(p.name for p in (tmp_path / "progress").glob("epoch-*")))

    # One look at the clock before the training and one an epoch, 100 s apart: 180 s have passed after two epochs.
    train_final(spec, dataset, seeds=SEEDS, folder=tmp_path, report=report, clock=ticking(100.0))
    assert seen == [["epoch-0000"], ["epoch-0000"], ["epoch-0002"], ["epoch-0002"]]


def test_a_folder_goes_on_with_the_same_training_only(
    spec: TrialSpec, dataset: Dataset, tmp_path: Path, whole: FinalResult
) -> None:
    folder = tmp_path / "final"
    train_final(spec, dataset, seeds=SEEDS, folder=folder)
    hotter = replace(spec, training=replace(spec.training, lr=0.003))

    def refused() -> None:
        for other, seeds in (
            (hotter, SEEDS),
            (spec, (1001, 1002)),
            (spec, (1003, 1002, 1001)),
        ):
            with pytest.raises(StudyFolderError, match="use the same ones or another folder"):
                train_final(other, dataset, seeds=seeds, folder=folder)

    refused()
    write_result(folder, whole, provenance={})
    refused()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(StudyFolderError, match=r"holds 'thesis\.tex'"):
        train_final(spec, dataset, seeds=SEEDS, folder=tmp_path / "home")
    with held(folder), pytest.raises(StudyFolderError, match="is in use"):
        train_final(spec, dataset, seeds=SEEDS, folder=folder)


def test_damaged_checkpoints(spec: TrialSpec, dataset: Dataset, tmp_path: Path) -> None:
    def go_on() -> None:
        train_final(spec, dataset, seeds=SEEDS, folder=tmp_path)

    go_on()
    progress = tmp_path / "progress" / "progress.json"
    text = progress.read_text()
    member = tmp_path / "progress" / "epoch-0004" / "seed-1002"
    for damaged in (
        "",
        "[]",
        text[:-9],
        text.replace("progress 1", "progress 2"),
        text.replace('"epoch"', '"epok"', 1),
    ):
        progress.write_text(damaged)
        with pytest.raises(CheckpointError, match=r"progress\.json must say .* to start anew"):
            go_on()
    progress.write_text(text.replace('"epoch": 4', '"epoch": 3', 1))
    os.rename(member.parent, member.parent.with_name("epoch-0003"))
    with pytest.raises(CheckpointError, match="must be at step 18, found 24"):
        go_on()
    os.rename(member.parent.with_name("epoch-0003"), member.parent)
    progress.write_text(text)
    (member / "tensors.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors"):
        go_on()


def test_a_place_that_cannot_be_written_is_found_before_the_training(
    spec: TrialSpec, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StudyFolderError, match="must be writable"):
            train_final(spec, dataset, seeds=SEEDS, folder=folder)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Pack, "run", None)
    with pytest.raises(StudyFolderError, match="No space left on device"):
        train_final(spec, dataset, seeds=SEEDS, folder=tmp_path / "full")


def test_a_seed_that_diverges_is_told_and_its_neighbours_go_on(
    whole: FinalResult,
    spec: TrialSpec,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, slot=1, step=6)
    told: list[EpochReport] = []

    def report(progress: EpochReport) -> None:
        told.append(progress)
        if len(told) == 3:
            raise GoneError

    with pytest.raises(GoneError):
        train_final(
            spec,
            dataset,
            seeds=SEEDS,
            folder=tmp_path,
            report=report,
            checkpoint_every_s=0.0,
        )
    assert [p.diverged for p in told] == [(), (1002,), (1002,)] and told[2].training == (1001, 1003)
    found = train_final(spec, dataset, seeds=SEEDS, folder=tmp_path)  # the diverged seed does not come back
    assert found.diverged == (1002,) and found.n == 2 and "1 of 3 diverged (1002)" in str(found)
    first, second, third = found.outcomes
    assert (second.test_error, second.diverged_epoch, len(second.epochs)) == (
        None,
        2,
        2,
    )
    assert second.epochs[1]["cost"] is None
    assert [first.test_error, third.test_error] == [
        whole.outcomes[0].test_error,
        whole.outcomes[2].test_error,
    ]
    assert set(found.modules) == {1001, 1003}
    write_result(tmp_path, found, provenance={})
    same(read_result(tmp_path), found)


def test_every_seed_diverges(
    spec: TrialSpec, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, slot=0, step=0)
    found = train_final(spec, dataset, seeds=[1001], folder=tmp_path, study=find_study("digits-50"))
    assert found.n == 0 and found.modules == {} and str(found) == "no seed finished, 1 of 1 diverged (1001)"
    same(
        train_final(spec, dataset, seeds=[1001], folder=tmp_path, study=find_study("digits-50")),
        found,
    )
    write_result(tmp_path, found, provenance={})
    same(read_result(tmp_path), found)


def test_settings_that_make_no_final_training(spec: TrialSpec, dataset: Dataset) -> None:
    for seeds in ((), (1, 2, 1)):
        with pytest.raises(SettingError, match="each given once"):
            train_final(spec, dataset, seeds=seeds)
    with pytest.raises(SettingError, match="curve_every must be at least 1 epoch, got 0"):
        train_final(spec, dataset, seeds=[1], curve_every=0)
    with pytest.raises(SettingError, match="widths must start with"):
        train_final(find_study("mnist-100-full").trial(), dataset, seeds=[1])


def test_the_study_gives_name_and_target_to_its_own_experiment(spec: TrialSpec, dataset: Dataset) -> None:
    target = Target(error=0.1, spread=0.02, source="a paper", verified=True, spread_verified=True)
    study = replace(find_study("digits-50"), target=target)
    short = replace(spec, training=replace(spec.training, epochs=1))
    found = train_final(short, dataset, seeds=[1], study=study)
    assert (found.study, found.target, found.reduced) == ("digits-50", target, True)
    assert str(found).endswith("target 10.00 % ± 2.00: reduced schedule")
    as_long = replace(study, training=short.training)
    assert train_final(short, dataset, seeds=[1], study=as_long).verdict == "not enough seeds"
    more_labels = replace(short, data=replace(spec.data, labels=100))
    assert train_final(more_labels, dataset, seeds=[1], study=as_long).verdict == "no target"


def test_confirmation_seeds_are_fresh() -> None:
    assert confirmation_seeds(3, ()) == (1001, 1002, 1003)
    assert confirmation_seeds(3, {1, 2, 1002, 1003, 5000}) == (1001, 1004, 1005)
    assert confirmation_seeds(0, ()) == ()


def _records(spec: TrialSpec) -> Iterator[TrialRecord]:
    for number, (seed, label_seed, draws) in enumerate(((1, 1, 1), (7, 1001, 3))):
        settings = replace(spec, seed=seed, label_seed=label_seed, draws=draws).as_mapping()
        yield TrialRecord(
            key=f"t{number:04d}",
            number=number,
            name="",
            state="PRUNED",
            reason="",
            params={},
            settings=settings,
            epochs=(),
            validation_error=None,
            seconds=0.0,
            checkpoint=None,
        )


def test_every_seed_of_a_search_is_known(spec: TrialSpec) -> None:
    used = tuning_seeds(_records(spec))
    assert used == {1, 7, 8, 9, 1001, 1002, 1003}
    assert confirmation_seeds(2, used) == (1004, 1005)


def test_compiling_is_decided_by_the_size_of_the_run(
    spec: TrialSpec, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final, "compiler_found", lambda: True)
    assert not worth_compiling(spec, dataset, 3)
    longer = replace(spec, training=replace(spec.training, epochs=4_000))
    assert worth_compiling(longer, dataset, 3)
    family = replace(FAMILIES["ladder"], compiling=False)
    with monkeypatch.context() as patched:
        patched.setitem(FAMILIES, "ladder", family)
        assert not worth_compiling(longer, dataset, 3)
    monkeypatch.setattr(final, "compiler_found", lambda: False)
    assert not worth_compiling(longer, dataset, 3)


BARE = """
import sys
for name in ("safetensors", "yaml", "scipy", "sklearn", "ray", "optuna", "mlflow", "matplotlib", "rich"):
    sys.modules[name] = None
import numpy as np
from ladder_search.data.dataset import Dataset
from ladder_search.final.training import train_final
from ladder_search.models.ladder import LadderConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.data.config import DataConfig
from ladder_search.trial import TrialSpec
x, y = np.random.default_rng(0).integers(0, 17, (200, 64)).astype(np.uint8), np.arange(200, dtype=np.uint8) % 10
data = Dataset(
    name="digits", train_x=x, train_y=y, test_x=x, test_y=y, full_scale=16.0, n_classes=10, digest="0" * 64
)
spec = TrialSpec(
    family="ladder",
    data=DataConfig(dataset="digits", labels=50, validation=0),
    model=LadderConfig(widths=(64, 5, 10), noise_std=(0.3, 0.2, 0.1), lambda_=(100.0, 1.0, 0.1)),
    training=TrainingConfig(epochs=1),
)
print(train_final(spec, data, seeds=[1, 2]).n)
"""


def test_without_a_folder_torch_numpy_and_pyarrow_are_enough() -> None:
    root = Path(ladder_search.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2\n"
