"""Study folders: written whole, held by one search, found by what a user calls them, never overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ladder_search.driver.storage import lasting
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.record.checkpoint import ForeignCheckpointError, check_checkpoint, mark_checkpoint
from ladder_search.record.folder import (
    FolderInUseError,
    StudyFolder,
    absolute_place,
    claim_folder,
    find_folder,
    relative_place,
)
from ladder_search.record.trial import TrialRecord, key_of, number_of

DESCRIPTION: dict[str, Any] = {"settings": {"study": "digits-100"}, "store": "sqlite:///x.db"}


def _record(number: int = 7, **changed: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "key": f"t{number:04d}",
        "number": number,
        "name": "",
        "state": "COMPLETE",
        "reason": "trained to its budget",
        "params": {"model/lambda_0": 1000.0, "model/combinator": "gauss"},
        "settings": {"family": "ladder", "model": {"widths": [64, 10]}},
        "epochs": ({"epoch": 1, "validation_error": 0.25}, {"epoch": 2, "validation_error": None}),
        "validation_error": 0.25,
        "seconds": 1.5,
        "checkpoint": None,
    }
    return TrialRecord(**{**values, **changed})


def _begun(path: Path, study: str = "digits-100", at: float | None = None) -> StudyFolder:
    folder = StudyFolder(path)
    folder.create({**DESCRIPTION, "settings": {"study": study}})
    if at is not None:
        os.utime(path / "study.json", (at, at))
    return folder


def test_records_round_trip_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    records = [_record(number) for number in (3, 1, 2)]
    for record in records:
        folder.write_trial(record)
    assert folder.read_trials() == sorted(records, key=lambda record: record.number)
    folder.write_trial(_record(1, state="FAIL", validation_error=None))
    assert folder.read_trials()[0].state == "FAIL"
    assert sorted(path.name for path in folder.trials.iterdir()) == ["t0001.json", "t0002.json", "t0003.json"]


def test_ten_thousand_trials_keep_their_order(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    numbers = [2, 9999, 10_000, 100_000]
    for number in reversed(numbers):
        folder.write_trial(_record(number))
    assert [record.number for record in folder.read_trials()] == numbers
    assert [key_of(number) for number in numbers] == ["t0002", "t9999", "t10000", "t100000"]
    assert [number_of(key_of(number)) for number in numbers] == numbers


@pytest.mark.parametrize("key", ["t1", "t00001", "t0001.2", "0001", "t", "tests", "t00 1", "t0001\n"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="like t0007"):
        number_of(key)


def test_a_record_under_another_name_is_damaged(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    folder.write_trial(_record(1))
    (folder.trials / "t0001.json").rename(folder.trials / "t0002.json")
    with pytest.raises(StudyFolderError, match=r"t0002\.json must be a trial's record: its key must be t0002"):
        folder.read_trials()


def test_a_checkpoint_is_of_one_search(tmp_path: Path) -> None:
    check_checkpoint(tmp_path, "a")  # an earlier version marked none
    mark_checkpoint(tmp_path, "a", "t0007")
    check_checkpoint(tmp_path, "a")
    for other in ("b", None):
        with pytest.raises(ForeignCheckpointError, match="its own checkpoints and here is of another one"):
            check_checkpoint(tmp_path, other, "here")
    for damage in (b"", b"[]", b"{}"):
        (tmp_path / "trial.json").write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"must say in trial\.json whose checkpoint it is"):
            check_checkpoint(tmp_path, "a")


def test_a_study_is_never_overwritten(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    before = (tmp_path / "s" / "study.json").read_bytes()
    with pytest.raises(StudyFolderError, match=r"never overwritten .* choose another --name"):
        folder.create({"settings": {"study": "other"}, "store": ""})
    assert (tmp_path / "s" / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"key": "t0001"}', b'{"epochs": 3}', b'{"epochs": [], "nonsense": 1}'],
)
def test_a_damaged_trial_is_named_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    (folder.trials / "t0001.json").write_bytes(content)
    with pytest.raises(StudyFolderError, match=r"t0001.json must be a trial's record: .*; delete that file"):
        folder.read_trials()


def test_a_trial_of_a_strange_state_is_damaged(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    folder.write_trial(_record(1, state="RUNNING"))
    with pytest.raises(StudyFolderError, match="must be a trial's record"):
        folder.read_trials()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be readable JSON"),
        (b"\xff\xfe", "must be readable JSON"),
        (b"[1]", "has None; use the version"),
        (b'"text"', "has None; use the version"),
        (b'{"format": "ladder-search study 99"}', "has 'ladder-search study 99'; use the version"),
        (b'{"format": "ladder-search study 1"}', "must name its study and its store"),
        (b'{"format": "ladder-search study 1", "settings": [], "store": ""}', "must name its study and its store"),
    ],
)
def test_a_damaged_description_is_one_sentence(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(StudyFolderError, match=message):
        StudyFolder(tmp_path).description()


def test_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyFolderError, match="holds no study"):
        StudyFolder(tmp_path / "nothing").description()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = StudyFolder(tmp_path / "file" / "s")
    with pytest.raises(StudyFolderError, match=r"must be writable, .* choose another --root"):
        folder.create(DESCRIPTION)
    with pytest.raises(StudyFolderError, match=r"must be writable, .* choose another --root"), folder.locked():
        pass


def test_one_search_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    with folder.locked():
        in_use = pytest.raises(FolderInUseError, match="is in use; wait for it or choose another --name")
        with in_use, StudyFolder(tmp_path / "s").locked():
            pass
        other = "import sys; from pathlib import Path; from ladder_search.record.folder import StudyFolder\n"
        other += "with StudyFolder(Path(sys.argv[1])).locked(): pass"
        run = subprocess.run(
            [sys.executable, "-c", other, str(tmp_path / "s")],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "FolderInUseError" in run.stderr
    with folder.locked():
        pass
    assert folder.holds_study()


def test_a_folder_in_which_nothing_was_begun_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim_folder(tmp_path, None, "digits-100-now") as folder:
        assert folder.path.is_dir()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with claim_folder(tmp_path, "mine", ""):
        pass
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_claiming_a_name(tmp_path: Path) -> None:
    with claim_folder(tmp_path, "mine", "") as folder:
        folder.create(DESCRIPTION)
        with pytest.raises(FolderInUseError), claim_folder(tmp_path, "mine", ""):
            pass
    with pytest.raises(StudyFolderError, match="never overwritten"), claim_folder(tmp_path, "mine", ""):
        pass


def test_searches_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    _begun(tmp_path / "s-1")
    with claim_folder(tmp_path, None, "s-1") as second, claim_folder(tmp_path, None, "s-1") as third:
        assert [second.path.name, third.path.name] == ["s-1-2", "s-1-3"]


def test_a_folder_is_found_by_path_by_name_and_by_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = _begun(tmp_path / "digits-100-20260102-000000", at=2000.0)
    named = _begun(tmp_path / "mine", at=3000.0)
    _begun(tmp_path / "digits-100-base-20260103-000000", study="digits-100-base", at=4000.0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    assert find_folder(tmp_path, str(old.path)).path == old.path
    assert find_folder(tmp_path, old.path.name).path == old.path
    assert find_folder(tmp_path, "digits-100").path == named.path  # the latest, whatever it is called
    monkeypatch.chdir(tmp_path)
    assert find_folder(Path("results"), "mine").path == named.path
    with pytest.raises(StudyFolderError, match=r"'digits' must be .* there are broken, .*mine; run"):
        find_folder(tmp_path, "digits")
    with pytest.raises(StudyFolderError, match="there is none yet"):
        find_folder(tmp_path / "nowhere", "digits-100")


def test_json_is_plain(tmp_path: Path) -> None:
    folder = _begun(tmp_path / "s")
    folder.write_trial(_record())
    raw = json.loads((folder.trials / "t0007.json").read_text())
    assert raw["params"] == {"model/lambda_0": 1000.0, "model/combinator": "gauss"} and raw["epochs"][0]["epoch"] == 1


def test_a_study_that_is_described_again_keeps_its_format(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.create({"settings": {"study": "digits-100"}, "store": "sqlite:///x"})
    folder.describe({"settings": {"study": "digits-100"}, "store": "sqlite:///x", "packs": []})
    assert folder.description()["packs"] == []


def test_results_last_where_a_job_runs_in_a_copy_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert lasting("results") == str(tmp_path / "results")
    copy = tmp_path / "ray" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert lasting("results") == str(tmp_path / "results")
    assert lasting("/mnt/shared") == "/mnt/shared"
    assert lasting("s3://bucket/ladder-search") == "s3://bucket/ladder-search"


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("sqlite:///{results}/mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("{results}/checkpoints", "{root}/checkpoints"),
        ("file://{results}/checkpoints", "file://{root}/checkpoints"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("s3://bucket/checkpoints", "s3://bucket/checkpoints"),
    ],
)
def test_a_place_in_the_results_folder_moves_with_it(tmp_path: Path, place: str, kept: str) -> None:
    old, new = tmp_path / "results", tmp_path / "elsewhere"
    old.mkdir()
    assert relative_place(place.replace("{results}", str(old)), old) == kept
    assert absolute_place(kept, new) == place.replace("{results}", str(new))
    (tmp_path / "link").symlink_to(old)
    assert relative_place(place.replace("{results}", str(old)), tmp_path / "link") == kept


def test_a_store_that_an_earlier_version_named_is_looked_for_in_the_results_folder(tmp_path: Path) -> None:
    gone = f"sqlite:///{tmp_path}/old/mlflow.db"
    assert absolute_place(gone, tmp_path) == gone
    (tmp_path / "mlflow.db").touch()
    assert absolute_place(gone, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
