"""Searches on real Ray whose MLflow server dies in the middle, or is not there at all."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers import MlflowServer
from benchmarks.stored import lost_and_doubled, stored_points, stored_runs
from ladder_search.tracking.address import default_store
from ladder_search.tracking.writer import sync
from tests.e2e.conftest import TINY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TRIALS = 4
ENDS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def assert_stored_once(study: Path, store: str) -> None:
    """Compare every row of the store with the records that the search keeps for itself."""
    records = [json.loads(path.read_text()) for path in sorted((study / "trials").glob("*.json"))]
    prefix = f"digits-100/{study.name}"
    runs = [run for run in stored_runs(store, "digits-100") if run.key.startswith(f"{prefix}/")]
    assert {run.key: run.status for run in runs} == {
        f"{prefix}/search": "FINISHED",
        **{f"{prefix}/{record['key']}": ENDS[record["state"]] for record in records},
    }
    assert len(runs) == len(records) + 1 == TRIALS + 1
    assert {run.parent for run in runs if run.key != f"{prefix}/search"} == {f"{prefix}/search"}
    points = [point for point in stored_points(store, "digits-100") if point[0].startswith(f"{prefix}/")]
    found = [point for point in points if point[0] != f"{prefix}/search"]
    expected = {
        (f"{prefix}/{record['key']}", name, row["epoch"]): row[name]
        for record in records
        for row in record["epochs"]
        for name in row.keys() - {"epoch"}
    }
    assert len(expected) > 100
    assert lost_and_doubled(expected, found) == (0, 0)


@pytest.fixture(scope="module")
def server(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server of both searches that has yet to be started; its tables are there, which take MLflow a while to make."""
    root = tmp_path_factory.mktemp("server")
    shutil.copy(tables, root / "mlflow.db")
    server = MlflowServer(default_store(root), root)
    yield server
    server.kill()


def test_no_server_at_all_and_sync_later_twice(
    server: MlflowServer, start: Callable[..., Any], command: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = ("--trials", str(TRIALS), "--epochs", "20", "--name", "offline", "--tracking", server.address)
    more = ("--offline", "--max-concurrent", "1", *TINY)
    ended = start("digits-100", *arguments, *more, folder=tmp_path, new_store=True).ended()
    assert ended.code == 0 and ended.err == "" and ended.left == [], str(ended)
    assert re.search(
        rf"^send the rest   \S*ladder-search sync offline --tracking {server.address}$", ended.out, re.MULTILINE
    ), ended.out
    assert "Sending" not in ended.out
    server.start()
    synced = command("sync", "offline", folder=tmp_path)
    assert synced.returncode == 0 and " event(s) sent" in synced.stdout, str(synced)
    assert sync(ended.study / "spool", server.address).events == 0
    assert_stored_once(ended.study, server.store)


def test_a_server_that_dies_in_the_middle_and_comes_back(
    server: MlflowServer, start: Callable[..., Any], command: Callable[..., Any], tmp_path: Path
) -> None:
    if not server.runs:
        server.start()
    arguments = ("--trials", str(TRIALS), "--epochs", "200", "--name", "dies", "--tracking", server.address)
    search = start("digits-100", *arguments, *TINY, folder=tmp_path, new_store=True)
    search.wait_for(" of 4;")
    server.kill()
    back = threading.Timer(1.0, server.start)
    back.start()
    ended = search.ended()
    back.join()
    assert ended.code == 0 and ended.err == "" and ended.left == [], str(ended)
    synced = command("sync", "dies", folder=tmp_path)
    assert synced.returncode == 0, synced.stderr
    assert_stored_once(ended.study, server.store)
