"""The courier against a store in memory: nothing twice, nothing lost, few calls, whatever fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladder_search.disk.lock import Lock
from ladder_search.errors import TrackingError
from ladder_search.tracking.courier import Courier
from ladder_search.tracking.events import Artifact, Close, CloseStale, End, Event, Metrics, Start, Tags, event_line
from ladder_search.tracking.folder import SpoolFolder, load_ack, load_status
from ladder_search.tracking.protocol import Batch, DatasetInput, MetricPoint, RejectedError, UnavailableError
from ladder_search.tracking.spool import SpoolAppender

DATA = DatasetInput(name="digits", digest="ab" * 32, rows={"train": 100})


def point(step: int, name: str = "m") -> MetricPoint:
    return MetricPoint(name=name, value=step / 2, step=step, time_ms=1000 + step)


def down() -> TrackingError:
    return TrackingError("the server is down")


def search_events(runs: int = 3, steps: int = 4) -> list[Event]:
    """A small search: a parent and its runs, interleaved as a search interleaves them."""
    keys = [f"d/s/t{i}" for i in range(runs)]
    events: list[Event] = [Start("d/s", "search", 1)]
    events += [Start(key, key[-2:], 2, {"lr": "0.1"}, {"seed": "0"}, "d/s", DATA) for key in keys]
    events += [Metrics(key, (point(step), point(step, "n"))) for step in range(steps) for key in keys]
    events += [Tags(key, {"rung": "1"}) for key in keys]
    events += [End(key, "FINISHED", 9) for key in keys]
    return [*events, End("d/s", "FINISHED", 10), Close(11)]


def fill(path: Path, events: list[Event]) -> None:
    spool = SpoolAppender(path, "exp")
    for event in events:
        spool.append(event)
    spool.close()


@pytest.fixture
def make(tmp_path: Path, store: Any, clock: Any) -> Callable[..., Courier]:
    def build(address: str = "memory", experiment: str = "exp") -> Courier:
        return Courier(tmp_path, lambda _: store, address=address, experiment=experiment, now=clock.now)

    return build


def drain(courier: Courier, limit: int = 100) -> list[float]:
    """Step until all is stored; return the waits that were asked for."""
    waits = []
    for _ in range(limit):
        wait = courier.step()
        if wait is None:
            return waits
        if wait:
            waits.append(wait)
    raise AssertionError("not drained")


def state(store: Any) -> dict[str, Any]:
    return {
        run.key: (run.status, run.end_ms, sorted(run.points), run.params, run.tags, sorted(run.datasets))
        for run in store.runs.values()
    }


def test_a_search_arrives_in_few_calls(tmp_path: Path, store: Any, make: Any) -> None:
    fill(tmp_path, search_events(runs=3, steps=50))
    courier = make()
    drain(courier)
    assert store.calls.count("log_batch") == 3  # one per run with anything to log
    run = store.by_key("d/s/t1")
    assert run.status == "FINISHED" and run.end_ms == 9 and run.parent_id == store.by_key("d/s").id
    assert run.points == {(n, s / 2, s, 1000 + s) for n in "mn" for s in range(50)}
    assert run.params == {"lr": "0.1"} and run.tags == {"seed": "0", "rung": "1"} and run.datasets == {DATA.digest}
    ack = load_ack(courier.folder)
    assert ack is not None and ack.position == courier.folder.events.stat().st_size and ack.ended and ack.open == []
    assert ack.runs == {run.key: run.id for run in store.runs.values()}
    assert courier.backlog() == 0 and courier.sent_events == len(search_events(3, 50))


def test_calls_hold_at_most_a_thousand_items(tmp_path: Path, store: Any, make: Any) -> None:
    params = {f"p{i}": "1" for i in range(250)}
    fill(tmp_path, [Start("k", "k", 1, params, params), Metrics("k", tuple(point(i) for i in range(2500)))])
    drain(make())  # the store asserts the limits
    run = store.by_key("k")
    assert len(run.points) == 2500 and len(run.params) == 250 and len(run.tags) == 250
    assert store.calls.count("log_batch") == 3


def test_sending_everything_twice_changes_nothing(tmp_path: Path, store: Any, make: Any) -> None:
    fill(tmp_path, search_events())
    drain(make())
    once = state(store)
    drain(make())
    assert state(store) == once
    (tmp_path / "ack.json").unlink()
    drain(make())
    assert state(store) == once


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7])
def test_an_acknowledgement_that_lags_behind_changes_nothing(
    tmp_path: Path, store: Any, make: Any, fraction: float
) -> None:
    events = search_events()
    head = int(len(events) * fraction)
    fill(tmp_path, events[:head])
    drain(make())
    old = (tmp_path / "ack.json").read_text()
    fill(tmp_path, events[head:])
    drain(make())
    once = state(store)
    (tmp_path / "ack.json").write_text(old)
    drain(make())
    assert state(store) == once
    assert {run.status for run in store.runs.values()} == {"FINISHED"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spool": 1}', '{"unknown": 1}'])
def test_a_damaged_acknowledgement_counts_as_none(tmp_path: Path, store: Any, make: Any, text: str) -> None:
    fill(tmp_path, search_events())
    (tmp_path / "ack.json").write_text(text)
    drain(make())
    assert len(store.runs) == 4


def test_an_acknowledgement_of_another_store_or_spool_counts_as_none(
    tmp_path: Path, store: Any, make: Any, clock: Any
) -> None:
    fill(tmp_path, search_events())
    drain(make())
    other = type(store)()
    drain(Courier(tmp_path, lambda _: other, address="elsewhere", experiment="exp", now=clock.now))
    assert state(other) == state(store)
    (tmp_path / "events.jsonl").unlink()
    fill(tmp_path, [Start("new", "new", 1)])
    drain(make())
    assert "new" in state(store)


def test_a_store_that_was_emptied_gets_everything_again(tmp_path: Path, store: Any, make: Any) -> None:
    fill(tmp_path, search_events())
    drain(make())
    once = state(store)
    store.runs.clear()
    drain(make())
    assert state(store) == once


def test_every_call_may_fail_once(tmp_path: Path, store: Any, make: Any, clock: Any) -> None:
    fill(tmp_path, search_events())
    reference = type(store)()
    drain(Courier(tmp_path, lambda _: reference, address="other", experiment="exp", now=lambda: 0.0))
    (tmp_path / "ack.json").unlink()
    for _ in range(60):
        store.failures.extend([down(), None])
    courier = make()
    waits = drain(courier)
    assert len(waits) >= 10 and set(waits) == {0.5}
    while (wait := courier.finish()) is not None:  # data sets come last
        clock.sleep(wait)
        courier.step()
    assert state(store) == state(reference)
    assert courier.status.last_error is None


def test_waits_double_up_to_half_a_minute_and_the_status_says_why(tmp_path: Path, store: Any, make: Any) -> None:
    fill(tmp_path, search_events())
    store.failures.extend([down()] * 17)  # from the second failure on, a second call looks whether it is the item
    courier = make()
    waits = [courier.step() for _ in range(9)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    courier.save_status("retrying")
    status = load_status(courier.folder)
    assert status.last_error == "the server is down" and status.backlog_bytes > 0 and status.state == "retrying"
    assert courier.failures == 9
    drain(courier)
    assert courier.failures == 0 and courier.status.last_error is None
    assert courier.status.last_success == "2023-11-14T22:13:20+00:00"


def test_a_database_without_room_refuses_nothing(tmp_path: Path, store: Any, make: Any) -> None:
    """A full SQLite file takes a tag that it has already, and no new metric: that is no fault of the metrics."""
    fill(tmp_path, search_events())
    log_batch, failures = store.log_batch, iter(range(12))

    def full(run_id: str, batch: Batch) -> None:
        if batch.points and next(failures, None) is not None:
            raise UnavailableError("database or disk is full")
        log_batch(run_id, batch)

    store.log_batch = full
    courier = make()
    waits = drain(courier)
    assert len(waits) == 12 and courier.status.rejected == 0
    assert sum(len(run.points) for run in store.runs.values()) == 3 * 4 * 2


def test_a_store_that_cannot_be_opened_is_tried_again(tmp_path: Path, store: Any, clock: Any) -> None:
    fill(tmp_path, search_events())
    attempts = iter([down(), ImportError("no mlflow"), None])

    def open_store(_: str) -> Any:
        if (error := next(attempts)) is not None:
            raise error
        return store

    courier = Courier(tmp_path, open_store, address="x", experiment="exp", now=clock.now)
    assert courier.step() == 0.5
    assert courier.step() == 1.0 and courier.status.last_error == "unexpected ImportError: no mlflow"
    drain(courier)
    assert len(store.runs) == 4


def test_what_the_store_refuses_is_found_given_up_and_counted(tmp_path: Path, store: Any, make: Any) -> None:
    store.poison = {"bad", "worse"}
    points = (*(point(i) for i in range(300)), point(1, "bad"))
    fill(tmp_path, [Start("k", "k", 1, {"p": "1", "worse": "2"}), Metrics("k", points), End("k", "KILLED", 5)])
    courier = make()
    drain(courier)
    run = store.by_key("k")
    assert len(run.points) == 300 and run.params == {"p": "1"} and run.status == "KILLED"
    ack = load_ack(courier.folder)
    assert ack is not None and ack.rejected == 2
    assert store.calls.count("log_batch") < 40
    courier.save_status("idle")
    assert "refused" in str(load_status(courier.folder).last_rejection)


def test_a_run_that_is_refused_altogether_costs_few_calls_and_stops_nobody(
    tmp_path: Path, store: Any, make: Any
) -> None:
    store.poison = {"m"}
    fill(
        tmp_path,
        [
            Start("k", "k", 1),
            Metrics("k", tuple(point(i) for i in range(900))),
            Start("l", "l", 1),
            End("l", "FAILED", 2),
        ],
    )
    courier = make()
    drain(courier)
    assert store.calls.count("log_batch") < 140 and courier.ack is not None and courier.ack.rejected == 900
    assert store.by_key("l").status == "FAILED"


def test_a_refused_creation_gives_up_that_run_only(tmp_path: Path, store: Any, make: Any) -> None:
    store.failures.extend([RejectedError("no"), None, RejectedError("no")])  # asked twice, the store itself in between
    fill(tmp_path, [Start("k", "k", 1, {"p": "1"}), Start("l", "l", 1)])
    courier = make()
    drain(courier)
    assert [run.key for run in store.runs.values()] == ["l"] and courier.ack is not None and courier.ack.rejected == 2


def test_a_run_that_ended_and_starts_again_runs_again(tmp_path: Path, store: Any, make: Any) -> None:
    again = [Start("k", "k", 1), End("k", "FAILED", 2), Start("k", "k", 3), Metrics("k", (point(1),))]
    fill(tmp_path, again)
    drain(make())
    assert store.by_key("k").status == "RUNNING"
    fill(tmp_path, [End("k", "FINISHED", 4)])
    drain(make())
    assert store.by_key("k").status == "FINISHED" and len(store.runs) == 1


def test_events_of_a_run_whose_start_was_lost_make_a_run(tmp_path: Path, store: Any, make: Any) -> None:
    spool = SpoolAppender(tmp_path, "exp")
    spool.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(event_line(4, Metrics("k", (point(1),))))
    courier = make()
    drain(courier)
    assert len(store.by_key("k").points) == 1
    assert courier.ack is not None and courier.ack.missing == 3


def test_artifacts_are_sent_and_a_lost_copy_is_counted(tmp_path: Path, store: Any, make: Any) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "a.png").write_bytes(b"picture")
    real = store.log_artifact

    def log_artifact(run_id: str, path: Path, folder: str) -> None:
        if not path.exists():
            raise RejectedError("gone")
        real(run_id, path, folder)

    store.log_artifact = log_artifact
    fill(tmp_path, [Start("k", "k", 1), Artifact("k", "artifacts/gone", ""), Artifact("k", "artifacts/a.png", "plots")])
    courier = make()
    drain(courier)
    assert store.by_key("k").artifacts == {"plots/a.png": b"picture"}
    assert courier.ack is not None and courier.ack.rejected == 1


def test_stale_runs_are_closed_between_what_came_before_and_after(tmp_path: Path, store: Any, make: Any) -> None:
    events = [Start(f"d/s/t{i}", "t", 1) for i in range(3)]
    fill(tmp_path, [*events, CloseStale("d/s", ("d/s/t0",), 5), CloseStale("other", (), 6), Start("d/s/t1", "t", 7)])
    drain(make())
    assert {run.key: run.status for run in store.runs.values()} == {
        "d/s/t0": "RUNNING",
        "d/s/t1": "RUNNING",
        "d/s/t2": "FAILED",
    }
    assert store.calls.count("close_stale_runs") == 2


def test_damaged_lines_are_passed_and_counted_once(tmp_path: Path, store: Any, make: Any) -> None:
    fill(tmp_path, [Start("k", "k", 1)])
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b"garbage\n")
    courier = make()
    drain(courier)
    assert courier.backlog() == 0
    fill(tmp_path, [End("k", "FINISHED", 2)])
    again = make()
    drain(again)
    assert again.ack is not None and again.ack.unreadable == 1 and store.by_key("k").status == "FINISHED"


class TestFinish:
    """What happens to runs that the search left open."""

    def open_runs(self, path: Path, *more: Event) -> None:
        fill(path, [Start("k", "k", 1), Start("done", "done", 1), End("done", "KILLED", 2), *more])

    def test_after_a_goodbye(self, tmp_path: Path, store: Any, make: Any) -> None:
        self.open_runs(tmp_path, Close(3))
        courier = make()
        drain(courier)
        assert courier.finish() is None
        assert store.by_key("k").status == "FAILED" and store.by_key("k").tags == {"ladder.interrupted": "true"}
        assert store.by_key("done").status == "KILLED" and store.by_key("done").tags == {}
        assert json.loads((tmp_path / "ack.json").read_text())["open"] == []

    def test_after_a_crash(self, tmp_path: Path, store: Any, make: Any) -> None:
        self.open_runs(tmp_path)
        with (tmp_path / "events.jsonl").open("ab") as file:
            file.write(b'{"half a li')
        courier = make()
        drain(courier)
        assert courier.finish() is None
        assert store.by_key("k").status == "FAILED"

    def test_not_while_the_search_lives(self, tmp_path: Path, store: Any, make: Any, clock: Any) -> None:
        spool = SpoolAppender(tmp_path, "exp")
        spool.append(Start("k", "k", 1))
        courier = make()
        drain(courier)
        assert self.waited(courier, clock) == pytest.approx(5.0, abs=0.2)
        assert store.by_key("k").status == "RUNNING"
        spool.close()

    def test_a_lock_that_is_held_for_a_moment_is_waited_for(
        self, tmp_path: Path, store: Any, make: Any, clock: Any
    ) -> None:
        self.open_runs(tmp_path)
        courier = make()
        drain(courier)
        other = Lock(SpoolFolder(tmp_path).appender_lock)
        assert other.acquire()
        assert courier.finish() == 0.1
        clock.sleep(0.3)
        other.release()
        assert courier.finish() is None
        assert store.by_key("k").status == "FAILED"

    def waited(self, courier: Courier, clock: Any) -> float:
        """Call ``finish`` as the writer does and return the seconds that it asked to wait."""
        while (wait := courier.finish()) is not None:
            clock.sleep(wait)
        return sum(clock.sleeps)

    def test_not_before_what_a_resumed_search_has_added(self, tmp_path: Path, store: Any, make: Any) -> None:
        self.open_runs(tmp_path)
        courier = make()
        drain(courier)
        fill(tmp_path, [End("k", "FINISHED", 9)])
        assert courier.finish() == 0.0
        drain(courier)
        assert courier.finish() is None
        assert store.by_key("k").status == "FINISHED"

    def test_a_failing_store_is_tried_again(self, tmp_path: Path, store: Any, make: Any) -> None:
        self.open_runs(tmp_path, Close(3))
        courier = make()
        drain(courier)
        store.failures.append(down())
        assert courier.finish() == 0.5
        assert courier.step() is None and courier.failures == 1
        assert courier.finish() is None
        assert store.by_key("k").status == "FAILED"
