"""Every metric point reaches the store once, whatever becomes of the server, the line, the writer or the spool.

The server is MLflow's own; what it holds afterwards is counted in its tables.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from benchmarks.servers import MlflowServer, mlflow_server
from benchmarks.stored import Point, stored_points, stored_runs
from ladder_search.errors import TrackingError
from ladder_search.tracking import MetricPoint, SpoolTracker
from ladder_search.tracking.address import check, default_store
from ladder_search.tracking.courier import Courier
from ladder_search.tracking.mlflow_store import open_store
from ladder_search.tracking.writer import sync

STATUSES = ("FINISHED", "KILLED", "FAILED")
EPOCHS = 5
NAMES = ("cost", "validation_error")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers of these tests give up a request after a second instead of ten."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@dataclass
class Search:
    """Records trials whose every point is known, and compares the store with them."""

    folder: Path
    experiment: str
    address: str
    live: bool = True

    def __post_init__(self) -> None:
        self.trials = 0
        self.spool = self.folder / "spool"
        self.tracker = SpoolTracker(self.spool, self.address, self.experiment, start_writer=self.live)
        self.tracker.start_run("s/search", name="search", params={"sampler": "tpe"}, tags={"kind": "search"})

    def record(self, trials: int) -> Search:
        for number in range(self.trials, self.trials + trials):
            key = f"s/t{number}"
            self.tracker.start_run(key, name=key, params={"lr": number}, tags={"trial": str(number)}, parent="s/search")
            for epoch in range(EPOCHS):
                values = [MetricPoint(name=n, value=v, step=epoch, time_ms=t) for _, n, _, t, v in points(key, epoch)]
                self.tracker.log_metrics(key, values)
            self.tracker.end_run(key, STATUSES[number % 3])  # type: ignore[arg-type]
        self.trials += trials
        return self

    def close(self) -> bool:
        self.tracker.end_run("s/search", "FINISHED")
        return self.tracker.close()

    def assert_stored_once(self, store: str) -> None:
        runs = stored_runs(store, self.experiment)
        found = {run.key: (run.status, run.ended, run.parent, run.params) for run in runs}
        assert found == {
            "s/search": ("FINISHED", True, None, {"sampler": "tpe"}),
            **{f"s/t{n}": (STATUSES[n % 3], True, "s/search", {"lr": str(n)}) for n in range(self.trials)},
        }
        assert len(runs) == len(found)
        assert all(run.tags.get("trial", run.key)[-1] == run.key[-1] for run in runs)
        expected = [point for n in range(self.trials) for epoch in range(EPOCHS) for point in points(f"s/t{n}", epoch)]
        assert sorted(stored_points(store, self.experiment)) == sorted(expected)


def points(key: str, epoch: int) -> list[Point]:
    return [(key, name, epoch, 1_700_000_000_000 + epoch, epoch + place / 4) for place, name in enumerate(NAMES)]


def until(condition: Callable[[], Any], limit: float = 40.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_line_with_every_fault(server: MlflowServer, bad_line: Any, tmp_path: Path) -> None:
    search = Search(tmp_path, "line", bad_line.address)
    search.record(3)
    until(lambda: search.tracker.run_id("s/t0"))
    assert search.record(3).close() is True
    assert len(bad_line.met) == len(bad_line.faults)
    bad_line.close()  # what was "done too late" is done now
    assert sync(search.spool, server.address).complete  # another address: everything again
    search.assert_stored_once(server.store)


def test_a_server_that_hangs_does_not_hold_up_the_end(server: MlflowServer, tmp_path: Path) -> None:
    search = Search(tmp_path, "hangs", server.address).record(1)
    until(lambda: search.tracker.run_id("s/t0"))
    server.pause()
    try:
        search.record(4)
        begun = time.monotonic()
        assert search.close() is False
        assert time.monotonic() - begun < 30.0
    finally:
        server.resume()
    assert sync(search.spool, server.address).complete
    search.assert_stored_once(server.store)


def test_a_writer_that_is_killed_in_the_middle_of_its_work(server: MlflowServer, tmp_path: Path) -> None:
    search = Search(tmp_path, "writer", server.address).record(30)
    process = search.tracker._process
    assert process is not None
    until(lambda: stored_points(server.store, "writer"))
    process.kill()
    assert search.close() is False
    assert sync(search.spool, server.address).complete
    search.assert_stored_once(server.store)


def test_two_searches_of_one_name_begin_together_and_are_synced_by_two_each(
    server: MlflowServer, tmp_path: Path
) -> None:
    searches = [Search(tmp_path / name, "together", server.address, live=False).record(3) for name in "ab"]
    for search in searches:
        search.close()
    begin = threading.Barrier(4)
    events: list[int] = []
    refusals: list[str] = []

    def send(search: Search) -> None:
        begin.wait()
        try:
            events.append(sync(search.spool, server.address).events)
        except TrackingError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=send, args=(search,)) for search in searches * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(events) == 2 * (3 * (EPOCHS + 2) + 3) and len(events) + len(refusals) == 4
    assert all("is sent by one process at a time" in refusal for refusal in refusals)
    runs = stored_runs(server.store, "together")
    assert len(runs) == 8 and len({run.tags["ladder.spool"] for run in runs}) == 2
    assert len(stored_points(server.store, "together")) == 2 * 3 * EPOCHS * len(NAMES)


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> str:
    shutil.copy(empty, tmp_path / "mlflow.db")
    return default_store(tmp_path)


def test_a_sync_beside_an_offline_search_and_one_after_it(store: str, tmp_path: Path) -> None:
    search = Search(tmp_path, "beside", store, live=False).record(2)
    assert sync(search.spool, store).complete
    assert {run.status for run in stored_runs(store, "beside") if run.key == "s/search"} == {"RUNNING"}
    search.record(2).close()
    assert sync(search.spool, store).complete and sync(search.spool, store).events == 0
    search.assert_stored_once(store)


def test_a_spool_cut_in_the_middle_of_a_line_and_copied_to_another_machine(store: str, tmp_path: Path) -> None:
    search = Search(tmp_path, "cut", store, live=False).record(2)
    search.close()
    (tmp_path / "elsewhere").mkdir()
    search.spool = shutil.copytree(search.spool, tmp_path / "elsewhere" / "spool")
    events = search.spool / "events.jsonl"
    whole = events.read_bytes()
    events.write_bytes(whole[:-10])  # in the search's goodbye
    report = sync(search.spool, store)
    assert report.complete and report.unreadable == 0
    events.write_bytes(whole)
    assert sync(search.spool, store).events == 1
    search.assert_stored_once(store)
    there = tmp_path / "nowhere"
    with pytest.raises(TrackingError, match=f"is where its search ran, {there} is not here: name a store with --track"):
        sync(search.spool, f"sqlite:///{there / 'mlflow.db'}")


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Iterator[MlflowServer]:
    """A server whose clients write artifacts themselves, to the place that their experiment has for them."""
    root = tmp_path_factory.mktemp("direct")
    shutil.copy(empty, root / "mlflow.db")
    with mlflow_server(default_store(root), root, "--no-serve-artifacts", "--allowed-hosts", "*") as running:
        yield running


@pytest.mark.parametrize(
    ("experiment", "place"), [("bucket", "s3://team-bucket/x"), ("far", "/only/the/server"), ("blocked", "a file")]
)
def test_a_server_whose_artifact_store_cannot_be_used_here_gets_all_but_the_files(
    experiment: str, place: str, direct: MlflowServer, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    location = str(tmp_path / "a file" / "x") if place == "a file" else place
    (tmp_path / "study.json").write_text("{}")
    MlflowClient(direct.address).create_experiment(experiment, artifact_location=location)
    address = direct.address
    if place == "/only/the/server":  # as on another machine: a folder that must not be made here
        address = address.replace("127.0.0.1", "0.0.0.0")
    search = Search(tmp_path, experiment, address)
    search.tracker.log_artifact("s/search", tmp_path / "study.json")
    assert search.record(3).close() is False and search.tracker.stored_but_files
    (problem,) = search.tracker.problems()
    assert "1 file(s) (study.json of search) not stored: " in problem
    assert ("boto3" if place.startswith("s3") else "/only/the/server" if place[0] == "/" else "a file") in problem
    search.assert_stored_once(direct.store)
    begun = time.monotonic()
    report = sync(search.spool, address)
    assert time.monotonic() - begun < 40.0  # a store that is away is tried for 60 s
    assert not report.complete and report.events == 0 and report.files == (problem,) and problem in str(report)
    assert not Path("/only").exists()

    with closing(sqlite3.connect(direct.folder / "mlflow.db")) as database, database:  # the place can be used now
        (folder := tmp_path / "bucket").mkdir()
        of_it = (folder.as_uri(), experiment)
        database.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", of_it)
        own = "(SELECT experiment_id FROM experiments WHERE name = ?)"
        database.execute(f"UPDATE runs SET artifact_uri = ? WHERE experiment_id = {own}", of_it)
    _artifact_repos_cache.clear()
    report = sync(search.spool, address)
    assert report.complete and report.files == () and str(report) == "0 event(s) sent"
    assert (folder / "study.json").read_text() == "{}"
    search.assert_stored_once(direct.store)


@pytest.mark.parametrize("done", ["experiment deleted", "store emptied"])
def test_what_someone_removes_from_the_store_comes_back(done: str, store: str, tmp_path: Path, empty: Path) -> None:
    search = Search(tmp_path, "removed", store, live=False).record(2)
    opened = partial(open_store, store, "removed", search.spool)
    courier = Courier(search.spool, opened, address=store, experiment="removed", now=time.time)
    while courier.step() is not None:
        pass
    if done == "experiment deleted":
        other = opened("")
        other.client.delete_experiment(other.experiment_id)
    else:
        shutil.copy(empty, tmp_path / "mlflow.db")
    search.record(2).close()
    while courier.step() is not None:
        pass
    assert courier.backlog() == 0 and courier.ack is not None and courier.ack.rejected == 0
    search.assert_stored_once(store)


def test_a_server_that_does_not_know_its_name(server: MlflowServer) -> None:
    # A name of loopback that the server was not started with; the check is a process of its own and resolves it itself.
    with pytest.raises(TrackingError, match=rf"restart it with --allowed-hosts 127.1:{server.port}, or use its IP"):
        check(f"http://127.1:{server.port}")
