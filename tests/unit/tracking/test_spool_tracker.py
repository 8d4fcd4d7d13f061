from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.errors import TrackingError
from ladder_search.tracking import DatasetInput, MetricPoint, NullTracker, SpoolTracker, Tracker
from ladder_search.tracking.events import Artifact, Close, CloseStale, End, Metrics, Start, Tags
from ladder_search.tracking.spool import SpoolReader

STORE = "http://127.0.0.1:1"


def point(value: Any, step: Any = 1, name: str = "m", time_ms: Any = 5) -> MetricPoint:
    return MetricPoint(name=name, value=value, step=step, time_ms=time_ms)


def offline(path: Path, **more: Any) -> SpoolTracker:
    return SpoolTracker(path, STORE, "digits", start_writer=False, **more)


def events(path: Path) -> list[Any]:
    return [record.event for record in SpoolReader(path).read()]


def test_both_trackers_are_trackers(tmp_path: Path) -> None:
    tracker: Tracker = offline(tmp_path)
    null: Tracker = NullTracker()
    assert tracker.close(0.0) is False  # nothing is in any store
    assert null.close() is True


def test_every_call_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    tracker = offline(tmp_path, now=lambda: 7.0)
    data = DatasetInput(name="digits", digest="cd" * 32, rows={"train": 100})
    tracker.start_run(
        "d/t", name="t", params={"lr": 0.1, "n": 2, "on": True}, tags={"a": "b"}, parent="d", dataset=data
    )
    tracker.log_metrics("d/t", [point(0.5), point(np.float32(0.25), np.int64(2))])
    tracker.set_tags("d/t", {"rung": "1"})
    tracker.end_run("d/t", "KILLED")
    tracker.close_stale_runs("d/", ["d/t"])
    assert events(tmp_path) == [
        Start("d/t", "t", 7000, {"lr": "0.1", "n": "2", "on": "True"}, {"a": "b", "data.sha256": "cd" * 32}, "d", data),
        Metrics("d/t", (point(0.5), point(0.25, 2))),
        Tags("d/t", {"rung": "1"}),
        End("d/t", "KILLED", 7000),
        CloseStale("d/", ("d/t",), 7000),
    ]
    tracker.close(0.0)
    assert events(tmp_path)[-1] == Close(7000)
    assert tracker.problems() == []


def test_values_that_are_not_finite_become_a_tag_with_the_first_step(tmp_path: Path) -> None:
    tracker = offline(tmp_path)
    nan, inf = float("nan"), float("inf")
    tracker.log_metrics("k", [point(1.0, 1), point(nan, 2), point(-inf, 3), point(inf, 3, "other")])
    tracker.log_metrics("k", [point(nan, 4)])
    tracker.log_metrics("l", [point(nan, 5)])
    assert events(tmp_path) == [
        Metrics("k", (point(1.0, 1),)),
        Tags("k", {"non_finite.m": "2", "non_finite.other": "3"}),
        Tags("l", {"non_finite.m": "5"}),
    ]
    tracker.close(0.0)


def test_artifacts_are_copied_at_the_time_of_the_call(tmp_path: Path) -> None:
    picture, folder = tmp_path / "p.png", tmp_path / "bundle"
    picture.write_bytes(b"one")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tracker = offline(tmp_path / "spool")
    tracker.log_artifact("k", picture, "plots")
    picture.write_bytes(b"two")
    tracker.log_artifact("k", picture)
    tracker.log_artifact("k", folder, "../out")
    shutil.rmtree(folder)
    found = events(tmp_path / "spool")
    assert [type(event) for event in found] == [Artifact] * 3
    copies = [tmp_path / "spool" / event.file for event in found]
    assert [copy.name for copy in copies] == ["p.png", "p.png", "bundle"]
    assert copies[0].read_bytes() == b"one" and copies[1].read_bytes() == b"two"
    assert (copies[2] / "config.json").read_text() == "{}"
    assert ".." not in found[2].folder
    tracker.close(0.0)


def test_nothing_raises_and_the_reasons_are_told_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker: Any = offline(tmp_path)
    tracker.log_metrics("k", [point("high"), point(1.0, 1), point(None), point(1.0, 2**70), point(1.0, time_ms=-1)])
    tracker.log_artifact("k", tmp_path / "missing.png")
    tracker.end_run("k", "HAPPY")
    tracker.start_run("k", name="k", params=None, tags={})
    tracker.set_tags("k", 3)
    assert events(tmp_path) == [Metrics("k", (point(1.0, 1),))]
    assert len(tracker.problems()) == 8
    with caplog.at_level(logging.WARNING):
        tracker.close(0.0)
    assert "missing.png" in caplog.text and "HAPPY" in caplog.text
    tracker.set_tags("k", {"too": "late"})
    assert len(tracker.problems()) == 9
    for _ in range(50):
        tracker.set_tags("k", {"too": "late"})
    assert len(tracker.problems()) == 21 and tracker.problems()[-1] == "39 more of this kind"


def test_names_and_values_are_fitted_to_the_limits(tmp_path: Path) -> None:
    tracker = offline(tmp_path)
    tracker.start_run("k=1", name="n" * 999, params={"p" * 300: "x" * 9000}, tags={"t\n": "y" * 9000})
    tracker.log_metrics("k=1", [point(1.0, name="err %")])
    start, metrics = events(tmp_path)
    assert start.key == metrics.key != "k=1" and len(start.name) == 250
    ((name, value),) = start.params.items()
    assert len(name) <= 250 and len(value) == 6000
    ((name, value),) = start.tags.items()
    assert "\n" not in name and len(value) == 8000
    assert "%" not in metrics.points[0].name
    tracker.close(0.0)


def test_the_cut_line_of_a_crash_is_said(tmp_path: Path) -> None:
    tracker = offline(tmp_path)
    tracker.set_tags("k", {"a": "b"})
    tracker.close(0.0)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"n":3,"e"')
    again = offline(tmp_path)
    assert "incomplete and is dropped" in again.problems()[0]
    again.close(0.0)


def test_a_wrong_address_or_a_folder_in_use_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="plain folder"):
        SpoolTracker(tmp_path, "mlruns", "digits", start_writer=False)
    tracker = offline(tmp_path)
    with pytest.raises(TrackingError, match="in use by process"):
        offline(tmp_path)
    tracker.close(0.0)


def test_calls_take_microseconds(tmp_path: Path) -> None:
    tracker = offline(tmp_path)
    points = [point(i / 7, i, f"metric{i}") for i in range(20)]
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        tracker.log_metrics("digits/ab/t0001", points)
        tracker.end_run("digits/ab/t0001", "FINISHED")
        times.append(time.perf_counter() - begin)
    tracker.close(0.0)
    assert sorted(times)[150] < 0.005 and sorted(times)[-3] < 0.05


def test_status_and_run_ids_of_a_search_that_has_sent_nothing(tmp_path: Path) -> None:
    tracker = offline(tmp_path)
    assert tracker.status().state == "absent" and tracker.run_id("k") is None
    tracker.close(0.0)
