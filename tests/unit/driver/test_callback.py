"""Records, runs and console lines of trials, and that nothing which goes wrong there reaches the search."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder_search.driver.callback import SearchCallback
from ladder_search.driver.halt import Halt
from ladder_search.driver.ledger import Ledger
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.tracking import DatasetInput, NullTracker

DATASET = DatasetInput(name="digits", digest="abc", rows={"labelled": 100})


class FakeTracker(NullTracker):
    """Remembers every call; ``broken`` makes every call fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.broken = broken

    def _call(self, name: str, *content: Any) -> None:
        if self.broken:
            raise RuntimeError("the tracker is broken")
        self.calls.append((name, content))

    def start_run(self, key: str, **content: Any) -> None:
        self._call("start", key, content)

    def log_metrics(self, key: str, points: Any) -> None:
        self._call("metrics", key, points)

    def set_tags(self, key: str, tags: Any) -> None:
        self._call("tags", key, tags)

    def end_run(self, key: str, status: Any) -> None:
        self._call("end", key, status)

    def named(self, name: str) -> list[Any]:
        return [content for call, content in self.calls if call == name]


class FakeProgress:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def resumed(self, records: Any) -> None:
        self.lines += [("resumed", record.key) for record in records]

    def started(self, key: str) -> None:
        self.lines.append(("started", key))

    def reported(self, *content: Any) -> None:
        self.lines.append(("reported", *content))

    def ended(self, record: TrialRecord) -> None:
        self.lines.append(("ended", record.key, record.state))


class FullDisk(StudyFolder):
    def write_trial(self, record: TrialRecord) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def _callback(folder: StudyFolder, tracker: Any, **more: Any) -> SearchCallback:
    ticks = iter(range(1000, 100_000))
    return SearchCallback(
        search="digits-100/s",
        folder=folder,
        ledger=Ledger(folder.running),
        tracker=tracker,
        progress=FakeProgress(),  # type: ignore[arg-type]
        epochs=4,
        tags={"study": "digits-100"},
        dataset=DATASET,
        reasons=more.get("reasons", {}),
        halt=more.get("halt", Halt(None)),
        clock=lambda: float(next(ticks)),
    )


def _trial(key: str = "t0003", name: str = "", error: str = "") -> Any:
    settings = {"family": "ladder", "seed": 1, "label_seed": 2, "model": {"lambda_": [1.0, 2.0], "lateral": True}}
    config = {"key": key, "number": 3, "name": name, "params": {"model/x": 0.5}, "settings": settings, "device": "cpu"}
    config |= {"until": 4, "protected": bool(name)}
    counts = SimpleNamespace(num_failures=2)
    return SimpleNamespace(
        config=config, last_result={}, checkpoint=None, get_error=lambda: error, run_metadata=counts, status="RUNNING"
    )


def _report(
    callback: SearchCallback,
    trial: Any,
    *epochs: int,
    error: float = 0.1,
    diverged: bool = False,
    done: bool = False,
    **more: Any,
) -> None:
    rows = [{"epoch": epoch, "step": 10 * epoch, "validation_error": error, "cost": 1.5} for epoch in epochs]
    done = done or diverged or epochs[-1] >= 4
    result = {**rows[-1], "history": rows, "diverged": diverged, "hostname": "node-1", "done": done, **more}
    callback.on_trial_result(iteration=0, trials=[], trial=trial, result=result)
    trial.last_result = result


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    found = StudyFolder(tmp_path / "study")
    found.create({"settings": {"study": "digits-100"}, "store": "sqlite:///x"})
    return found


def test_a_trial_from_start_to_record(folder: StudyFolder) -> None:
    tracker = FakeTracker()
    callback, trial = _callback(folder, tracker), _trial(name="published")
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2)
    _report(callback, trial, 3, 4, error=0.05)
    callback.on_trial_complete(0, [], trial)
    assert callback.problems == []
    (record,) = folder.read_trials()
    assert record == callback.records["t0003"]
    assert (record.state, record.reason, record.validation_error) == ("COMPLETE", "trained to its budget", 0.05)
    assert [row["epoch"] for row in record.epochs] == [1, 2, 3, 4]
    ((key, start),) = tracker.named("start")
    assert key == "digits-100/s/t0003" and start["parent"] == "digits-100/s/search"
    assert start["params"]["model/lambda_"] == "[1.0, 2.0]" and start["params"]["search/model/x"] == 0.5
    assert start["tags"]["trial"] == "t0003" and start["dataset"] == DATASET
    points = [point for _, batch in tracker.named("metrics") for point in batch]
    assert sorted({(p.name, p.step) for p in points if p.name == "cost"}) == [("cost", e) for e in (1, 2, 3, 4)]
    assert {p.name for p in points} == {"step", "validation_error", "cost"}
    assert tracker.named("end") == [("digits-100/s/t0003", "FINISHED")]
    assert ("digits-100/s/t0003", {"host": "node-1"}) in tracker.named("tags")
    assert callback.progress.lines[0] == ("started", "t0003")
    assert callback.progress.lines[-1] == ("ended", "t0003", "COMPLETE")


