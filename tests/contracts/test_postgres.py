"""PostgreSQL as MLflow's store: the tables are counted past MLflow, on a cluster that the test makes and removes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from benchmarks.servers import postgres, postgres_programs
from benchmarks.stored import stored_points, stored_runs
from ladder_search.errors import TrackingError
from ladder_search.tracking import MetricPoint, SpoolTracker
from ladder_search.tracking.address import check
from ladder_search.tracking.mlflow_store import open_store
from ladder_search.tracking.writer import sync

TRIALS, POINTS = 60, 20

pytestmark = pytest.mark.skipif(
    postgres_programs() is None, reason="PostgreSQL is not installed (Debian: apt install postgresql)"
)


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with postgres() as address:
        yield address


def test_two_begin_together_on_an_empty_database(store: str, tmp_path: Path) -> None:
    check(store)
    found: list[str] = []
    begin = threading.Barrier(2)

    def begin_search(name: str) -> None:
        begin.wait()
        found.append(open_store(store, "race", tmp_path / name / "spool", name).experiment_id)

    threads = [threading.Thread(target=begin_search, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and len(set(found)) == 1


def test_sixty_trials_of_twenty_points_arrive_once_and_are_found_by_their_tag(store: str, tmp_path: Path) -> None:
    tracker = SpoolTracker(tmp_path / "search" / "spool", store, "digits-100")
    tracker.start_run("s/search", name="search", params={}, tags={})
    (tmp_path / "picture.png").write_bytes(b"picture")
    tracker.log_artifact("s/search", tmp_path / "picture.png")
    expected = []
    for number in range(TRIALS):
        key = f"s/t{number:04d}"
        tracker.start_run(key, name=key, params={"lr": 0.1}, tags={"trial": f"t{number:04d}"}, parent="s/search")
        for step in range(POINTS):
            expected.append((key, "validation_error", step, 1_700_000_000_000 + step, number + step / 32))
            point = MetricPoint(name="validation_error", value=expected[-1][4], step=step, time_ms=expected[-1][3])
            tracker.log_metrics(key, [point])
        tracker.end_run(key, "FINISHED")
    tracker.end_run("s/search", "FINISHED")
    assert tracker.close() is True
    (tmp_path / "search" / "spool" / "ack.json").unlink()
    assert sync(tmp_path / "search" / "spool", store).rejected == 0  # all of it again
    assert sorted(stored_points(store, "digits-100")) == sorted(expected)
    runs = stored_runs(store, "digits-100")
    assert len(runs) == TRIALS + 1 and {run.status for run in runs} == {"FINISHED"}
    assert (tmp_path / "mlartifacts").is_dir()  # beside the study folders, wherever the search was started

    reader = open_store(store, "digits-100", tmp_path / "search" / "spool", "")
    (run,) = reader.client.search_runs([reader.experiment_id], "tags.trial = 't0042'")
    assert run.data.metrics == {"validation_error": 42 + 19 / 32}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [("mlflow:secret@", "password authentication failed"), ("/nothing", 'database "nothing" does not exist')],
)
def test_a_database_that_does_not_let_us_in(wrong: str, sentence: str, store: str) -> None:
    user, _, place = store.removeprefix("postgresql://").partition("@")
    address = f"postgresql://{wrong}{place}" if "@" in wrong else store.removesuffix("/postgres") + wrong
    with pytest.raises(TrackingError, match=f"accept the login.*{sentence}.*check host, port, user") as caught:
        check(address)
    assert "secret" not in str(caught.value) and user.partition(":")[2] not in str(caught.value)


def test_a_database_of_another_program(store: str) -> None:
    engine = sqlalchemy.create_engine(store, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE other"))
    other = store.removesuffix("/postgres") + "/other"
    with sqlalchemy.create_engine(other, poolclass=sqlalchemy.NullPool).begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE theirs (id integer)"))
    with pytest.raises(TrackingError, match=r"must be MLflow's, postgresql://mlflow:\*\*\*@.*/other holds something"):
        check(other)
