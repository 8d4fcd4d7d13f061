"""One finished search, looked at from every side."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TRIALS = 6


@pytest.fixture(scope="module")
def records(finished: Any) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((finished.study / "trials").glob("*.json"))]


@pytest.fixture(scope="module")
def runs(finished: Any) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{finished.folder / 'results' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "digits-100"]
    return list(client.search_runs([experiment.experiment_id]))


def test_the_console_shows_progress_leaderboard_and_what_to_do_next(finished: Any) -> None:
    assert finished.err == ""  # no warning, no traceback, no chatter of Ray
    lines = finished.out.splitlines()
    assert lines[0] == f"digits-100: 6 trials, kept in {finished.study}"
    # A line per trial that ended; a search that is quiet for 30 seconds prints lines without a trial between them.
    assert sum(bool(re.match(r"t000\d .* of 6; best so far", line)) for line in lines) == TRIALS
    assert sum("t000" in line and " COMPLETE " in line for line in lines) >= 2
    assert "Steps are not compiled (the search is too short to save the minute that compiling takes)." in finished.out
    assert "Supervised baseline: " in finished.out
    assert "ladder-search export first" in finished.out
    assert "Ray" not in finished.out and "Configuration for experiment" not in finished.out


def test_nothing_of_it_still_runs(finished: Any) -> None:
    assert finished.left == []


def test_the_study_folder_is_complete(finished: Any, records: list[dict[str, Any]]) -> None:
    study = finished.study
    assert study.name == "first"
    description = json.loads((study / "study.json").read_text())
    assert description["settings"]["trials"] == TRIALS
    assert description["arrangement"]["slots"] == 1 and description["arrangement"]["compiled"] is False
    assert description["arrangement"]["compiling"]["trials"] == TRIALS
    assert description["settings"]["overrides"]["model"]["lambda_"] == [1000, 10, 0.1]
    assert description["store"] == "sqlite:///{root}/mlflow.db", "a root that was moved keeps its store"
    assert [record["key"] for record in records] == [f"t{i:04d}" for i in range(TRIALS)]
    for record in records:
        assert (study / record["checkpoint"] / "member-0" / "tensors.safetensors").is_file()
        assert [row["epoch"] for row in record["epochs"]] == list(range(1, len(record["epochs"]) + 1))


def test_fixed_configurations_come_first_and_run_to_their_end(records: list[dict[str, Any]]) -> None:
    assert [record["name"] for record in records[:2]] == ["published", "supervised baseline"]
    assert all(record["state"] == "COMPLETE" and len(record["epochs"]) == 20 for record in records[:2])
    assert records[0]["settings"]["model"]["lambda_"] == [1000.0, 10.0, 0.1]
    assert records[1]["settings"]["model"]["decoder"] == "none"


def test_optuna_knows_how_each_trial_ended(finished: Any, records: list[dict[str, Any]]) -> None:
    storage = JournalStorage(JournalFileBackend(str(finished.study / "optuna.journal")))
    study = optuna.load_study(study_name="digits-100/first", storage=storage)
    references = optuna.load_study(study_name="digits-100/first/references", storage=storage)
    by_key = {trial.user_attrs["key"]: trial for trial in [*study.trials, *references.trials]}
    assert {key: trial.state.name for key, trial in by_key.items()} == {r["key"]: r["state"] for r in records}
    assert [trial.user_attrs["name"] for trial in references.trials] == ["supervised baseline"]
    for record in records:
        trial = by_key[record["key"]]
        last = record["epochs"][-1]
        assert trial.intermediate_values[last["epoch"]] == last["validation_error"]
        assert trial.params == record["params"]
        if record["state"] == "COMPLETE":
            assert trial.value == record["validation_error"]


def test_mlflow_has_one_ended_run_per_trial_and_one_of_the_search(
    finished: Any, runs: list[Any], records: list[dict[str, Any]]
) -> None:
    by_trial = {run.data.tags["trial"]: run for run in runs if "trial" in run.data.tags}
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "search"]
    assert len(runs) == TRIALS + 1 and len(by_trial) == TRIALS
    assert parent.info.status == "FINISHED"
    ends = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    client = mlflow.MlflowClient(f"sqlite:///{finished.folder / 'results' / 'mlflow.db'}")
    for record in records:
        run = by_trial[record["key"]]
        assert run.info.status == ends[record["state"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["status"] == record["state"]
        assert {"study", "family", "seed", "label_seed", "git_sha", "data.sha256", "rung", "host"} <= set(run.data.tags)
        terms = {name for name in record["epochs"][0] if name != "epoch"}
        assert terms == set(run.data.metrics)
        layers = 0 if record["settings"]["model"]["decoder"] == "none" else 3
        assert sum(name.startswith("cost_denoising_") for name in terms) == layers
        for name in terms:
            points = client.get_metric_history(run.info.run_id, name)
            assert sorted((point.step, point.value) for point in points) == [
                (row["epoch"], row[name]) for row in record["epochs"]
            ]
    assert parent.data.metrics["published_validation_error"] == records[0]["validation_error"]
    assert parent.data.metrics["trials_complete"] == sum(r["state"] == "COMPLETE" for r in records)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_second_search_of_the_same_name_is_refused_and_changes_nothing(
    finished: Any, start: Callable[..., Any]
) -> None:
    before = _content(finished.folder / "results")
    out = finished.folder / "again"
    out.mkdir()
    root = str(finished.folder / "results")
    again = start("digits-100", "--trials", "2", "--name", "first", "--root", root, folder=out).ended()
    assert again.code == 2, str(again)
    assert again.err.count("\n") == 1 and "never overwritten" in again.err and "--name" in again.err
    assert _content(finished.folder / "results") == before


def test_what_was_searched_can_be_synced_again_without_harm(finished: Any, command: Callable[..., Any]) -> None:
    again = command("sync", "first", folder=finished.folder)
    assert again.returncode == 0, again.stderr
    assert "first: 0 event(s) sent" in again.stdout
