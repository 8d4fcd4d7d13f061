"""``sync`` with a clock that does not run, and the writer process with searches that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ladder_search
from ladder_search.disk.lock import Lock
from ladder_search.errors import TrackingError
from ladder_search.tracking import MetricPoint, SpoolTracker
from ladder_search.tracking.folder import SpoolFolder, load_status
from ladder_search.tracking.spool import SpoolReader
from ladder_search.tracking.writer import sync

HOME = Path(ladder_search.__file__).parents[1]
NOWHERE = "http://127.0.0.1:1"


def point(step: int) -> MetricPoint:
    return MetricPoint(name="m", value=step / 2, step=step, time_ms=1000 + step)


def record(tracker: SpoolTracker, runs: int = 2, end: bool = True) -> None:
    tracker.start_run("d/s", name="search", params={}, tags={})
    for i in range(runs):
        tracker.start_run(f"d/s/t{i}", name=f"t{i}", params={"lr": 0.1}, tags={"seed": "0"}, parent="d/s")
        for step in range(5):
            tracker.log_metrics(f"d/s/t{i}", [point(step)])
        if end:
            tracker.end_run(f"d/s/t{i}", "FINISHED")
    if end:
        tracker.end_run("d/s", "FINISHED")


def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class TestSync:
    def sync(self, path: Path, store: Any, clock: Any, **more: Any) -> Any:
        return sync(path, NOWHERE, open_store=lambda *_: store, now=clock.now, sleep=clock.sleep, **more)

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Path:
        tracker = SpoolTracker(tmp_path / "spool", NOWHERE, "digits", start_writer=False)
        record(tracker)
        tracker.close(0.0)
        return tmp_path / "spool"

    def test_it_sends_what_is_left_once(self, spool: Path, store: Any, clock: Any) -> None:
        report = self.sync(spool, store, clock)
        assert report.complete and report.events == 17 and str(report) == "17 event(s) sent"
        assert {run.status for run in store.runs.values()} == {"FINISHED"}
        again = self.sync(spool, store, clock)
        assert again.complete and again.events == 0 and len(store.runs) == 3
        assert load_status(SpoolFolder(spool)).state == "done"

    def test_the_experiment_is_the_spools_own(self, spool: Path, store: Any, clock: Any) -> None:
        seen = []
        sync(spool, NOWHERE, open_store=lambda *a: (seen.append(a), store)[1], now=clock.now, sleep=clock.sleep)
        sync(spool, NOWHERE, "mine", open_store=lambda *a: (seen.append(a), store)[1], now=clock.now, sleep=clock.sleep)
        assert [call[:2] for call in seen] == [(NOWHERE, "digits"), (NOWHERE, "mine")]

    def test_it_waits_for_a_store_that_comes_back(self, spool: Path, store: Any, clock: Any) -> None:
        store.failures.extend([TrackingError("down")] * 6)
        assert self.sync(spool, store, clock).complete
        assert clock.sleeps == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]

    def test_it_gives_up_on_one_that_does_not(self, spool: Path, store: Any, clock: Any) -> None:
        store.failures.extend([TrackingError("the server is down")] * 100)
        report = self.sync(spool, store, clock, patience_s=20.0)
        assert not report.complete and report.error == "the server is down" and report.left_bytes > 0
        assert sum(clock.sleeps) <= 20.0 and "byte(s) left; not all: the server is down" in str(report)
        store.failures.clear()
        assert self.sync(spool, store, clock).complete and len(store.runs) == 3

    def test_runs_left_open_are_ended(self, tmp_path: Path, store: Any, clock: Any) -> None:
        tracker = SpoolTracker(tmp_path / "spool", NOWHERE, "digits", start_writer=False)
        record(tracker, end=False)
        assert self.sync(tmp_path / "spool", store, clock).complete
        assert {run.status for run in store.runs.values()} == {"RUNNING"}  # the search is still there
        tracker.close(0.0)
        assert self.sync(tmp_path / "spool", store, clock).complete
        assert {run.status for run in store.runs.values()} == {"FAILED"}

    def test_a_folder_without_spool(self, tmp_path: Path, store: Any, clock: Any) -> None:
        with pytest.raises(TrackingError, match=r"holds events\.jsonl, .* does not: name the folder"):
            self.sync(tmp_path, store, clock)

    def test_a_wrong_address(self, spool: Path) -> None:
        with pytest.raises(TrackingError, match="must be reachable"):
            sync(spool, NOWHERE)

    def test_one_sender_at_a_time(self, spool: Path, store: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ladder_search.tracking.writer.LOCK_PATIENCE_S", 0.2)
        lock = Lock(SpoolFolder(spool).writer_lock)
        assert lock.acquire()
        with pytest.raises(TrackingError, match=f"being sent by process {os.getpid()}, the writer of a live search"):
            self.sync(spool, store, clock)
        lock.release()
        assert self.sync(spool, store, clock).complete


class TestProcess:
    def test_a_search_and_its_writer(self, tmp_path: Path, sqlite_store: str) -> None:
        from ladder_search.tracking.mlflow_store import open_store

        tracker = SpoolTracker(tmp_path / "spool", sqlite_store, "digits")
        process = tracker._process
        assert process is not None and os.getsid(process.pid) != os.getsid(0)
        assert sqlite_store not in Path(f"/proc/{process.pid}/cmdline").read_text()
        record(tracker)
        (tmp_path / "p.png").write_bytes(b"picture")
        tracker.log_artifact("d/s", tmp_path / "p.png", "plots")
        until(lambda: tracker.run_id("d/s/t1"))
        os.kill(process.pid, signal.SIGINT)  # Ctrl-C is the search's affair
        with pytest.raises(TrackingError, match=f"being sent by process {process.pid}"):
            sync(tmp_path / "spool", sqlite_store)
        assert tracker.close(60.0) is True
        assert tracker.problems() == [] and process.returncode == 0
        assert tracker.status().state == "done" and tracker.status().last_error is None
        assert (tmp_path / "spool" / "writer.log").read_text() == ""

        store = open_store(sqlite_store, "digits", tmp_path / "spool", tracker._spool.header.spool)
        assert store.find_run("d/s/t1") == tracker.run_id("d/s/t1")
        assert len(store.client.get_metric_history(str(store.find_run("d/s/t0")), "m")) == 5
        assert (tmp_path / "mlartifacts" / str(store.find_run("d/s")) / "artifacts/plots/p.png").exists()
        assert sync(tmp_path / "spool", sqlite_store).events == 0

    def test_a_killed_search_is_recorded_to_its_last_event(self, tmp_path: Path, sqlite_store: str) -> None:
        """Another process holds the lock of the spool after the kill: a ``sync``, or the rest of the search."""
        from ladder_search.tracking.mlflow_store import open_store

        script = tmp_path / "driver.py"
        script.write_text(
            "import sys, time\n"
            "from pathlib import Path\n"
            "from ladder_search.tracking import MetricPoint, SpoolTracker\n"
            "if __name__ == '__main__':\n"
            "    tracker = SpoolTracker(Path(sys.argv[1]), sys.argv[2], 'digits')\n"
            "    tracker.start_run('k', name='k', params={}, tags={})\n"
            "    for i in range(500):\n"
            "        tracker.log_metrics('k', [MetricPoint(name='m', value=i, step=i, time_ms=i)])\n"
            "    assert 'mlflow' not in sys.modules\n"
            "    print('ready', flush=True)\n"
            "    time.sleep(600)\n"
        )
        spool = SpoolFolder(tmp_path / "spool")
        driver = subprocess.Popen(
            [sys.executable, str(script), str(spool.path), sqlite_store],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HOME)},
        )
        assert driver.stdout is not None and driver.stdout.readline() == b"ready\n"
        until(lambda: load_status(spool).state == "idle")
        os.kill(load_status(spool).pid, signal.SIGSTOP)
        driver.kill()
        other = Lock(spool.appender_lock)
        assert other.acquire(5.0)
        os.kill(load_status(spool).pid, signal.SIGCONT)
        time.sleep(1.0)  # the writer has seen the end of the search and has found the lock held
        other.release()
        driver.wait()
        driver.stdout.close()
        until(lambda: load_status(spool).state == "done")
        until(lambda: not alive(load_status(spool).pid))
        header = SpoolReader(spool.path).header()
        assert header is not None
        store = open_store(sqlite_store, "digits", spool.path, header.spool)
        run = store.client.get_run(str(store.find_run("k")))
        assert run.info.status == "FAILED" and run.data.tags["ladder.interrupted"] == "true"
        assert len(store.client.get_metric_history(run.info.run_id, "m")) == 500

        tracker = SpoolTracker(spool.path, sqlite_store, "digits", start_writer=False)  # the search is resumed
        tracker.start_run("k", name="k", params={}, tags={})
        tracker.end_run("k", "FINISHED")
        tracker.close(0.0)
        assert sync(spool.path, sqlite_store).complete
        (run,) = store.client.search_runs([store.experiment_id])
        assert run.info.status == "FINISHED" and run.data.tags["ladder.interrupted"] == "false"

    def test_a_server_in_trouble_never_holds_up_the_search(
        self, tmp_path: Path, flaky: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")  # which would lose points without a word
        flaky.always = 500
        tracker = SpoolTracker(tmp_path / "spool", flaky.address, "digits")
        times = []
        for step in range(200):
            begin = time.perf_counter()
            tracker.log_metrics("d/s/t9", [point(step)])
            times.append(time.perf_counter() - begin)
        record(tracker)
        until(lambda: tracker.status().last_error)
        assert tracker.status().state == "retrying" and "answered" in str(tracker.status().last_error)
        assert sorted(times)[-3] < 0.05
        flaky.always = None
        flaky.trouble.extend([-500, None, None, -503, None, 403, None, -500, None])
        assert tracker.close(60.0) is True
        runs = {run["tags"]["ladder.key"]: run for run in flaky.active()}
        assert len(runs) == len(flaky.active()) == 4
        assert len(runs["d/s/t9"]["metrics"]) == 200 and runs["d/s/t0"]["info"]["status"] == "FINISHED"
        assert runs["d/s/t0"]["tags"]["mlflow.parentRunId"] == runs["d/s"]["info"]["run_id"]

    def test_a_server_that_stays_away_leaves_all_to_sync(self, tmp_path: Path, flaky: Any) -> None:
        tracker = SpoolTracker(tmp_path / "spool", NOWHERE, "digits")
        process = tracker._process
        record(tracker)
        begin = time.monotonic()
        assert tracker.close(0.5) is False
        assert time.monotonic() - begin < 6.0
        assert process is not None and process.returncode is not None
        assert tracker.close() is False
        assert sync(tmp_path / "spool", flaky.address).complete
        assert {run["info"]["status"] for run in flaky.active()} == {"FINISHED"} and len(flaky.active()) == 3

    def test_a_writer_that_dies_is_started_again(self, tmp_path: Path, flaky: Any) -> None:
        late = [0.0]
        tracker = SpoolTracker(tmp_path / "spool", flaky.address, "digits", now=lambda: time.time() + late[0])
        first = tracker._process
        assert first is not None
        first.kill()
        first.wait()
        late[0] = 60.0
        record(tracker)
        assert tracker._process is not first
        assert tracker.close(60.0) is True
        assert tracker.problems() == ["the writer process ended with code -9 and was started again"]
        assert len(flaky.active()) == 3
