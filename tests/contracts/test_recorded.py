"""What earlier versions wrote is read by this one: recordings in ``tests/assets``, one folder per set of formats."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.stored import stored_points, stored_runs
from ladder_search.bundles import load
from ladder_search.bundles.bundle import read_bundle
from ladder_search.cli import main
from ladder_search.config import as_mapping
from ladder_search.driver.ledger import Ledger
from ladder_search.final.checkpoints import read_progress
from ladder_search.final.results import read_result
from ladder_search.ordering.claims import ORDERINGS
from ladder_search.ordering.judging import read_looks
from ladder_search.record.folder import StudyFolder
from ladder_search.reproduction.reproduction import read_reproduction
from ladder_search.tracking.address import default_store
from ladder_search.training.checkpoint import read_member
from tests.assets.recorded import ANALYSIS, COMPARISON, EXAMPLES, RECORDED, TRAINING

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the recording."""
    shutil.copytree(RECORDED, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``ladder-search`` with arguments where the recording is; return what it prints."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["ladder-search", *arguments])
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("family", EXAMPLES)
def test_the_bundle_of_every_family_is_loaded_and_computes_what_it_did(family: str) -> None:
    expected = json.loads((RECORDED / "expected.json").read_text())["bundles"][family]
    with torch.no_grad():
        outputs = load(RECORDED / "families" / family)(EXAMPLES[family]).flatten()[:20]
    # In float64, so that another order of the sums changes only the last digits.
    assert outputs.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_finished_study_is_exported_with_the_same_weights_and_settings(command: Command, place: Path) -> None:
    command("export", "finished", "--top", "2", "-o", "again")
    (again,) = (place / "again").glob("*-t0000")
    ours, recorded = read_bundle(again), read_bundle(place / "configs" / "published")
    assert ours.spec == recorded.spec and ours.metrics == recorded.metrics and ours.study == recorded.study
    assert ours.tensors.keys() == recorded.tensors.keys()
    assert all(torch.equal(value, recorded.tensors[name]) for name, value in ours.tensors.items())


def test_the_checkpoint_of_a_trial_is_read(place: Path) -> None:
    record = StudyFolder(place / "results" / "finished").read_trials()[0]
    assert record.checkpoint is not None
    state, settings = read_member(place / "results" / "finished" / record.checkpoint / "member-0")
    assert state.step == 60 and settings == record.settings
    assert {name: value.shape for name, value in state.first.items()} == {n: v.shape for n, v in state.params.items()}


def test_the_journal_of_a_study_is_read_by_optuna_as_its_records_say(place: Path) -> None:
    records = {record.key: record for record in StudyFolder(place / "results" / "finished").read_trials()}
    storage = JournalStorage(JournalFileBackend(str(place / "results" / "finished" / "optuna.journal")))
    names = ("digits-100/finished", "digits-100/finished/references")
    trials = [trial for name in names for trial in optuna.load_study(study_name=name, storage=storage).trials]
    assert {trial.user_attrs["key"] for trial in trials} == set(records) == {f"t{n:04d}" for n in range(4)}
    for trial in trials:
        record = records[trial.user_attrs["key"]]
        assert (trial.state.name, trial.params) == (record.state, record.params)


def test_the_spool_of_a_study_is_sent_to_a_new_store(command: Command, place: Path) -> None:
    assert re.search(r"^finished: [1-9]\d+ event\(s\) sent", command("sync", "finished"), re.MULTILINE)
    store = default_store(place / "results")
    ends = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    records = StudyFolder(place / "results" / "finished").read_trials()
    assert {run.key: run.status for run in stored_runs(store, "digits-100")} == {
        "digits-100/finished/search": "FINISHED",
        **{f"digits-100/finished/{record.key}": ends[record.state] for record in records},
    }
    errors = {
        (key, step): value for key, name, step, _, value in stored_points(store, "digits-100") if "_error" in name
    }
    for record in records:
        for row in record.epochs:
            assert errors[f"digits-100/finished/{record.key}", row["epoch"]] == row["validation_error"]
    assert "0 event(s) sent" in command("sync", "finished")


def test_the_ledger_of_a_study_that_was_killed_is_read(place: Path) -> None:
    ledger = Ledger(place / "results" / "killed" / "running")
    log = ledger["t0000"]
    assert log.trial["name"] == "published" and log.end is None and log.seconds > 0
    assert sorted(log.rows) == list(range(1, log.last_epoch + 1)) and log.last_epoch >= 20
    assert all(0.0 <= row["validation_error"] <= 1.0 for row in log.rows.values())


def test_a_finished_training_is_read_and_not_repeated(command: Command, place: Path) -> None:
    before = _contents(place / "final")
    printed = command("train", "configs/published", "-o", "final", *TRAINING)
    result = read_result(place / "final")
    assert result.n == 2 and str(result).splitlines()[0] in printed
    after = _contents(place / "final")
    assert {name: after[name] for name in before} == before


def test_an_interrupted_training_goes_on_where_it_was(command: Command, place: Path) -> None:
    progress = json.loads((place / "interrupted" / "progress" / "progress.json").read_text())
    assert 0 < progress["epoch"] < 60
    begun = read_progress(place / "interrupted", progress["settings_digest"])
    printed = command("train", "configs/published", "--seeds", "2", "--epochs", "60", "-o", "interrupted")
    assert "over 2 seeds" in printed
    for outcome in read_result(place / "interrupted").outcomes:
        assert len(outcome.epochs) == 60
        assert outcome.epochs[: begun.epoch] == begun.histories[str(outcome.seed)]


def test_a_reproduction_is_read_and_not_repeated(command: Command, place: Path) -> None:
    (folder,) = (place / "results" / "reproductions").glob("digits-50-base*")
    before, recorded = _contents(folder), read_reproduction(folder)
    assert recorded.complete and recorded.reduced and [c.name for c in recorded.contenders] == ["published"]
    printed = command("reproduce", "digits-50-base", "--seeds", "2", "--epochs", "2")
    assert "digits-50-base, reduced" in printed
    assert read_reproduction(folder) == recorded
    after = _contents(folder)
    assert after.keys() >= before.keys()


def test_a_comparison_is_read_and_not_trained_again(command: Command, place: Path) -> None:
    folder = place / "results" / "comparisons" / "digits"
    before = _contents(folder)
    assert "digits-100-base" in command("compare", *COMPARISON)
    after = _contents(folder)
    assert {name: after[name] for name in before} == before


def test_an_analysis_is_read_and_not_repeated(command: Command, place: Path) -> None:
    before = _contents(place / "analyses")
    assert "Means over 20 sequences, of which 2 are drawn." in command("analyse", *ANALYSIS)
    after = _contents(place / "analyses")
    assert {name: after[name] for name in before} == before


def test_everything_appears_in_a_report(command: Command, place: Path) -> None:
    command("report", "-o", "report")
    text = (place / "report" / "report.md").read_text()
    assert (place / "report" / "report.html").is_file()
    errors = [row.validation_error for row in StudyFolder(place / "results" / "finished").read_trials()]
    assert f"{100 * min(e for e in errors if e is not None):.2f} %" in text
    assert all(name in text for name in ("finished", "killed", "digits-50-base"))


def test_an_ordering_is_read(tmp_path: Path) -> None:
    """The one that was kept with its numbers in ``reproductions``."""
    path = ROOT / "reproductions" / "results" / "jsb-table-3.json"
    raw = json.loads(path.read_text())
    shutil.copy(path, tmp_path / "ordering.json")
    looks = read_looks(tmp_path, ORDERINGS[raw["ordering"]], raw["reduced_to_epochs"])
    assert [as_mapping(look) for look in looks.looks] == [{**look, "studies": look["studies"]} for look in raw["looks"]]


def test_a_training_has_the_recorded_curve(command: Command, place: Path) -> None:
    """From the same bundle with the same seeds, step by step in float32.

    Another order of the sums (other cores, another release of PyTorch) changes the seventh digit, and 90 updates let it
    grow; a relative difference of 1e-3 in a cost and three test rows of 450 in an error are far above that, and far
    below what a changed rule of training would cause.
    """
    command("train", "configs/published", "-o", "anew", *TRAINING)
    anew, recorded = read_result(place / "anew"), read_result(place / "final")
    assert [outcome.seed for outcome in anew.outcomes] == [outcome.seed for outcome in recorded.outcomes]
    for ours, theirs in zip(anew.outcomes, recorded.outcomes, strict=True):
        assert len(ours.epochs) == len(theirs.epochs) == 6
        for mine, other in zip(ours.epochs, theirs.epochs, strict=True):
            _assert_close(mine, other)
        assert ours.test_error == pytest.approx(theirs.test_error, abs=3 / 450)
    assert anew.curve.keys() == recorded.curve.keys()


def _assert_close(mine: dict[str, Any], other: dict[str, Any]) -> None:
    assert mine.keys() == other.keys()
    for name in mine.keys() - {"step_time_ms"}:
        tolerance = {"abs": 3 / 450} if name.endswith("_error") else {"rel": 1e-3}
        assert mine[name] == pytest.approx(other[name], **tolerance), (name, mine, other)
        assert math.isfinite(mine[name])
