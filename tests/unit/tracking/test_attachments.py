"""Files, data sets and items that a store does not take: each costs itself, and nothing that comes after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from ladder_search.errors import TrackingError
from ladder_search.tracking.events import Artifact, End, Metrics, Start
from ladder_search.tracking.folder import load_ack, load_status
from ladder_search.tracking.protocol import RejectedError
from tests.unit.tracking.test_courier import down, drain, fill, make, point, search_events

__all__ = ["make"]


def file_in(path: Path, name: str = "a.png") -> Artifact:
    place = path / "artifacts" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(name.encode())
    return Artifact("d/s/t0", f"artifacts/{name}", "plots")


@pytest.mark.parametrize("error", [RejectedError("no such bucket"), TrackingError("the bucket does not answer")])
def test_a_file_that_is_not_taken_holds_up_nothing_and_is_sent_by_a_later_sync(
    tmp_path: Path, store: Any, make: Any, clock: Any, error: TrackingError
) -> None:
    real, store.log_artifact = store.log_artifact, Mock(side_effect=error)
    events = search_events()
    fill(tmp_path, [*events[:3], file_in(tmp_path), file_in(tmp_path, "b.png"), *events[3:]])
    courier = make()
    assert drain(courier) == []
    assert {run.status for run in store.runs.values()} == {"FINISHED"}
    assert all(len(store.by_key(f"d/s/t{i}").points) == 8 for i in range(3))
    assert courier.backlog() == 0 and courier.failures == 0
    finished = courier.finish()
    assert finished == (None if isinstance(error, RejectedError) else 0.5)
    ack = load_ack(courier.folder)
    assert ack is not None and ack.rejected == 0
    (sentence,) = {line for line in ack.refusals() if "a.png" in line}
    assert "plots/a.png of t0" in sentence and str(error) in sentence
    store.log_artifact = real
    later = make()
    drain(later)
    assert store.by_key("d/s/t0").artifacts == {"plots/a.png": b"a.png", "plots/b.png": b"b.png"}
    assert later.ack is not None and later.ack.waiting == {} and later.finish() is None


def test_attempts_at_a_file_take_a_tenth_of_the_time_at_most(tmp_path: Path, store: Any, make: Any, clock: Any) -> None:
    def slow(*_: object) -> None:
        clock.seconds += 60.0
        raise TrackingError("the bucket does not answer")

    store.log_artifact = Mock(side_effect=slow)
    fill(tmp_path, [Start("d/s/t0", "t0", 1), file_in(tmp_path), End("d/s/t0", "FINISHED", 3)])
    courier = make()
    drain(courier)
    assert courier.finish() == 600.0
    fill(tmp_path, [Start("l", "l", 4), End("l", "KILLED", 5)])
    drain(courier)
    assert store.by_key("l").status == "KILLED" and store.log_artifact.call_count == 1


def test_many_attachments_cost_few_acknowledgements(
    tmp_path: Path, store: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Mock()
    monkeypatch.setattr("ladder_search.tracking.courier.Ack.save", saved)
    fill(tmp_path, search_events(runs=400, steps=1))
    drain(make())
    assert all(run.datasets for run in store.runs.values() if run.key != "d/s")
    assert saved.call_count < 10


def test_a_newer_file_takes_the_place_of_one_that_waits(tmp_path: Path, store: Any, make: Any) -> None:
    real, store.log_artifact = store.log_artifact, Mock(side_effect=RejectedError("no"))
    fill(tmp_path, [Start("d/s/t0", "t0", 1), file_in(tmp_path, "1/a.png")])
    drain(make())
    fill(tmp_path, [file_in(tmp_path, "2/a.png")])
    drain(make())
    store.log_artifact = real
    drain(make())
    assert store.by_key("d/s/t0").artifacts == {"plots/a.png": b"2/a.png"}
    assert store.calls.count("log_artifact") == 1


def test_a_data_set_that_is_not_taken_holds_up_nothing(tmp_path: Path, store: Any, make: Any) -> None:
    store.log_dataset = Mock(side_effect=TrackingError("this server is too old"))
    fill(tmp_path, search_events())
    courier = make()
    assert drain(courier) == [] and {run.status for run in store.runs.values()} == {"FINISHED"}
    assert courier.ack is not None and "data set digits of t0" in " ".join(courier.ack.refusals())


def test_an_item_at_which_the_server_breaks_is_given_up_and_holds_up_nothing(
    tmp_path: Path, store: Any, make: Any
) -> None:
    real = store.log_batch

    def log_batch(run_id: str, batch: Any) -> None:
        if "cursed" in [point.name for point in batch.points]:
            raise TrackingError("the proxy answered 403 with a page of its own")
        real(run_id, batch)

    store.log_batch = log_batch
    points = (*(point(i) for i in range(300)), point(1, "cursed"))
    fill(tmp_path, [Start("k", "k", 1), Metrics("k", points), End("k", "KILLED", 5), Start("l", "l", 1)])
    courier = make()
    assert drain(courier) == [0.5, 1.0, 2.0, 4.0]
    assert len(store.by_key("k").points) == 300 and store.by_key("k").status == "KILLED" and len(store.runs) == 2
    assert courier.ack is not None and courier.ack.rejected == 1
    courier.save_status("idle")
    assert "403" in str(load_status(courier.folder).last_rejection)


@pytest.mark.parametrize("servers", [2, 3, 4, 5, 7])
def test_one_broken_server_behind_a_load_balancer_costs_nothing(
    tmp_path: Path, store: Any, make: Any, clock: Any, servers: int
) -> None:
    fill(tmp_path, search_events())
    for _ in range(200):
        store.failures.extend([down(), *[None] * (servers - 1)])
    courier = make()
    drain(courier)
    while (wait := courier.finish()) is not None:
        clock.sleep(wait)
        courier.step()
    assert courier.ack is not None and courier.ack.rejected == 0 and courier.ack.waiting == {}
    assert {run.status for run in store.runs.values()} == {"FINISHED"}
    assert all(len(store.by_key(f"d/s/t{i}").points) == 8 for i in range(3))
