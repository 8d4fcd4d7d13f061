"""Optuna's journal as a search keeps it, and as a later life of the search finds it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ladder_search.driver.journal import Journal
from ladder_search.errors import StudyFolderError

optuna.logging.set_verbosity(optuna.logging.ERROR)
LR = FloatDistribution(0.0, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "optuna.journal"


def _begun(path: Path, *keys: str) -> Journal:
    journal = Journal(path, "search", new=True)
    for key in keys:
        trial = journal.study.ask()
        trial.suggest_float("lr", LR.low, LR.high)
        journal.keep(trial, key, "", {"training": {"lr": trial.params["lr"]}})
    return journal


def test_the_disk_is_waited_for_when_a_trial_ends_and_not_at_every_value(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    journal = _begun(path, "t0000")
    journal.report("t0000", 0.5, 1)
    assert waits == []
    journal.end("t0000", "COMPLETE", 0.25)
    assert len(waits) == 1


def test_optuna_reads_it_with_its_own_backend_at_once(path: Path) -> None:
    journal = _begun(path, "t0000", "t0001")
    journal.end("t0000", "COMPLETE", 0.25)
    journal.report("t0001", 0.5, 1)
    found = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(path))))
    assert [trial.value for trial in found.trials] == [0.25, None]
    assert found.trials[1].params == journal.trials()["t0001"].params
    assert found.trials[1].intermediate_values == {1: 0.5}
    assert not list(path.parent.glob("*.lock"))


def test_a_trial_enters_it_whole_or_not_at_all(path: Path) -> None:
    _begun(path)
    before = path.read_bytes().count(b"\n")
    _begun(path, "t0000")
    assert path.read_bytes().count(b"\n") == before + 1


def test_a_later_life_knows_every_trial_and_a_paused_one_counts_for_nothing(path: Path) -> None:
    first = _begun(path, "t0000", "t0001", "t0002")
    first.end("t0000", "COMPLETE", 0.25)
    first.report("t0001", 0.5, 1)
    first.pause("t0001")
    second = Journal(path, "search", new=False)
    assert {key: trial.state.name for key, trial in second.trials().items()} == {
        "t0000": "COMPLETE", "t0001": "WAITING", "t0002": "RUNNING",
    }  # fmt: skip
    second.go_on("t0001")
    second.report("t0001", 0.9, 1)  # it comes by that epoch again
    second.report("t0001", 0.4, 2)
    for _ in range(2):
        second.end("t0001", "PRUNED", None)
        second.end("t0000", "COMPLETE", 0.1)
    third = Journal(path, "search", new=False)
    assert third.trials()["t0001"].intermediate_values == {1: 0.5, 2: 0.4}
    assert [third.trials()[key].state.name for key in ("t0000", "t0001")] == ["COMPLETE", "PRUNED"]
    assert third.study.best_value == 0.25 and len(third.study.trials) == 3


def test_a_lost_trial_is_brought_back(path: Path) -> None:
    journal = _begun(path, "t0000")
    trial = {"key": "t0001", "name": "", "params": {"lr": 0.125}, "settings": {"training": {"lr": 0.125}}}
    journal.restore(trial, {"lr": LR})
    journal.end("t0001", "COMPLETE", 0.2)
    assert Journal(path, "search", new=False).study.best_params == {"lr": 0.125}


def test_a_line_that_was_cut_short_is_dropped_and_said(path: Path) -> None:
    journal = _begun(path, "t0000")
    journal.report("t0000", 0.5, 1)
    whole = path.read_bytes()
    for cut in (1, 10, 60):  # without its newline, in the middle, near its start
        path.write_bytes(whole[:-cut])
        again = Journal(path, "search", new=False)
        assert again.notes == [
            "The last line of optuna.journal was incomplete and is dropped; its content is restored from the records."
        ]
        assert again.trials()["t0000"].intermediate_values == {}
        again.report("t0000", 0.25, 1)  # Optuna's own reader would fail from here on
        assert Journal(path, "search", new=False).trials()["t0000"].intermediate_values == {1: 0.25}


@pytest.mark.parametrize(
    "rubbish", [b"\x00\xff rubbish\n", b"{\n", b"[1]\n", b'{"op_code": 99, "worker_id": "x"}\n', b"{}\n"]
)
def test_rubbish_in_the_middle_is_refused(path: Path, rubbish: bytes) -> None:
    _begun(path, "t0000", "t0001")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], rubbish, *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(StudyFolderError, match=r"copy the file back or start a new search\.$"):
        Journal(path, "search", new=False)
    assert path.read_bytes() == before


def test_a_missing_journal_and_that_of_another_search_are_refused(path: Path) -> None:
    with pytest.raises(StudyFolderError, match="resumed from its journal"):
        Journal(path, "search", new=False)
    assert not path.exists()
    _begun(path)
    with pytest.raises(StudyFolderError, match="must hold the study 'another'"):
        Journal(path, "another", new=False)


def test_a_killed_search_leaves_no_lock_behind(path: Path) -> None:
    _begun(path)
    lock = Path(f"{path}.lock")
    lock.symlink_to(path)
    Journal(path, "search", new=False)
    assert not lock.is_symlink()


def test_a_full_disk_delays_lines_loses_none_and_leaves_no_half_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = _begun(path, "t0000")
    whole, write = path.read_bytes(), os.write

    def little(handle: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[: len(data) - 39])

    with monkeypatch.context() as full:
        full.setattr(os, "write", little)
        journal.report("t0000", 0.5, 1)
        assert path.read_bytes() == whole
        journal.end("t0000", "COMPLETE", 0.25)
        assert path.read_bytes() == whole and journal.trials()["t0000"].value == 0.25
    trial = journal.study.ask()
    journal.keep(trial, "t0001", "", {})
    again = Journal(path, "search", new=False)
    assert again.notes == [] and again.trials().keys() == {"t0000", "t0001"}
    assert (again.study.best_value, again.trials()["t0000"].intermediate_values) == (0.25, {1: 0.5})


def test_a_file_system_without_symbolic_links_holds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's usual lock is one: every line failed, none was reported, and the file stayed empty."""

    def refused(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refused)
    journal = _begun(path, "t0000")
    journal.end("t0000", "COMPLETE", 0.25)
    assert journal.close() == []
    assert Journal(path, "search", new=False).study.best_value == 0.25


