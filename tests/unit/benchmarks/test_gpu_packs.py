"""The GPU benchmark trains the study's trials, outlives what fails on the way, and leaves nothing running."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import crew, gpu_packs
from benchmarks.measure import Report, Row
from benchmarks.plain_loop import PlainLoop
from benchmarks.scene import Scene
from ladder_search.data import datasets
from ladder_search.training.evaluation import labelled_statistics, scores


@pytest.mark.parametrize(("study", "steps"), [("mnist-100-full", 75_000), ("digits-100", 750)])
def test_a_trial_has_the_length_of_the_studys(study: str, steps: int) -> None:
    # 500 steps in an epoch of 50,000 images, 10 in one of 1,000.
    assert Scene(study, "cpu").spec().total_steps == steps


def test_the_random_images_have_the_size_of_the_data() -> None:
    digits, random = datasets.load("digits"), Scene("digits-100", "cpu").dataset
    assert (random.train_x.shape, random.full_scale) == (digits.train_x.shape, digits.full_scale)


def test_ten_seeds_are_trained_on_all_images() -> None:
    assert Scene("mnist-100-full", "cpu").spec(validation=False).total_steps == 90_000


def test_a_pack_stands_at_the_end_of_an_epoch() -> None:
    scene = Scene("digits-100", "cpu")
    pack, step_seconds = scene.pack(2, "eager")
    assert step_seconds > 0
    assert {slot: report.step for slot, report in pack.run(1).items()} == {0: 11, 1: 11}


def test_the_rival_judges_weights_as_we_do() -> None:
    scene = Scene("digits-100", "cpu")
    spec, data = scene.spec(), scene.data
    loop = PlainLoop(spec, data)
    loop.run(3)

    params = {name: value.detach()[None] for name, value in loop._model.named_parameters()}
    labelled, held_out = (torch.from_numpy(rows) for rows in (spec.split.labelled, spec.split.validation))
    buffers = labelled_statistics(loop._model, params, data, labelled[None, None])
    ours = scores(loop._model, {**params, **buffers}, data, held_out[None])[:, 0].tolist()

    assert loop.validation_error() == pytest.approx(ours[0], abs=1e-6)
    assert 0.7 < ours[0] < 1.0  # random images of random classes


@pytest.fixture
def bench() -> Iterator[gpu_packs.Benchmark]:
    """A benchmark with 100 seconds left."""
    report = Report("?", argparse.Namespace(output=None))
    bench = gpu_packs.Benchmark(report, "digits-100", "cpu", quick=True, limit=100.0)
    yield bench
    bench.stop()
    assert not multiprocessing.active_children()


def test_a_line_that_overruns_is_ended_and_the_next_section_goes_on(
    bench: gpu_packs.Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, Any] = {"way": "eager", "precision": "float32"}
    monkeypatch.setattr(gpu_packs, "GRACE_SECONDS", 0.0)

    with bench.section("first", 0.5) as section:  # starting a process takes longer
        assert section.ask("K=1", "epochs", slots=1, **arguments) is None
        assert section.ask("K=2", "epochs", slots=2, **arguments) is None  # nobody is there to ask
    assert not multiprocessing.active_children()
    assert "first: K=1: cut off, the time was up" in capsys.readouterr().out

    assert bench.measure("second", 60.0, "no such line") == []
    assert "no such line: KeyError" in capsys.readouterr().out
    (row,) = bench.measure("third", 60.0, "epochs", slots=1, **arguments)
    assert row["K"] == 1
    assert bench.measure("fourth", 60.0, "epochs", slots=1, **{**arguments, "way": "by magic"}) == []
    assert "fourth: epochs: KeyError: 'by magic'" in capsys.readouterr().out

    (process,) = multiprocessing.active_children()
    process.kill()
    assert bench.measure("fifth", 60.0, "epochs", slots=1, **arguments) == []
    assert "fifth: epochs: a process died with exit status -9" in capsys.readouterr().out


def test_no_line_begins_when_the_time_is_up(bench: gpu_packs.Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.measure("late", -1.0, "epochs", slots=1, way="eager", precision="float32") == []
    assert "late: epochs: left out, the time was up" in capsys.readouterr().out


def test_the_sweep_ends_where_a_larger_pack_gains_nothing_or_none_runs(
    bench: gpu_packs.Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[int, float | None] = {1: 100.0, 4: 200.0, 16: 201.0, 64: 900.0, 128: None, 256: None, 512: 950.0}

    def ask(self: gpu_packs.Section, name: str, verb: str, *, slots: int, **arguments: object) -> Row | None:
        row: Row | None = None if rates[slots] is None else {"K": slots, "member-steps per s": rates[slots]}
        self.rows += [row] if row else []
        return row

    monkeypatch.setattr(gpu_packs.Section, "ask", ask)
    swept = bench.sweep("?", 60.0, "eager", list(rates), to_the_end=False)
    assert [row["K"] for row in swept] == [1, 4, 16]
    swept = bench.sweep("?", 60.0, "eager", list(rates), to_the_end=True)
    assert [row["K"] for row in swept] == [1, 4, 16, 64]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a form of the rival that fails: a graph without a GPU")
def test_a_form_of_the_rival_that_fails_costs_the_others_nothing(
    bench: gpu_packs.Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_packs, "FORMS", ("captured", "eager"))
    monkeypatch.setattr(gpu_packs, "COUNTS", (2,))
    bench.device, device = "cuda", "cpu"
    monkeypatch.setattr(gpu_packs, "Scene", lambda study, _: Scene(study, device))

    (row,) = bench.rivals(under_mps=False)

    assert "captured, 2 processes: " in capsys.readouterr().out
    assert (row["form"], row["processes"], row["under"]) == ("eager", 2, "without MPS")
    # A trial has 750 steps and 75 evaluations; two are trained at a time.
    one = 750 * float(row["ms per step of one"] or 0) / 1e3 + 75 * float(row["evaluation, ms"] or 0) / 1e3
    assert row["trials per hour"] == pytest.approx(2 * 3600 / one)


CONTROL = """#!/bin/sh
# Stands in for NVIDIA's command: notes what it is told, knows the servers that the test wants.
line=$(cat)
echo "$* $line ${CUDA_MPS_PIPE_DIRECTORY##*/}" >> "$MPS_NOTES"
[ "$line" = get_server_list ] && printf "$MPS_SERVERS"
[ "$1" = -d ] && exit "$MPS_EXIT"
exit 0
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    command = tmp_path / "nvidia-cuda-mps-control"
    command.write_text(CONTROL)
    command.chmod(0o755)
    for name, value in {"MPS_NOTES": str(tmp_path / "notes"), "MPS_SERVERS": "4711", "MPS_EXIT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "notes"


def test_the_service_ends_with_the_block_even_on_errors(notes: Path) -> None:
    with pytest.raises(ZeroDivisionError), crew.mps() as (environment, check):
        assert Path(environment["CUDA_MPS_PIPE_DIRECTORY"]).is_dir()
        check()
        raise ZeroDivisionError
    assert notes.read_text().splitlines() == ["-d  pipe", " get_server_list pipe", " quit pipe"]
    assert not Path(environment["CUDA_MPS_PIPE_DIRECTORY"]).exists()


def test_a_service_that_serves_nobody_is_told(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_SERVERS", "")
    with pytest.raises(crew.CrewError, match="serves no process"), crew.mps() as (_, check):
        check()
    assert notes.read_text().splitlines()[-1] == " quit pipe"


def test_a_service_that_does_not_start_is_left_out(
    bench: gpu_packs.Benchmark, notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPS_EXIT", "1")
    assert bench.rivals(under_mps=True) == []
    assert "under MPS: left out, MPS does not start: exit status 1" in capsys.readouterr().out
    assert notes.read_text().splitlines()[-1] == " quit pipe"

    monkeypatch.setenv("PATH", "/nonexistent")
    assert bench.rivals(under_mps=True) == []
    assert "there is no nvidia-cuda-mps-control" in capsys.readouterr().out


def test_ratios_compare_the_best_with_the_best() -> None:
    ours: list[Row] = [
        {"K": 1, "way": "captured", "member-steps per s": 500.0, "trials per hour": 20.0},
        {"K": 64, "way": "captured", "member-steps per s": 8000.0, "trials per hour": 300.0},
        {"K": 128, "way": "captured", "member-steps per s": 7000.0, "trials per hour": 280.0},
    ]
    others: list[Row] = [
        {"under": "without MPS", "form": "eager", "processes": 1, "steps per s": 100.0, "trials per hour": 4.0},
        {"under": "without MPS", "form": "captured", "processes": 1, "steps per s": 250.0, "trials per hour": 10.0},
        {"under": "under MPS", "form": "eager", "processes": 8, "steps per s": 500.0, "trials per hour": 20.0},
    ]
    ten: list[Row] = [
        {"program": "a pack of ten", "times as fast as in turn": 12.0},
        {"program": "x", "times as fast as in turn": 1.0},
    ]

    found = gpu_packs.ratios(ours, others, ten)

    assert [(row["ratio"], row["aim"]) for row in found] == [(30.0, 30.0), (15.0, 10.0), (2.0, 1.0), (12.0, 30.0)]
    assert gpu_packs.ratios(ours, [], []) == []
    assert [row["what"] for row in gpu_packs.ratios([], others, ten)] == ["ten seeds, extrapolated"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_quick_run_on_a_gpu_has_no_problem_but_perhaps_with_the_service(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.gpu_packs", "--quick", "--output", str(output)]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[3], check=True, timeout=110)

    content = json.loads(output.read_text())
    assert {row["way"] for title, rows in content["tables"].items() if "packs of K" in title for row in rows} == {
        "captured",
        "eager",
    }
    assert {row["form"] for row in content["tables"]["The plain loop in N processes, without MPS"]} == {
        "eager",
        "captured",
    }
    assert not [note for note in content["notes"] if "Error" in note and "MPS" not in note]
