"""Against a real SQLite store, read back with MLflow's own client; and against a server that fails on schedule."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from ladder_search.errors import TrackingError
from ladder_search.tracking.mlflow_store import MlflowStore, open_store
from ladder_search.tracking.protocol import Batch, DatasetInput, MetricPoint, RejectedError, UnavailableError


def point(step: int, value: float = 0.5) -> MetricPoint:
    return MetricPoint(name="valid_error", value=value, step=step, time_ms=1000 + step)


@pytest.fixture
def mlflow(sqlite_store: str) -> MlflowStore:
    return open_store(sqlite_store, "digits-100", Path("results/a/spool"), "spool")


def test_a_run_from_start_to_end(mlflow: MlflowStore, tmp_path: Path) -> None:
    parent = mlflow.create_run_once("d/s", name="search", parent_id=None, time_ms=500)
    run_id = mlflow.create_run_once("d/s/t0", name="t0", parent_id=parent, time_ms=1000)
    mlflow.log_batch(run_id, Batch((point(1), point(2, 0.25)), (("lr", "0.1"),), (("seed", "3"),)))
    mlflow.log_dataset(run_id, DatasetInput(name="digits", digest="ab" * 32, rows={"train": 100, "valid": 50}))
    (tmp_path / "p.png").write_bytes(b"picture")
    mlflow.log_artifact(run_id, tmp_path / "p.png", "plots")
    mlflow.set_terminated(run_id, "KILLED", 2000)

    run = mlflow.client.get_run(run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("KILLED", 1000, 2000)
    assert run.info.run_name == "t0"
    history = mlflow.client.get_metric_history(run_id, "valid_error")
    assert [(m.step, m.value, m.timestamp) for m in history] == [(1, 0.5, 1001), (2, 0.25, 1002)]
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["mlflow.parentRunId"] == parent and run.data.tags["seed"] == "3"
    assert run.data.tags["ladder.key"] == "d/s/t0" and run.data.tags["mlflow.source.name"] == "search.py"
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "ab" * 16)
    assert '"train": 100' in data.dataset.profile
    assert (tmp_path / "mlartifacts" / run_id / "artifacts" / "plots" / "p.png").read_bytes() == b"picture"
    assert [file.path for file in mlflow.client.list_artifacts(run_id, "plots")] == ["plots/p.png"]


def test_everything_may_be_done_twice(mlflow: MlflowStore, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"picture")
    ids = set()
    for _ in range(2):
        run_id = mlflow.create_run_once("k", name="k", parent_id=None, time_ms=1)
        mlflow.log_batch(run_id, Batch((point(1), point(2)), (("lr", "0.1"),), (("t", "x"),)))
        mlflow.log_batch(run_id, Batch((point(2), point(3))))
        mlflow.log_dataset(run_id, DatasetInput(name="digits", digest="ab" * 32, rows={}))
        mlflow.log_artifact(run_id, tmp_path / "p.png", "")
        mlflow.set_terminated(run_id, "FINISHED", 9)
        ids.add(run_id)
    (run,) = mlflow.client.search_runs([mlflow.experiment_id])
    assert ids == {run.info.run_id} and run.info.status == "FINISHED" and len(run.inputs.dataset_inputs) == 1
    assert len(mlflow.client.get_metric_history(run.info.run_id, "valid_error")) == 3


def test_a_run_that_is_started_again_is_running_and_no_longer_interrupted(mlflow: MlflowStore) -> None:
    run_id = mlflow.create_run_once("s/t", name="t", parent_id=None, time_ms=1)
    assert mlflow.close_stale_runs("s/", [], 5) == 1
    run = mlflow.client.get_run(run_id)
    assert run.info.status == "FAILED" and run.data.tags["ladder.interrupted"] == "true"
    assert mlflow.create_run_once("s/t", name="t", parent_id=None, time_ms=7) == run_id
    run = mlflow.client.get_run(run_id)
    assert run.info.status == "RUNNING" and run.data.tags["ladder.interrupted"] == "false"
    assert run.info.start_time == 1


def test_a_stale_run_that_cannot_be_closed_holds_up_no_other(
    mlflow: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, _ = (mlflow.create_run_once(f"s/{name}", name=name, parent_id=None, time_ms=1) for name in "abc")
    real = mlflow.client.set_terminated

    def set_terminated(run_id: str, *arguments: Any) -> None:
        if run_id == first:
            raise MlflowException("deleted a moment ago", error_code=INVALID_PARAMETER_VALUE)
        real(run_id, *arguments)

    monkeypatch.setattr(mlflow.client, "set_terminated", set_terminated)
    assert mlflow.close_stale_runs("s/", [], 5) == 2
    assert sorted(run.info.status for run in mlflow.client.search_runs([mlflow.experiment_id])) == [
        "FAILED",
        "FAILED",
        "RUNNING",
    ]


def test_stale_runs_are_those_of_the_search_that_are_not_live(mlflow: MlflowStore) -> None:
    for key in ("s_1/a", "s_1/b", "s_1/c", "sx1/a"):
        mlflow.create_run_once(key, name=key, parent_id=None, time_ms=1)
    mlflow.set_terminated(str(mlflow.find_run("s_1/c")), "FINISHED", 2)
    assert mlflow.close_stale_runs("s_1/", ["s_1/b"], 5) == 1
    status = {r.data.tags["ladder.key"]: r.info.status for r in mlflow.client.search_runs([mlflow.experiment_id])}
    assert status == {"s_1/a": "FAILED", "s_1/b": "RUNNING", "s_1/c": "FINISHED", "sx1/a": "RUNNING"}


def test_finding_runs(mlflow: MlflowStore) -> None:
    assert mlflow.find_run("k") is None
    run_id = mlflow.create_run_once("k", name="k", parent_id=None, time_ms=1)
    assert mlflow.find_run("k") == run_id and mlflow.still_has(run_id) and not mlflow.still_has("0" * 32)


def test_what_mlflow_never_takes_is_rejected(mlflow: MlflowStore, tmp_path: Path) -> None:
    run_id = mlflow.create_run_once("k", name="k", parent_id=None, time_ms=1)
    mlflow.log_batch(run_id, Batch(params=(("lr", "0.1"),)))
    with pytest.raises(RejectedError, match="Changing param values is not allowed"):
        mlflow.log_batch(run_id, Batch(params=(("lr", "0.2"),)))
    with pytest.raises(RejectedError):
        mlflow.log_batch("0" * 32, Batch(tags=(("a", "b"),)))
    with pytest.raises(RejectedError, match="No such file"):
        mlflow.log_artifact(run_id, tmp_path / "missing", "")
    mlflow.client.delete_run(run_id)
    with pytest.raises(RejectedError, match="must be in the 'active' state"):
        mlflow.log_batch(run_id, Batch((point(1),)))


def test_pages_open_on_runs_and_charts(mlflow: MlflowStore) -> None:
    tags = mlflow.client.get_experiment(mlflow.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_user_name_in_an_old_encoding_is_stored(mlflow: MlflowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes no lone surrogates: not one run was ever stored."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "j\udcfcrg")
    run_id = mlflow.create_run_once("a/t0", name="t0", parent_id=None, time_ms=0)
    assert mlflow.client.get_run(run_id).data.tags["mlflow.user"] == "j?rg"


def test_files_are_stored_on_a_disk_that_sets_no_modes_and_times(
    mlflow: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "bundle").mkdir()
    for path in (tmp_path / "table.md", tmp_path / "bundle" / "weights"):
        path.write_text(path.name)
    run_id = mlflow.create_run_once("a/t0", name="t0", parent_id=None, time_ms=0)
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refused)
    mlflow.log_artifact(run_id, tmp_path / "table.md", "")
    mlflow.log_artifact(run_id, tmp_path / "bundle", "kept")
    stored = [item.path for folder in (None, "kept/bundle") for item in mlflow.client.list_artifacts(run_id, folder)]
    assert stored == ["kept", "table.md", "kept/bundle/weights"]


def test_an_experiment_that_was_deleted_comes_back(sqlite_store: str, mlflow: MlflowStore) -> None:
    mlflow.client.delete_experiment(mlflow.experiment_id)
    again = open_store(sqlite_store, "digits-100", Path("results/a/spool"), "spool")
    assert again.experiment_id == mlflow.experiment_id
    again.create_run_once("k", name="k", parent_id=None, time_ms=1)


def test_a_new_store_is_made_whole_and_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a b#c/mlflow.db", "digits", Path("results/a/spool"), "spool")
    run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
    (tmp_path / "x.txt").write_text("x")
    store.log_artifact(run_id, tmp_path / "x.txt", "")
    store.set_terminated(run_id, "FINISHED", 2)
    assert sorted(p.name for p in (tmp_path / "a b#c").iterdir()) == ["mlartifacts", "mlflow.db"]
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == "" and caplog.records == []


def test_a_file_that_is_no_store_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello " * 100)
    begin = time.monotonic()
    with pytest.raises(TrackingError, match="not readable as one"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db", "digits", Path("results/a/spool"), "spool")
    assert time.monotonic() - begin < 5.0


class TestServer:
    """MLflow's client over HTTP; every answer may be an error."""

    def test_a_server_in_trouble_is_worth_another_try(self, flaky: Any) -> None:
        store = open_store(flaky.address, "digits", Path("results/a/spool"), "spool")
        for trouble in (500, 403, 429, 503, 404):
            flaky.trouble.append(trouble)
            begin = time.monotonic()
            with pytest.raises(TrackingError, match="answered") as caught:
                store.find_run("k")
            assert not isinstance(caught.value, RejectedError)
            assert time.monotonic() - begin < 2.0  # MLflow's own retries, minutes long, are off

    @pytest.mark.parametrize(("status", "unavailable"), [(503, True), (500, False), (502, False), (504, False)])
    def test_a_503_says_that_the_database_is_unavailable(self, flaky: Any, status: int, unavailable: bool) -> None:
        """MLflow answers 503 when its database has no room, is locked or is away: no item is given up because of it."""
        store = open_store(flaky.address, "digits", Path("results/a/spool"), "spool")
        run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        flaky.error_code = "TEMPORARILY_UNAVAILABLE"
        flaky.trouble.append(status)
        with pytest.raises(TrackingError, match="answered") as caught:
            store.log_batch(run_id, Batch((point(1),)))
        assert isinstance(caught.value, UnavailableError) is unavailable
        assert not isinstance(caught.value, RejectedError)

    @pytest.mark.parametrize(("status", "refused"), [(503, False), (500, False), (403, True)])
    def test_a_file_is_refused_by_an_answer_that_is_no_outage(
        self, flaky: Any, tmp_path: Path, status: int, refused: bool
    ) -> None:
        store = open_store(flaky.address, "digits", Path("results/a/spool"), "spool")
        run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        (tmp_path / "file.txt").write_text("content")
        flaky.always = status
        flaky.trouble.append(None)  # the request for the run's artifact address
        with pytest.raises(TrackingError) as caught:
            store.log_artifact(run_id, tmp_path / "file.txt", "")
        assert isinstance(caught.value, RejectedError) is refused, caught.value

    def test_points_that_a_server_did_not_take_are_never_thought_stored(
        self, flaky: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With asynchronous logging MLflow's client answers before the server does, and drops what that refuses."""
        monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
        store = open_store(flaky.address, "digits", Path("results/a/spool"), "spool")
        run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        flaky.trouble.append(503)
        with pytest.raises(TrackingError, match="answered"):
            store.log_batch(run_id, Batch((point(1),)))
        store.log_batch(run_id, Batch((point(1),)))
        assert len(flaky.runs[run_id]["metrics"]) == 1

    def test_a_server_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TrackingError, match="refused") as caught:
            open_store(address, "digits", Path("results/a/spool"), "spool")
        assert not isinstance(caught.value, RejectedError) and len(str(caught.value)) < 400

    def test_a_server_that_creates_a_run_and_fails_to_say_so(self, flaky: Any) -> None:
        store = open_store(flaky.address, "digits", Path("results/a/spool"), "spool")
        flaky.trouble.extend([None, -500])
        with pytest.raises(TrackingError):
            store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        assert len(flaky.active()) == 1

    def test_a_server_that_creates_a_run_long_after_the_client_gave_up(self, flaky: Any) -> None:
        store = open_store(flaky.address, "digits", Path("results/a/spool"), "spool")
        flaky.trouble.extend([None, 500])
        with pytest.raises(TrackingError):
            store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        tags = [{"key": "ladder.key", "value": "k"}, {"key": "ladder.spool", "value": "spool"}]
        flaky.runs_create({"tags": tags, "start_time": 1})  # the first request, at last
        assert len(flaky.active()) == 2
        store.drop_twins({"k": run_id})
        (run,) = flaky.active()
        assert run["info"]["run_id"] == run_id