def test_a_place_that_takes_no_journal_is_refused_before_anything_is_begun(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StudyFolderError, match="journal on disk .* must be writable, found: No space left"):
            Journal(path, "search", new=True)
    assert list(path.parent.iterdir()) == []
    path.mkdir()
    with pytest.raises(StudyFolderError, match="must be writable, found: Is a directory"):
        Journal(path, "search", new=True)


def test_a_journal_that_is_missing_from_the_disk_at_the_end_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(handle: int, data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    journal = _begun(path, "t0000")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", gone)
        journal.end("t0000", "COMPLETE", 0.25)
        (problem,) = journal.close()
        assert "Read-only file system), so that 1 entries are missing from it; a resume restores" in problem
    assert journal.close() == []
    assert Journal(path, "search", new=False).study.best_value == 0.25


def test_a_disk_that_can_no_longer_be_read_ends_no_search(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's backend reads each line back after it was written, which a stale handle of NFS refuses."""
    journal = _begun(path, "t0000")
    with monkeypatch.context() as patch:
        patch.setattr("optuna.storages.journal._file.open", _stale, raising=False)
        journal.report("t0000", 0.5, 1)
        trial = journal.study.ask()
        journal.keep(trial, "t0001", "", {})
        journal.end("t0000", "COMPLETE", 0.25)
    again = Journal(path, "search", new=False)
    assert (again.study.best_value, sorted(again.trials())) == (0.25, ["t0000", "t0001"])


def _stale(*arguments: object) -> None:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_lock_that_somebody_else_removed_ends_no_search(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = _begun(path, "t0000")
    write = os.write

    def removing(handle: int, data: bytes) -> int:
        Path(f"{path}.lock").unlink()
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", removing)
        journal.report("t0000", 0.5, 1)
    assert journal.close() == []
    assert Journal(path, "search", new=False).trials()["t0000"].intermediate_values == {1: 0.5}
