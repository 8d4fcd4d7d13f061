"""Recurrent networks from search to final training, as a user runs them: moving digits with a teacher, and music."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from ladder_search.bundles import load
from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from tests.e2e.conftest import Start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

TINY = (
    "--set", "model.levels=conv:4:3:2 lstm:4:3,conv:6:3:2 dense-lstm:12",
    "--scheduler", "fifo", "--slots", "1", "--max-concurrent", "1",
)  # fmt: skip
"""Of one trial after the other: one more process takes longer to start than a trial takes."""


def metrics_of(folder: Path, study: str) -> dict[str, dict[str, float]]:
    """Trial -> last value of every metric in MLflow."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'results' / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments() if one.name == study]
    runs = client.search_runs(experiments)
    return {run.data.tags["trial"]: run.data.metrics for run in runs if "trial" in run.data.tags}


def test_moving_digits_with_a_teacher(start: Start, command: Any, tmp_path: Path) -> None:
    changes = ("model.unlabelled=true", "teacher.weight=20", "data.labels=200", "training.labelled_batch=20")
    options = (*TINY, *(part for change in changes for part in ("--set", change)), "--epochs", "2")
    ended = start("occluded-digits-rladder", "--trials", "2", *options, folder=tmp_path).ended()
    assert ended.code == 0, ended
    assert "validation error" in ended.out
    found = metrics_of(tmp_path, "occluded-digits-rladder")
    assert set(found) == {"t0000", "t0001"}
    for metrics in found.values():
        assert {"validation_error", "validation_prediction_error", "validation_student_error"} <= set(metrics)
        assert 0.0 < metrics["validation_prediction_error"] < 0.3 and metrics["cost_consistency"] >= 0.0
    exported = command("export", "occluded-digits-rladder", "--top", "1", "-o", "configs", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    (bundle,) = (tmp_path / "configs").iterdir()
    network = load(bundle)
    probabilities = network(torch.rand(3, 5, 16, 16))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    options = ("--seeds", "2", "--epochs", "2", "--curve", "1", "-o", "final")
    trained = command("train", str(bundle), *options, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    result = json.loads((tmp_path / "final" / "result.json").read_text())
    last = {str(outcome["seed"]): outcome["test_error"] for outcome in result["outcomes"]}
    assert list(result["learning_curve"]) == ["1", "2"] and result["learning_curve"]["2"] == last
    assert "prediction error" in trained.stdout and "student's error" in trained.stdout


@pytest.mark.skipif(datasets.state("jsb-chorales") != PRESENT, reason="the chorales are not here")
def test_music(start: Start, command: Any, tmp_path: Path) -> None:
    changes = ("--set", "model.hidden=20", "--set", "training.window=32", "--epochs", "2", "--scheduler", "fifo")
    ended = start("jsb-lstm", "--trials", "2", *changes, "--slots", "2", folder=tmp_path).ended()
    assert ended.code == 0, ended
    table = ended.out.split("NLL", 1)[1].replace("95 % interval", "")
    assert "nats per step" in ended.out and "%" not in table.split("NLL")[0]
    for metrics in metrics_of(tmp_path, "jsb-lstm").values():
        assert 9.0 < metrics["validation_error"] < 20.0
    changes = ("--set", "model.hidden=20", "--set", "training.window=32", "--epochs", "2")
    trained = command("train", "jsb-lstm", "--seeds", "1", *changes, "-o", "final", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    result = json.loads((tmp_path / "final" / "result.json").read_text())
    (outcome,) = result["outcomes"]
    assert (result["settings"]["model"]["hidden"], result["settings"]["training"]["window"]) == (20, 32)
    assert "registered as model jsb-lstm" in trained.stdout
    assert outcome["best_epoch"] in (1, 2) and outcome["test_scores"]["nll"] == outcome["test_error"]
