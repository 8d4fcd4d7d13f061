"""A SQLite store after the kill of its writer, while it is locked, under any umask, and in a folder that was moved."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from ladder_search.errors import StoreBusyError
from ladder_search.tracking import SpoolTracker
from ladder_search.tracking.address import check, check_or_wait, check_sqlite, default_store
from ladder_search.tracking.mlflow_store import MlflowStore, open_store
from ladder_search.tracking.sqlite_store import move_artifacts
from ladder_search.tracking.writer import sync

KILLED_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 2")
database.execute("BEGIN IMMEDIATE")
for number in range(2000):
    database.execute("INSERT INTO tags VALUES (?, ?, ?)", (f"k{number}", "x" * 500, "run"))
os.kill(os.getpid(), signal.SIGKILL)
"""
LOCKING = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the store."""
    command = [sys.executable, "-c", LOCKING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.communicate("")


@pytest.fixture
def path(sqlite_store: str) -> Path:
    return Path(sqlite_store.removeprefix("sqlite:///"))


def test_a_store_whose_writer_was_killed_inside_a_commit_is_healed(path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    journal = path.with_name(path.name + "-journal")
    assert journal.stat().st_size > 512 and path.stat().st_size > 1 << 20  # half of a transaction is in the file
    check(f"sqlite:///{path}")
    assert not journal.exists()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM tags").fetchone() == (0,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_that_is_locked_for_a_moment_is_waited_for(path: Path) -> None:
    with locked(path) as process:
        threading.Timer(0.5, process.kill).start()
        check_sqlite(path)


def test_a_store_that_stays_locked_is_refused_with_the_process_that_has_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(path) as process:
        with pytest.raises(StoreBusyError, match=rf"locked for 0\.2 s by process {process.pid} \(python"):
            check_sqlite(path, patience_s=0.2)
        monkeypatch.setattr(check_sqlite, "__defaults__", (0.2,))
        sentence = check_or_wait(f"sqlite:///{path}")
        assert sentence is not None and f"process {process.pid}" in sentence and "kept in the spool" in sentence
    assert check_or_wait(f"sqlite:///{path}") is None


def test_sync_waits_for_a_locked_store_and_says_which_process_has_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_sqlite, "__defaults__", (0.2,))
    tracker = SpoolTracker(tmp_path / "spool", f"sqlite:///{path}", "exp", start_writer=False)
    tracker.start_run("k", name="k", params={}, tags={})
    tracker.close()
    with locked(path) as process:
        report = sync(tmp_path / "spool", f"sqlite:///{path}", patience_s=1.0)
        assert not report.complete and f"by process {process.pid} (python" in str(report)
    assert sync(tmp_path / "spool", f"sqlite:///{path}").complete


def test_a_spool_and_a_store_that_moved_together_are_up_to_date(path: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    path.rename(tmp_path / "old" / "mlflow.db")
    store = default_store(tmp_path / "old")
    tracker = SpoolTracker(tmp_path / "old" / "s" / "spool", store, "exp", start_writer=False)
    tracker.start_run("k", name="k", params={}, tags={})
    tracker.close()
    assert sync(tmp_path / "old" / "s" / "spool", store).events == 2
    new = (tmp_path / "old").rename(tmp_path / "new")
    assert sync(new / "s" / "spool", default_store(new)).events == 0


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_use_a_new_store(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        store = open_store(default_store(tmp_path), "exp", tmp_path / "a" / "spool", "spool")
        run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
        (tmp_path / "a.png").write_bytes(b"a")
        store.log_artifact(run_id, tmp_path / "a.png", "plots")
    finally:
        os.umask(before)
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == mode
    for found in tmp_path.rglob("*"):
        assert found.stat().st_mode & 0o777 == (mode | (mode & 0o444) >> 2 if found.is_dir() else mode), found


def stocked(root: Path, path: Path) -> tuple[str, MlflowStore]:
    """Put a store with a run that has a file into a folder."""
    root.mkdir()
    shutil.copy(path, root / "mlflow.db")
    store = open_store(default_store(root), "exp", root / "a" / "spool", "spool")
    run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
    (root / "a.png").write_bytes(b"picture")
    store.log_artifact(run_id, root / "a.png", "plots")
    return run_id, store


def locations(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {
            location
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"))
            for (location,) in database.execute(f"SELECT {column} FROM {table}")
        }


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("name", ["results", "a folder #1"])
def test_a_moved_or_copied_folder_has_its_own_artifacts(tmp_path: Path, path: Path, copied: bool, name: str) -> None:
    old, new = tmp_path / name, tmp_path / "elsewhere" / "réssults"
    run_id, _ = stocked(old, path)
    new.parent.mkdir()
    shutil.copytree(old, new) if copied else old.rename(new)
    utils._artifact_repos_cache.clear()  # MLflow keeps the address of a run for as long as the process lives
    store = open_store(default_store(new), "exp", new / "a" / "spool", "spool")
    assert store.find_run("k") == run_id
    assert [file.path for file in store.client.list_artifacts(run_id, "plots")] == ["plots/a.png"]
    (tmp_path / "b.png").write_bytes(b"new")
    store.log_artifact(run_id, tmp_path / "b.png", "plots")
    assert (new / "mlartifacts" / run_id / "artifacts" / "plots" / "b.png").exists()
    assert old.exists() == copied and not (old / "mlartifacts" / run_id / "artifacts" / "plots" / "b.png").exists()
    assert all(location.startswith((new / "mlartifacts").as_uri()) for location in locations(new / "mlflow.db"))


def test_artifacts_that_stay_where_they_were_keep_their_address(tmp_path: Path, path: Path) -> None:
    stocked(tmp_path / "old", path)
    before = locations(tmp_path / "old" / "mlflow.db")
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "mlflow.db").rename(tmp_path / "new" / "mlflow.db")  # without its artifacts
    move_artifacts(tmp_path / "new" / "mlflow.db")
    assert locations(tmp_path / "new" / "mlflow.db") == before
    (tmp_path / "link").symlink_to(tmp_path / "old")
    (tmp_path / "new" / "mlflow.db").rename(tmp_path / "old" / "mlflow.db")
    move_artifacts(tmp_path / "link" / "mlflow.db")  # the same folder under another name
    assert locations(tmp_path / "old" / "mlflow.db") == before


def test_a_new_folder_at_the_old_place_is_left_alone(tmp_path: Path, path: Path) -> None:
    stocked(tmp_path / "results", path)
    shutil.rmtree(tmp_path / "results" / "mlartifacts")
    (tmp_path / "results").rename(tmp_path / "archive")
    stocked(tmp_path / "results", path)
    move_artifacts(tmp_path / "archive" / "mlflow.db")
    here = (tmp_path / "archive" / "mlartifacts").as_uri()
    assert all(location.startswith(here) for location in locations(tmp_path / "archive" / "mlflow.db"))
