"""Reports that come before everything else, and what a later life of the search makes of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ladder_search.driver.ledger import Ledger
from ladder_search.errors import StudyFolderError

BEGUN = {"key": "t0003", "number": 3, "name": "", "params": {"x": 0.5}, "settings": {"model": {"x": 0.5}}}
TRIAL = {**BEGUN, "start": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def _rows(*epochs: int, error: float = 0.1) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "validation_error": error} for epoch in epochs]


def _reported(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.begin(TRIAL)
    ledger.report(TRIAL, _rows(1, 2), time_ms=1000, seconds=2.0, end=None)
    ledger.report(TRIAL, _rows(3), time_ms=2000, seconds=3.5, end=None)
    return ledger


def test_another_life_knows_what_was_reported_and_when(folder: Path) -> None:
    first, second = _reported(folder), Ledger(folder)
    assert second.logs == first.logs
    log = second.begin(TRIAL)
    assert log.trial == BEGUN
    assert (log.times, log.reports, log.seconds, log.end) == ({1: 1000, 2: 1000, 3: 2000}, [2, 3], 3.5, None)


def test_epochs_that_come_again_keep_their_first_values_and_times(folder: Path) -> None:
    ledger = _reported(folder)
    fresh = ledger.report(TRIAL, _rows(2, 3, 4, error=0.9), time_ms=9000, seconds=8.0, end=("COMPLETE", "done"))
    assert fresh == _rows(4, error=0.9)
    for log in (ledger["t0003"], Ledger(folder)["t0003"]):
        assert [log.rows[epoch]["validation_error"] for epoch in (1, 2, 3, 4)] == [0.1, 0.1, 0.1, 0.9]
        assert (log.times[3], log.times[4], log.end) == (2000, 9000, ("COMPLETE", "done"))


def test_changed_parameters_are_kept_beside_the_first(folder: Path) -> None:
    ledger = _reported(folder)
    other = {"params": {"x": 0.7}, "settings": {"model": {"x": 0.7}}}
    ledger.report({**TRIAL, **other}, _rows(4), time_ms=3000, seconds=4.0, end=None)
    ledger.report({**TRIAL, **other}, _rows(5), time_ms=3000, seconds=4.0, end=None)
    log = Ledger(folder)["t0003"]
    assert log.trial["params"] == {"x": 0.5}
    assert log.configurations == [{"params": {"x": 0.5}, "settings": {"model": {"x": 0.5}}}, other]


def test_what_is_settled_is_gone_and_an_empty_ledger_too(folder: Path) -> None:
    (folder / "running").mkdir()
    ledger = _reported(folder / "running")
    ledger.close()
    assert (folder / "running").exists()
    ledger.end("t0003", "FAIL", "crashed", 4.0)
    ledger.settle("t0003")
    ledger.settle("t0003")
    ledger.close()
    assert not (folder / "running").exists()


@pytest.mark.parametrize("left", [0, 1, 30, 120])
def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_line(left: int, folder: Path) -> None:
    _reported(folder)
    path = folder / "t0003.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:left][:-1])
    ledger = Ledger(folder)
    assert sorted(ledger["t0003"].rows) == [1, 2]
    ledger.report(TRIAL, _rows(3), time_ms=5000, seconds=3.0, end=None)
    assert Ledger(folder)["t0003"].times == {1: 1000, 2: 1000, 3: 5000}
    path.write_bytes(lines[0][:20])
    assert Ledger(folder).logs == {}


@pytest.mark.parametrize(
    "damage", [b"null\n", b"[" * 9000 + b"\n", b'{"rows": [{"epoch": "4"}]}\n', b'{"rows": [[]]}\n']
)
def test_what_is_no_report_ends_the_log(damage: bytes, folder: Path) -> None:
    _reported(folder)
    path = folder / "t0003.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], damage, lines[-1]]))
    assert sorted(Ledger(folder)["t0003"].rows) == [1, 2]
    path.rename(folder / "t0004.jsonl")
    assert Ledger(folder).logs == {}


def test_a_disk_that_takes_nothing_is_told_once_and_nothing_is_forgotten(tmp_path: Path) -> None:
    ledger = _reported(tmp_path / "missing")
    assert sorted(ledger["t0003"].rows) == [1, 2, 3]
    assert len(ledger.problems) == 1 and "ledger: " in ledger.problems.pop()


@pytest.mark.parametrize("refused", [1, 2, 3, 4])
def test_lines_that_found_no_room_are_written_with_the_next_one(
    refused: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when a trial starts would otherwise cost the whole trial: the first line says which it is."""
    write, calls = os.write, iter(range(100))

    def full_at_first(handle: int, data: bytes) -> int:
        if next(calls) < refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_at_first)
        ledger = _reported(folder)  # three lines
        ledger.end("t0003", "COMPLETE", "done", 4.0)
        ledger.close()
    assert Ledger(folder).logs == ledger.logs and sorted(ledger["t0003"].rows) == [1, 2, 3]


def test_the_lines_of_other_trials_are_taken_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    ledger = Ledger(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        ledger.begin(TRIAL)
        ledger.begin({**TRIAL, "key": "t0004"})
        ledger.settle("t0004")  # of which nothing is to be kept
    ledger.begin({**TRIAL, "key": "t0005"})
    assert sorted(Ledger(folder).logs) == ["t0003", "t0005"]


def test_the_best_end_stays(folder: Path) -> None:
    ledger = _reported(folder)
    for state, kept in (("FAIL", "FAIL"), ("COMPLETE", "COMPLETE"), ("FAIL", "COMPLETE"), ("PRUNED", "COMPLETE")):
        ledger.end("t0003", state, "", 4.0)  # type: ignore[arg-type]
        for log in (ledger["t0003"], Ledger(folder)["t0003"]):
            assert log.end is not None and log.end[0] == kept


def test_a_log_that_cannot_be_read_is_one_sentence(folder: Path) -> None:
    (folder / "t0003.jsonl").mkdir()
    with pytest.raises(StudyFolderError, match=r"t0003\.jsonl cannot be used: .*; change its permissions"):
        Ledger(folder)
