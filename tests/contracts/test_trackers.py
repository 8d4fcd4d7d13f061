"""What every tracker promises, checked in MLflow itself: one scenario, several ways from the search to the store."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers import mlflow_server
from ladder_search.tracking import DatasetInput, MetricPoint, NullTracker, SpoolTracker, Tracker
from ladder_search.tracking.address import default_store
from ladder_search.tracking.mlflow_store import open_store
from ladder_search.tracking.writer import sync

PICTURE = b"\x89PNG\r\n\x1a\n not really"
DATA = DatasetInput(name="digits", digest="ab" * 32, rows={"train": 100, "valid": 50})
WAYS = ["live", "offline", "crashed", "ack lost"]


def point(name: str, value: float, step: int) -> MetricPoint:
    return MetricPoint(name=name, value=value, step=step, time_ms=1_700_000_000_000 + step)


def scenario(tracker: Tracker, folder: Path) -> None:
    """A search with one trial of each end."""
    (folder / "parallel.png").write_bytes(PICTURE)
    tracker.start_run("digits/ab", name="digits ab", params={"sampler": "tpe"}, tags={"study": "digits"})
    for i, status in enumerate(("FINISHED", "KILLED", "FAILED")):
        key = f"digits/ab/t{i}"
        params = {"model/noise": 0.3, "seed": i, "lateral": "mlp", "curve": True}
        tracker.start_run(key, name=f"t{i}", params=params, tags={"trial": str(i)}, parent="digits/ab", dataset=DATA)
        for step in range(3):
            value = float("nan") if status == "FAILED" and step else 0.5 - step / 10
            tracker.log_metrics(key, [point("valid_error", value, step), point("train_cost", 1.0, step)])
        tracker.set_tags(key, {"status": status.lower()})
        tracker.end_run(key, status)  # type: ignore[arg-type]
    tracker.log_artifact("digits/ab", folder / "parallel.png", "plots")
    tracker.end_run("digits/ab", "FINISHED")


def state(store: str) -> dict[str, Any]:
    """All that MLflow knows of the experiment, except ids and times of its own."""
    client_store = open_store(store, "digits", Path("results/a/spool"), "")
    client = client_store.client
    runs = {run.data.tags["ladder.key"]: run for run in client.search_runs([client_store.experiment_id])}
    names = {run.info.run_id: key for key, run in runs.items()}
    return {
        key: {
            "status": run.info.status,
            "ended": run.info.end_time is not None,
            "name": run.info.run_name,
            "params": run.data.params,
            "tags": {k: v for k, v in run.data.tags.items() if not k.startswith(("mlflow.", "ladder.spool"))},
            "parent": names.get(run.data.tags.get("mlflow.parentRunId", "")),
            "history": {
                m: [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, m)]
                for m in run.data.metrics
            },
            "data": [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs],
            "artifacts": [f.path for f in client.list_artifacts(run.info.run_id, "plots")],
        }
        for key, run in runs.items()
    }


def expected() -> dict[str, Any]:
    """Written by hand."""
    found: dict[str, Any] = {
        "digits/ab": {
            "status": "FINISHED",
            "ended": True,
            "name": "digits ab",
            "params": {"sampler": "tpe"},
            "tags": {"ladder.key": "digits/ab", "study": "digits"},
            "parent": None,
            "history": {},
            "data": [],
            "artifacts": ["plots/parallel.png"],
        }
    }
    at = 1_700_000_000_000
    for i, status in enumerate(("FINISHED", "KILLED", "FAILED")):
        errors = [(0, 0.5, at)] if status == "FAILED" else [(0, 0.5, at), (1, 0.4, at + 1), (2, 0.3, at + 2)]
        tags = {"ladder.key": f"digits/ab/t{i}", "trial": str(i), "status": status.lower(), "data.sha256": "ab" * 32}
        found[f"digits/ab/t{i}"] = {
            "status": status,
            "ended": True,
            "name": f"t{i}",
            "params": {"model/noise": "0.3", "seed": str(i), "lateral": "mlp", "curve": "True"},
            "tags": tags | ({"non_finite.valid_error": "1"} if status == "FAILED" else {}),
            "parent": "digits/ab",
            "history": {"valid_error": errors, "train_cost": [(0, 1.0, at), (1, 1.0, at + 1), (2, 1.0, at + 2)]},
            "data": [("digits", "ab" * 16)],
            "artifacts": [],
        }
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty")
    open_store(default_store(root), "unused", root / "a" / "spool", "")
    return root / "mlflow.db"


@pytest.mark.parametrize("way", WAYS)
def test_the_same_runs_arrive_by_every_way(way: str, tmp_path: Path, empty: Path) -> None:
    shutil.copy(empty, tmp_path / "mlflow.db")
    store, spool = default_store(tmp_path), tmp_path / "spool"
    tracker = SpoolTracker(spool, store, "digits", start_writer=way == "live")
    scenario(tracker, tmp_path)
    if way == "live":
        assert tracker.close(60.0) is True
    elif way == "offline":
        assert tracker.close(0.0) is False
    elif way == "crashed":
        assert sync(spool, store).complete  # beside the search, which never says goodbye
        tracker._spool.close()
        with (spool / "events.jsonl").open("ab") as file:
            file.write(b'{"n":99,"e":"met')
    else:
        tracker.close(0.0)
        assert sync(spool, store).complete
        (spool / "ack.json").unlink()
    report = sync(spool, store)
    assert report.error is None and report.rejected == report.missing == report.unreadable == 0
    assert state(store) == expected()


def test_the_null_tracker_takes_the_same_calls(tmp_path: Path) -> None:
    tracker = NullTracker()
    scenario(tracker, tmp_path)
    tracker.close_stale_runs("digits/", [])
    assert tracker.close() is True


def test_a_resumed_search_leaves_nothing_running_and_nothing_twice(tmp_path: Path, empty: Path) -> None:
    shutil.copy(empty, tmp_path / "mlflow.db")
    store, spool = default_store(tmp_path), tmp_path / "spool"
    tracker = SpoolTracker(spool, store, "digits", start_writer=False)
    for key in ("digits/ab", "digits/ab/t0", "digits/ab/t1", "digits/cd"):
        tracker.start_run(key, name=key, params={}, tags={})
        tracker.log_metrics(key, [point("valid_error", 0.5, 1)])
    tracker._spool.close()  # killed
    assert sync(spool, store).complete
    again = SpoolTracker(spool, store, "digits", start_writer=False)
    again.close_stale_runs("digits/ab", ["digits/ab", "digits/ab/t0"])
    for key in ("digits/ab", "digits/ab/t0"):
        again.start_run(key, name=key, params={}, tags={})
        again.log_metrics(key, [point("valid_error", 0.5, 1), point("valid_error", 0.4, 2)])
        again.end_run(key, "FINISHED")
    again.close(0.0)
    assert sync(spool, store).complete
    found = state(store)
    assert {key: run["status"] for key, run in found.items()} == {
        "digits/ab": "FINISHED",
        "digits/ab/t0": "FINISHED",
        "digits/ab/t1": "FAILED",
        "digits/cd": "FAILED",
    }
    assert len(found["digits/ab/t0"]["history"]["valid_error"]) == 2


@pytest.fixture
def served(tmp_path: Path, empty: Path) -> Iterator[tuple[str, str]]:
    """A real MLflow server as ``ui_command`` starts it: its store and its address."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    store = default_store(tmp_path)
    with mlflow_server(store, tmp_path) as server:
        yield store, server.address


def get(url: str, host: str | None = None) -> bytes:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def test_mlflows_pages_show_runs_and_pictures_of_both_ways_in(served: tuple[str, str], tmp_path: Path) -> None:
    store, address = served
    for way, target in (("file", store), ("server", address)):
        tracker = SpoolTracker(tmp_path / f"spool-{way}", target, f"digits {way}", start_writer=False)
        scenario(tracker, tmp_path)
        tracker.close(0.0)
        report = sync(tmp_path / f"spool-{way}", target)
        assert report.complete and report.rejected == 0
        parent = tracker.run_id("digits/ab")
        assert get(f"{address}/get-artifact?run_uuid={parent}&path=plots/parallel.png") == PICTURE
        listing = json.loads(get(f"{address}/ajax-api/2.0/mlflow/artifacts/list?run_id={parent}&path=plots"))
        assert [file["path"] for file in listing["files"]] == ["plots/parallel.png"]
    assert len(list((tmp_path / "mlartifacts").rglob("parallel.png"))) == 2  # one place for both
    assert b"<html" in get(address)

    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", host="mlflow.lab:5000")
    assert refused.value.code == 403 and b"Invalid Host header" in refused.value.read()