def test_what_trials_tell_of_their_machines_is_said_once_and_stands_at_each_run(folder: StudyFolder) -> None:
    tracker, note = FakeTracker(), "steps are not compiled, which failed: no space left"
    callback = _callback(folder, tracker)
    for key in ("t0000", "t0001"):
        callback.on_trial_start(0, [], _trial(key))
        _report(callback, _trial(key), 1, note=note)
        _report(callback, _trial(key), 2, note=note)
    assert callback.problems == callback.notes == [note]
    noted = [tags for tags in tracker.named("tags") if "note" in tags[1]]
    assert noted == [(f"digits-100/s/{key}", {"note": note}) for key in ("t0000", "t0001")]


def test_reports_that_come_twice_are_counted_once(folder: StudyFolder) -> None:
    tracker = FakeTracker()
    callback, trial = _callback(folder, tracker), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2)
    callback.on_trial_start(0, [], trial)  # its worker was lost: it starts again from a checkpoint
    _report(callback, trial, 2, 3)
    callback.on_trial_complete(0, [], trial)
    assert [row["epoch"] for row in callback.records["t0003"].epochs] == [1, 2, 3]
    assert len(tracker.named("start")) == 1
    steps = [p.step for _, batch in tracker.named("metrics") for p in batch if p.name == "cost"]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [({"t0003": "stopped at the rung of epoch 2"}, "stopped at the rung of epoch 2"), ({}, "stopped with the search")],
)
def test_a_stopped_trial_says_why(folder: StudyFolder, reasons: dict[str, str], expected: str) -> None:
    tracker = FakeTracker()
    callback, trial = _callback(folder, tracker, reasons=reasons), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2, done=True)
    callback.on_trial_complete(0, [], trial)
    assert (callback.records["t0003"].state, callback.records["t0003"].reason) == ("PRUNED", expected)
    assert tracker.named("end") == [("digits-100/s/t0003", "KILLED")]
    assert ("digits-100/s/t0003", {"status": "PRUNED", "reason": expected, "rung": "2"}) in tracker.named("tags")


def test_a_diverged_trial_leaves_a_record_that_every_json_reader_takes(folder: StudyFolder) -> None:
    callback, trial = _callback(folder, FakeTracker()), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1)
    _report(callback, trial, 2, error=math.nan, diverged=True)
    callback.on_trial_complete(0, [], trial)
    record = callback.records["t0003"]
    assert (record.state, record.reason, record.validation_error) == ("FAIL", "diverged", None)
    text = (folder.trials / "t0003.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["epochs"][1]["validation_error"] is None
    assert folder.read_trials() == [record]


def test_a_crashed_trial_says_its_last_words(folder: StudyFolder) -> None:
    tracker = FakeTracker()
    callback, trial = _callback(folder, tracker), _trial(error="Traceback …\nRuntimeError: out of memory\n")
    callback.on_trial_start(0, [], trial)
    callback.on_trial_error(0, [], trial)
    record = callback.records["t0003"]
    assert (record.state, record.reason) == ("FAIL", "crashed: RuntimeError: out of memory")
    assert record.epochs == () and record.validation_error is None
    assert tracker.named("end") == [("digits-100/s/t0003", "FAILED")]


def test_a_crash_after_the_end_costs_the_last_checkpoint_and_no_result(folder: StudyFolder) -> None:
    """A host may die again and again while it writes the last checkpoint of a trial that was trained to its budget."""
    callback, trial = _callback(folder, FakeTracker()), _trial(error="RuntimeError: the host is gone")
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2, 3, 4, error=0.05)
    callback.on_trial_error(0, [], trial)
    assert (callback.records["t0003"].state, callback.records["t0003"].validation_error) == ("COMPLETE", 0.05)


def test_the_words_of_a_crash_are_those_of_the_trial(folder: StudyFolder) -> None:
    callback, trial = _callback(folder, FakeTracker()), _trial("t1000", error="RuntimeError: out of memory")
    for name in ("t10000", "t1000", "t1000.2"):
        (folder.checkpoints / name).mkdir(parents=True)
        (folder.checkpoints / name / "error.txt").write_text("")
        os.utime(folder.checkpoints / name / "error.txt", (len(name), len(name)))
    callback.on_trial_start(0, [], trial)
    callback.on_trial_error(0, [], trial)
    assert f"(see {folder.checkpoints / 't1000.2' / 'error.txt'})" in callback.problems[0]  # of its latest life


