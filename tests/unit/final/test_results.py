"""Statistics by hand, and a result's folder."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder_search.bundles import bundle as bundles
from ladder_search.bundles.bundle import read_bundle
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.final.results import FinalResult, SeedResult, read_result, write_result
from ladder_search.studies import Study, Target
from ladder_search.trial import TrialSpec

TARGET = Target(error=0.02, spread=0.005, source="a paper", verified=False, spread_verified=False)


def made(spec: TrialSpec, *errors: float | None, target: Target | None = TARGET) -> FinalResult:
    """A result of the seeds 1001, 1002, …; None diverged in its second epoch."""
    final = replace(spec, data=replace(spec.data, validation=0), seed=1001, label_seed=1001)
    outcomes, modules = [], {}
    for seed, error in enumerate(errors, start=1001):
        rows = ({"epoch": 1, "step": 6, "cost": 2.0, "test_error": 0.5}, {"epoch": 2, "step": 12, "cost": None})
        diverged = 2 if error is None else None
        outcomes.append(SeedResult(seed=seed, test_error=error, diverged_epoch=diverged, epochs=rows))
        if error is not None:
            modules[seed] = replace(final, seed=seed).empty_module()
            torch.nn.init.constant_(modules[seed].get_parameter("gamma"), seed)
    return FinalResult(
        study="digits-50",
        spec=final,
        target=target,
        outcomes=tuple(outcomes),
        data_digest="d" * 64,
        settings_digest="5" * 64,
        compiled=False,
        device="cpu",
        seconds=12.5,
        modules=modules,
    )


def test_statistics_by_hand(spec: TrialSpec) -> None:
    found = made(spec, 0.01, 0.02, 0.03)
    assert found.n == 3 and found.mean == pytest.approx(0.02) and found.deviation == pytest.approx(0.01)
    # Student's quantile for 2 degrees of freedom and 97.5 % is 4.302653; 4.302653 * 0.01 / sqrt(3) = 0.0248414.
    assert found.interval == pytest.approx((0.02 - 0.0248414, 0.02 + 0.0248414), abs=1e-7)
    assert str(found) == (
        "2.00 % ± 1.00 over 3 seeds, 95 % interval -0.48 .. 4.48 %, target 2.00 % ± 0.50 (unverified): not enough seeds"
    )


def test_nats_are_no_percentages(spec: TrialSpec, judged_by: Callable[..., Study]) -> None:
    music = judged_by("nll")
    found = made(replace(spec, model=music.model), 8.40, 8.45, 8.50, target=music.target)
    # 4.302653 * 0.05 / sqrt(3) = 0.124207
    assert str(found) == (
        "8.450 nats per step ± 0.050 over 3 seeds, 95 % interval 8.326 .. 8.574 nats per step, "
        "target 8.450 nats per step ± 0.030 (unverified): not enough seeds"
    )


def test_verdicts(spec: TrialSpec) -> None:
    assert made(spec, 0.010, 0.011, 0.012).verdict == "better"
    assert made(spec, 0.0200, 0.0205, 0.0195, 0.0201).verdict == "reproduced"
    assert made(spec, 0.030, 0.031, 0.032).verdict == "worse"
    assert made(spec, 0.030, 0.031, 0.032, target=None).verdict == "no target"
    assert replace(made(spec, 0.010, 0.011, 0.012), reduced=True).verdict == "reduced schedule"
    assert made(spec, 0.010).verdict == made(spec, None, None).verdict == "not enough seeds"


def test_diverged_seeds_are_counted_and_told(spec: TrialSpec) -> None:
    found = made(spec, 0.01, None, 0.03, None)
    assert (found.n, found.mean, found.diverged) == (2, pytest.approx(0.02), (1002, 1004))
    assert "2.00 % ± 1.41 over 2 seeds, 2 of 4 diverged (1002, 1004)" in str(found)
    nothing = made(spec, None)
    assert (nothing.n, nothing.mean, nothing.deviation, nothing.interval) == (0, None, None, None)
    assert str(nothing).startswith("no seed finished, 1 of 1 diverged (1001), target 2.00 % ± 0.50 (unverified): not")


def test_a_number_without_spread_gets_no_verdict_and_the_result_says_why(spec: TrialSpec) -> None:
    found = made(spec, 0.010, 0.011, 0.012, target=replace(TARGET, spread=None))
    assert found.verdict == "no verdict"
    assert str(found).endswith(": no verdict, the paper prints no spread, and no margin was fixed beforehand")
    single = made(spec, 0.010, 0.011, 0.012, target=replace(TARGET, spread=None, seeds=1))
    assert single.verdict == "no verdict" and str(single).endswith("the published number is a single run")


def test_the_folder_of_a_result(spec: TrialSpec, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "final"
    result = made(spec, 0.01, None, 0.03)
    write_result(folder, result, provenance={"git_sha": "ab"})
    assert sorted(os.listdir(folder)) == ["lock", "result.json", "seed-1001", "seed-1003"]
    written = json.loads((folder / "result.json").read_text())
    assert (written["n"], written["mean"], written["diverged"]) == (2, pytest.approx(0.02), [1002])
    assert written["standard_deviation"] == pytest.approx(0.0141421, abs=1e-7)
    assert (written["level"], written["verdict"]) == (0.05, "not enough seeds")
    assert written["learning_curve"] == {"1": {"1001": 0.5, "1002": 0.5, "1003": 0.5}}
    bundle = read_bundle(folder / "seed-1003")
    assert (bundle.spec.seed, bundle.spec.label_seed, bundle.spec.data.validation) == (1003, 1003, 0)
    assert (bundle.metrics.test_error, bundle.metrics.trial, bundle.metrics.step) == (0.03, "seed-1003", 12)
    assert bundle.provenance == {"git_sha": "ab"} and bundle.study == "digits-50"
    again = read_result(folder)
    assert again == result and set(again.modules) == {1001, 1003}
    light = read_result(folder, networks=False)
    assert light.test_errors == result.test_errors and light.modules == {}
    assert float(again.modules[1003].get_parameter("gamma")[0]) == 1003.0


def test_a_result_is_not_overwritten(spec: TrialSpec, tmp_path: Path) -> None:
    write_result(tmp_path / "final", made(spec, 0.01), provenance={})
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "final").rglob("*") if path.name != "lock"}
    write_result(tmp_path / "final", made(spec, 0.01), provenance={})  # the same: asked for again
    assert times == {path: path.stat().st_mtime_ns for path in times}
    with pytest.raises(StudyFolderError, match="never overwritten"):
        write_result(tmp_path / "final", made(spec, 0.02), provenance={})
    assert read_result(tmp_path / "final").mean == 0.01
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(StudyFolderError, match=r"empty folder or one of its own, and .* holds 'thesis\.tex'"):
        write_result(tmp_path / "home", made(spec, 0.02), provenance={})
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyFolderError, match="must be writable"):
        write_result(tmp_path / "file", made(spec, 0.02), provenance={})


@pytest.mark.parametrize("fails_at", [0, 3, 9, 15])  # each bundle syncs seven times, result.json comes last
def test_a_full_disk_leaves_no_bundle(
    spec: TrialSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    calls = 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "progress" / "epoch-0004").mkdir(parents=True)
    with pytest.raises(StudyFolderError, match="No space left on device"):
        write_result(tmp_path, made(spec, 0.01, 0.02), provenance={})
    assert set(os.listdir(tmp_path)) == {"lock", "progress"}, "what training has done so far stays"


def test_two_processes_that_finish_the_same_training_leave_one_whole_result(
    spec: TrialSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them meets a full disk in the middle: what it removes then must not be the other one's."""
    writing, go_on = threading.Event(), threading.Event()
    write = bundles.write_bundle

    def full(folder: Path, **content: Any) -> str:
        if threading.current_thread() is first and folder.name == "seed-1002":
            writing.set()
            go_on.wait(10)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, **content)

    def refused() -> None:
        with pytest.raises(StudyFolderError, match="No space left on device"):
            write_result(tmp_path, made(spec, 0.01, 0.02), provenance={})

    monkeypatch.setattr(bundles, "write_bundle", full)
    first = threading.Thread(target=refused)
    second = threading.Thread(target=write_result, args=(tmp_path, made(spec, 0.01, 0.02)), kwargs={"provenance": {}})
    first.start()
    assert writing.wait(10)
    second.start()
    second.join(0.5)  # it waits for the first one; where nothing is locked, it has ended by now
    go_on.set()
    first.join(10)
    second.join(10)
    assert sorted(set(os.listdir(tmp_path)) - {"lock"}) == ["result.json", "seed-1001", "seed-1002"]
    assert read_result(tmp_path).mean == pytest.approx(0.015)


def test_a_result_that_is_damaged(spec: TrialSpec, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"result\.json must be the result"):
        read_result(tmp_path)
    write_result(tmp_path, made(spec, 0.01, 0.02), provenance={})
    whole = (tmp_path / "result.json").read_text()
    for text in (
        whole[:-40],
        "[]",
        "[" * 100_000,
        whole.replace("result 1", "result 2"),
        whole.replace('"seed"', '"sed"'),
    ):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"result\.json must be the result"):
            read_result(tmp_path)
    (tmp_path / "result.json").write_text(whole)
    os.rename(tmp_path / "seed-1001", tmp_path / "seed-1003")
    with pytest.raises(CheckpointError, match="seed-1001"):
        read_result(tmp_path)
    os.rename(tmp_path / "seed-1003", tmp_path / "seed-1001")
    write_result(tmp_path / "other", made(spec, 0.03, 0.04), provenance={})
    os.rename(tmp_path / "seed-1001", tmp_path / "seed-1003")
    os.rename(tmp_path / "other" / "seed-1001", tmp_path / "seed-1001")
    with pytest.raises(CheckpointError, match=r"must have the digest that result\.json names"):
        read_result(tmp_path)
