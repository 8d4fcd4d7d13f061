"""A search on a file with few, imbalanced labels and missing numbers: folds, balanced error and batches, then a resume,
an export and a final training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine

from ladder_search.bundles import load
from ladder_search.data import datasets
from ladder_search.trial import TrialSpec
from tests.e2e.conftest import Start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

STUDY = """
based_on: digits-100
name: cultivars
title: ladder on wine
data: {dataset: "", file: wine.csv, target: cultivar, test: 0.2, labels: null, validation: 0, folds: 3,
  measure: balanced-error, batches: balanced}
model: {widths: [26, 20, 3], noise_std: [0.3, 0.3, 0.3], lambda_: [10.0, 1.0, 0.1]}
training: {epochs: 8, labelled_batch: 20, unlabelled_batch: 20}
stop: {first_rung_steps: 20, failure_error: 1.0, failure_steps: 1000}
baseline: null
"""


def write_wine(folder: Path) -> None:
    """146 wines, 13 numbers each, a twentieth missing; 70 have a cultivar, few of them the third."""
    wine, rng = load_wine(), np.random.default_rng(0)
    rows = np.flatnonzero((wine.target != 2) | (rng.random(len(wine.target)) < 0.4))
    labelled = set(rng.permutation(rows)[:70].tolist())
    lines = [",".join([*wine.feature_names, "cultivar"])]
    for row in rows:
        numbers = ["" if rng.random() < 0.05 else f"{value:g}" for value in wine.data[row]]
        lines.append(",".join([*numbers, str(wine.target_names[wine.target[row]]) if row in labelled else ""]))
    (folder / "wine.csv").write_text("\n".join(lines) + "\n")


def test_few_labels_judge_by_folds_from_the_search_to_the_final_training(
    start: Start, command: Any, tmp_path: Path
) -> None:
    write_wine(tmp_path)
    (tmp_path / "cultivars.yaml").write_text(STUDY)
    ended = start("cultivars.yaml", "--trials", "3", "--slots", "2", "--name", "few", folder=tmp_path).ended()
    assert ended.code == 0, ended
    assert "validation balanced error" in ended.out and re.search(
        r"balanced error +(95 % interval +)?n +epochs", ended.out
    )
    resumed = start("--resume", "--name", "few", "--trials", "4", folder=tmp_path).ended()
    assert resumed.code == 0, resumed
    records = [json.loads(path.read_text()) for path in sorted((ended.study / "trials").glob("*.json"))]
    assert len(records) == 4
    complete = [record for record in records if record["state"] == "COMPLETE"]
    for record in complete:
        last = record["epochs"][-1]
        assert record["settings"]["draws"] == record["settings"]["data"]["folds"] == 3
        assert record["validation_error"] == last["validation_error"] and last["validation_log_loss"] > 0
        assert 0 <= last["validation_classification_error"] <= 1
        for draw in range(3):
            assert (ended.study / record["checkpoint"] / f"member-{draw}").is_dir()
    # Every labelled row that is not for testing judges in one fold, in all trials the same.
    specs = [TrialSpec.from_mapping(record["settings"]) for record in records]
    dataset = datasets.load(specs[0].data)
    folds = [np.concatenate([s.member(dataset, draw).split.validation for draw in range(3)]) for s in specs]
    own = [rows % len(dataset.train_x) for rows in folds]
    assert all(np.array_equal(own[0], rows) for rows in own[1:])
    assert sorted(own[0]) == np.flatnonzero(dataset.train_y >= 0).tolist()
    exported = command("export", "few", "--top", "1", "-o", "configs", folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    best = min(complete, key=lambda record: record["validation_error"])
    (bundle,) = (tmp_path / "configs").iterdir()
    assert bundle.name == f"01-{best['key']}"
    trained = command("train", str(bundle), "--seeds", "2", "-o", "final", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "balanced error " in trained.stdout and "log-loss " in trained.stdout
    result = json.loads((tmp_path / "final" / "result.json").read_text())
    assert result["settings"]["data"]["validation"] == 0 and "folds" not in result["settings"]["data"]
    # The bundle reads rows as they are in the file, missing numbers included.
    network, wrong = load(tmp_path / "final" / "seed-1001"), []
    with torch.no_grad():
        predicted = network(torch.from_numpy(np.array(dataset.test_x))).argmax(1).numpy()
    for number in range(3):
        wrong.append((predicted[dataset.test_y == number] != number).mean())
    assert result["outcomes"][0]["test_error"] == pytest.approx(float(np.mean(wrong)))