def test_when_nothing_but_crashes_comes_the_search_is_halted(folder: StudyFolder) -> None:
    halt = Halt(None)
    callback = _callback(folder, FakeTracker(), halt=halt)
    for number in range(3):
        assert not halt.stop_all()
        trial = _trial(f"t000{number}", error="RuntimeError: no such device")
        callback.on_trial_start(0, [], trial)
        callback.on_trial_error(0, [], trial)
    assert halt.stop_all() and "crashed" in halt.why()
    assert callback.problems[0] == "t0000: crashed: RuntimeError: no such device"


def test_crashes_beside_a_trial_that_trains_do_not_halt_it(folder: StudyFolder) -> None:
    halt = Halt(None)
    callback = _callback(folder, FakeTracker(), halt=halt)
    callback.on_trial_start(0, [], _trial("t0000"))
    _report(callback, _trial("t0000"), 1)
    for number in range(1, 9):
        callback.on_trial_start(0, [], _trial(f"t000{number}"))
        callback.on_trial_error(0, [], _trial(f"t000{number}", error="RuntimeError: unlucky"))
    assert not halt.stop_all() and len(callback.problems) == 8


def test_the_last_checkpoint_arrives_after_the_end(folder: StudyFolder) -> None:
    from pyarrow.fs import LocalFileSystem

    tracker = FakeTracker()
    callback, trial = _callback(folder, tracker), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2, 3, 4)
    callback.on_trial_complete(0, [], trial)
    assert callback.records["t0003"].checkpoint is None
    seconds = callback.records["t0003"].seconds
    path = folder.checkpoints / "t0003" / "checkpoint_000000"
    trial.checkpoint = SimpleNamespace(path=str(path), filesystem=LocalFileSystem())
    callback.on_checkpoint(0, [], trial, trial.checkpoint)
    (record,) = folder.read_trials()
    assert record.checkpoint == "checkpoints/t0003/checkpoint_000000"
    assert record.seconds == seconds and len(tracker.named("end")) == 1


def test_a_halted_search_records_what_was_running(folder: StudyFolder) -> None:
    tracker = FakeTracker()
    callback = _callback(folder, tracker)
    done, running, silent = _trial("t0000"), _trial("t0001"), _trial("t0002")
    for trial in (done, running, silent):
        callback.on_trial_start(0, [], trial)
    _report(callback, done, 1, 2, 3, 4)
    callback.on_trial_complete(0, [], done)
    _report(callback, running, 1)
    callback.end_all()
    callback.end_all()
    assert {key: record.state for key, record in callback.records.items()} == {
        "t0000": "COMPLETE", "t0001": "PRUNED", "t0002": "PRUNED",
    }  # fmt: skip
    assert len(tracker.named("end")) == 3


def test_a_trial_of_an_earlier_life_goes_on_in_the_same_run(folder: StudyFolder) -> None:
    first = _callback(folder, FakeTracker())
    first.on_trial_start(0, [], _trial())
    _report(first, _trial(), 1, 2)
    tracker = FakeTracker()
    callback, trial = _callback(folder, tracker), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 2, 3, 4, error=0.05)
    callback.on_trial_complete(0, [], trial)
    (record,) = folder.read_trials()
    assert [row["validation_error"] for row in record.epochs] == [0.1, 0.1, 0.05, 0.05]
    assert record.seconds > 1.0  # that of the first life counts
    points = [(point.name, point.step, point.time_ms) for _, batch in tracker.named("metrics") for point in batch]
    assert len(points) == len(set(points)) == 4 * 3  # sent again with the first life's times, and nothing twice
    assert not list(folder.running.iterdir())


def test_a_halted_trial_stays_in_the_ledger_and_an_ended_one_does_not(folder: StudyFolder) -> None:
    callback = _callback(folder, FakeTracker())
    for key in ("t0000", "t0001", "t0002"):
        callback.on_trial_start(0, [], _trial(key))
    _report(callback, _trial("t0000"), 1, 2, 3, 4)
    callback.on_trial_complete(0, [], _trial("t0000"))
    _report(callback, _trial("t0001"), 1, 2, 3, 4)  # its last checkpoint is on its way
    callback.end_all()
    assert {key: record.state for key, record in callback.records.items()} == {
        "t0000": "COMPLETE", "t0001": "PRUNED", "t0002": "PRUNED",
    }  # fmt: skip
    assert sorted(path.stem for path in folder.running.iterdir()) == ["t0001", "t0002"]


