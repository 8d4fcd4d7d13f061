"""Two-stage searches on real Ray: a source is trained once, whoever asks, shared by packs, resumes and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from ladder_search.bundles import load
from tests.e2e.conftest import Ended, Start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SMALL = (
    "--set", "data.dataset=digits-28", "--set", "data.validation=297",
    "--set", "model.widths=784,20,15,10",
    "--set", "sources.digits-28.model.widths=784,20,15,10", "--set", "sources.digits-28.training.epochs=6",
    "--set", "sources.digits-28.model.noise_std=0.3,0.3,0.3,0.3",
    "--set", "sources.digits-28.model.lambda_=1000,10,0.1,0.1",
    "--epochs", "4", "--scheduler", "fifo",
)  # fmt: skip


def search(start: Start, folder: Path, *arguments: str) -> Ended:
    return start(*arguments, folder=folder).ended()


def sources_of(study: Path) -> dict[str, dict[str, Any]]:
    """Key -> metrics of every source that a search has trained."""
    return {p.parent.name: json.loads(p.read_text()) for p in sorted(study.glob("sources/*/metrics.json"))}


def records_of(study: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((study / "trials").glob("*.json"))]


def test_trials_share_a_source_and_a_resume_finds_it(start: Start, command: Any, tmp_path: Path) -> None:
    ended = search(start, tmp_path, "progressive-digits", "--trials", "4", *SMALL, "--slots", "1")
    assert ended.code == 0, ended
    (key,) = found = sources_of(ended.study)
    assert found[key]["step"] == 60 and len(found[key]["epochs"]) == 6
    description = json.loads((ended.study / "study.json").read_text())
    assert [(one["key"], one["dataset"], one["steps"]) for one in description["sources"]] == [(key, "digits-28", 60)]
    client = mlflow.MlflowClient(f"sqlite:///{ended.folder / 'results' / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments() if one.name == "progressive-digits"]
    tags = {run.data.tags.get("trial"): run.data.tags for run in client.search_runs(experiments)}
    assert tags["t0000"]["source_digits-28"] == f"{key}: trained ladder on digits-28, 100 labels, seed 1"
    assert "source_digits-28" not in tags["t0001"]  # the baseline is from scratch
    written = (ended.study / "sources" / key / "MANIFEST.json").stat().st_mtime_ns
    resumed = search(start, tmp_path, "progressive-digits", "--resume", "--trials", "5")
    assert resumed.code == 0, resumed
    assert len(records_of(ended.study)) == 5
    assert list(sources_of(ended.study)) == [key]
    assert (ended.study / "sources" / key / "MANIFEST.json").stat().st_mtime_ns == written
    exported = command("export", "progressive-digits", "--top", "1", "-o", "configs", folder=tmp_path)
    assert exported.returncode == 0, exported
    (bundle,) = (ended.folder / "configs").iterdir()
    network = load(bundle)
    assert network(torch.rand(3, 784)).sum(1).tolist() == pytest.approx([1.0] * 3)


def test_trials_in_packs_share_it_too(start: Start, command: Any, tmp_path: Path) -> None:
    ended = search(start, tmp_path, "progressive-digits", "--trials", "5", *SMALL, "--slots", "2")
    assert ended.code == 0, ended
    assert {record["state"] for record in records_of(ended.study)} == {"COMPLETE"}
    assert len(sources_of(ended.study)) == 1
    assert ended.left == []
    (ready,) = (ended.study / "sources").iterdir()
    given = search(
        start, tmp_path, "progressive-digits", "--trials", "3", *SMALL, "--slots", "1", "--name", "given",
        "--set", f"sources.digits-28.bundle={ready}", "--max-concurrent", "1",
    )  # fmt: skip
    assert given.code == 0, given
    (copied,) = (tmp_path / "results" / "given" / "sources").iterdir()
    assert (copied / "MANIFEST.json").read_bytes() == (ready / "MANIFEST.json").read_bytes()  # nothing was trained
    exported = command("export", "progressive-digits", "--top", "2", "-o", "configs", folder=tmp_path)
    assert exported.returncode == 0, exported


def test_a_search_over_the_source_trains_one_for_every_configuration(start: Start, tmp_path: Path) -> None:
    # Without the learning rate there is no grid to begin with: all but the first two trials are the sampler's.
    more = ("--set", "space.source_noise=true", "--set", "space.lr=false", "--slots", "1", "--max-concurrent", "1")
    ended = search(start, tmp_path, "progressive-digits", "--trials", "5", *SMALL, *more)
    assert ended.code == 0, ended
    noises = {
        str(r["settings"]["sources"]["digits-28"]["model"]) for r in records_of(ended.study) if r["key"] != "t0001"
    }
    assert len(sources_of(ended.study)) == len(noises) == 4


def test_a_source_that_fails_is_told_in_one_sentence(start: Start, tmp_path: Path) -> None:
    ended = search(
        start, tmp_path, "progressive-digits", "--trials", "2", *SMALL, "--set", "sources.digits-28.stop_at=0",
        "--slots", "1", "--max-concurrent", "1",
    )  # fmt: skip
    published, baseline = records_of(ended.study)
    assert published["state"] == "FAIL" and baseline["state"] == "COMPLETE"
    assert published["reason"].startswith("a source stops at a validation error of 0 and trained ladder on digits-28")
    assert "Traceback" not in ended.out + ended.err