def test_what_had_ended_when_the_search_was_killed_is_told_to_everybody(folder: StudyFolder) -> None:
    first = _callback(folder, FakeTracker())
    first.on_trial_start(0, [], _trial())
    _report(first, _trial(), 1, 2, 3, 4)
    tracker = FakeTracker()
    callback = _callback(folder, tracker)
    callback.settle("t0003", str(folder.checkpoints / "t0003" / "checkpoint_000000"), "cpu")
    (record,) = folder.read_trials()
    assert (record.state, record.reason) == ("COMPLETE", "trained to its budget")
    assert record.checkpoint == "checkpoints/t0003/checkpoint_000000"
    assert tracker.named("end") == [("digits-100/s/t0003", "FINISHED")]
    assert len([point for _, batch in tracker.named("metrics") for point in batch]) == 4 * 3
    assert not list(folder.running.iterdir())


def test_a_broken_tracker_costs_no_record_and_is_told_once(folder: StudyFolder) -> None:
    callback, trial = _callback(folder, FakeTracker(broken=True)), _trial()
    callback.on_trial_start(0, [], trial)
    for epoch in (1, 2, 3, 4):
        _report(callback, trial, epoch)
    callback.on_trial_complete(0, [], trial)
    assert folder.read_trials()[0].state == "COMPLETE"
    assert callback.progress.lines[-1] == ("ended", "t0003", "COMPLETE")
    assert len(callback.problems) == 3  # start, reports, end: not one per report
    assert all("RuntimeError: the tracker is broken" in problem for problem in callback.problems)


def test_a_full_disk_leaves_no_run_running(tmp_path: Path) -> None:
    tracker = FakeTracker()
    callback, trial = _callback(FullDisk(tmp_path), tracker), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2, 3, 4)
    callback.on_trial_complete(0, [], trial)
    assert tracker.named("end") == [("digits-100/s/t0003", "FINISHED")]
    assert callback.records["t0003"].state == "COMPLETE"  # the leaderboard still has it
    callback.end_all()
    assert [problem for problem in callback.problems if "No space left on device" in problem] == [
        "record of t0003: OSError: [Errno 28] No space left on device"
    ]


def test_a_record_that_found_no_room_is_written_when_there_is_some(folder: StudyFolder) -> None:
    callback, trial = _callback(folder, FakeTracker()), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2, 3, 4)
    callback.on_checkpoint(0, [], trial, None)
    callback._folder = FullDisk(folder.path)
    callback.on_trial_complete(0, [], trial)
    assert folder.read_trials() == []
    callback._folder = folder
    callback.end_all()
    assert [record.key for record in folder.read_trials()] == ["t0003"] and callback.problems == []
    assert list(folder.running.iterdir()) == [], "its end is still to be told"


def test_weights_that_could_not_be_kept_are_told_once(folder: StudyFolder) -> None:
    callback, trial = _callback(folder, FakeTracker()), _trial()
    callback.on_trial_start(0, [], trial)
    _report(callback, trial, 1, 2)
    callback.on_checkpoint(0, [], trial, None)
    _report(callback, trial, 3, 4)
    callback.on_trial_complete(0, [], trial)
    callback.end_all()
    assert len(callback.problems) == 1 and "t0003: the last checkpoint could not be written" in callback.problems[0]


def test_failures_are_counted_since_the_last_checkpoint(folder: StudyFolder) -> None:
    callback, trial = _callback(folder, FakeTracker()), _trial()
    callback.on_trial_start(0, [], trial)
    callback.on_checkpoint(0, [], trial, None)
    assert trial.run_metadata.num_failures == 0


def test_a_halted_search_knows_which_trials_to_wait_for(folder: StudyFolder) -> None:
    halt = Halt(None)
    callback, trials = _callback(folder, FakeTracker(), halt=halt), [_trial("t0001"), _trial("t0002")]
    for trial in trials:
        callback.on_trial_start(0, [], trial)
    trials[0].status = "TERMINATED"
    assert halt.running() == {"t0002"}


def test_whatever_tune_hands_over_nothing_is_raised(folder: StudyFolder) -> None:
    callback = _callback(folder, FakeTracker())
    stranger = SimpleNamespace(config={})
    callback.on_trial_start(0, [], stranger)
    callback.on_trial_result(0, [], _trial("unknown"), {})
    callback.on_trial_complete(0, [], stranger)
    callback.on_trial_error(0, [], stranger)
    callback.on_checkpoint(0, [], stranger, None)
    assert len(callback.problems) == 5
    assert callback.__getstate__() == {}
