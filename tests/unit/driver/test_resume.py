"""Every step at which a kill may leave the stores of a search apart, and how a resume brings them together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution

from ladder_search.config import as_mapping, merge
from ladder_search.driver.journal import Journal
from ladder_search.driver.ledger import Ledger
from ladder_search.driver.resume import Checkpoints, Past, check_unchanged, reconcile
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.record.checkpoint import ForeignCheckpointError, mark_checkpoint
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import STOPPED, TrialRecord
from ladder_search.studies import STUDIES
from ladder_search.training.checkpoint import write_member
from ladder_search.training.pack import MemberState

optuna.logging.set_verbosity(optuna.logging.ERROR)

EPOCHS, STEPS = 9, 10
SPACE = {"training/lr": FloatDistribution(0.0, 1.0)}
STUDY = STUDIES["digits-100"]


class Search:
    """One trial, at any step of its life, and a resume of its search."""

    def __init__(self, path: Path) -> None:
        self.folder = StudyFolder(path / "s")
        self.folder.path.mkdir()
        self.journal = Journal(self.folder.journal, "s", new=True)
        self.folder.create({"settings": {"study": "digits-100"}, "store": "sqlite:///x"})
        self.ledger = Ledger(self.folder.running)
        self.trial: dict[str, Any] = {}

    def suggested(self) -> None:
        trial = self.journal.study.ask()
        params = {"training/lr": trial.suggest_float("training/lr", 0.0, 1.0)}
        settings = merge(STUDY.trial().as_mapping(), {"training": {"lr": params["training/lr"]}})
        self.journal.keep(trial, "t0000", "", settings)
        self.trial = {"key": "t0000", "number": 0, "name": "", "params": params, "settings": settings}

    def reported(self, *epochs: int, end: Any = None, optuna: bool = True) -> None:
        self.ledger.begin(self.trial)
        rows = [{"epoch": epoch, "validation_error": 0.5 / epoch} for epoch in epochs]
        self.ledger.report(self.trial, rows, time_ms=7, seconds=3.0, end=end)
        if optuna:
            self.journal.report("t0000", 0.5 / epochs[-1], epochs[-1])

    def saved(self, epoch: int, folder: str = "t0000", index: int = 0, **changed: Any) -> Path:
        place = self.folder.checkpoints / folder / f"checkpoint_{index:06d}"
        groups = {name: {"w": torch.zeros(2)} for name in ("params", "first", "second")}
        state = MemberState(step=epoch * STEPS, **groups)
        write_member(place / "member-0", state, merge(self.trial["settings"], changed))
        return place

    def recorded(self, state: Any = "COMPLETE", epoch: int = EPOCHS, reason: str = "") -> None:
        rows = tuple({"epoch": one, "validation_error": 0.5 / one} for one in range(1, epoch + 1))
        self.folder.write_trial(
            TrialRecord(
                **self.trial,
                state=state,
                reason=reason,
                epochs=rows,
                validation_error=0.5 / epoch,
                seconds=1.0,
                checkpoint=None,
            )
        )

    def resumed(self) -> Past:
        """A second process: it knows what is on disk."""
        self.journal = Journal(self.folder.journal, "s", new=False)
        self.ledger = Ledger(self.folder.running)
        checkpoints = Checkpoints(str(self.folder.checkpoints), lambda spec: STEPS)
        return reconcile(self.folder, self.journal, self.ledger, checkpoints, SPACE, EPOCHS)

    @property
    def optuna(self) -> optuna.trial.FrozenTrial:
        return Journal(self.folder.journal, "s", new=False).trials()["t0000"]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def _goes_on(past: Past, epoch: int, place: Path | None) -> None:
    (unfinished,) = past.unfinished
    assert (past.records, past.ended, past.suggested) == ([], [], 1)
    assert (unfinished.epoch, unfinished.checkpoint) == (epoch, str(place) if place else None)


def test_killed_before_its_first_suggestion(search: Search) -> None:
    assert search.resumed() == Past()


def test_suggested_and_not_started(search: Search) -> None:
    search.suggested()
    past = search.resumed()
    _goes_on(past, 0, None)
    assert past.unfinished[0].trial == search.trial


def test_reported_and_never_saved(search: Search) -> None:
    search.suggested()
    search.reported(1, 2)
    past = search.resumed()
    _goes_on(past, 0, None)
    assert [(row["epoch"], row["validation_error"]) for row in past.rows["t0000"]] == [(1, 0.5), (2, 0.25)]


def test_stopped_with_the_search(search: Search) -> None:
    search.suggested()
    search.reported(1, 2)
    search.recorded("PRUNED", epoch=2, reason=STOPPED)
    search.journal.pause("t0000")
    place = search.saved(2)
    past = search.resumed()
    _goes_on(past, 2, place)
    assert [record.state for record in past.halted] == ["PRUNED"]  # shown until it ends
    assert past.outlook(24) == "0 of 24 trials have ended; going on with t0000 from epoch 2"


def test_reported_and_optuna_not_told(search: Search) -> None:
    search.suggested()
    search.reported(1, 2, 3, optuna=False)
    search.resumed()
    assert search.optuna.intermediate_values == {3: 0.5 / 3}


def test_it_goes_on_from_its_last_whole_checkpoint(search: Search) -> None:
    search.suggested()
    search.reported(1, 2, 3, 4, 5, 6)
    for folder, index, epoch in (("t0000", 3, 2), ("t0000", 10, 3), ("t0000.2", 0, 4), ("t0000.2", 1, 5)):
        search.saved(epoch, folder, index)
    search.saved(6, "t00001", 99)  # another trial's
    newest = search.folder.checkpoints / "t0000.2"
    _goes_on(search.resumed(), 5, newest / "checkpoint_000001")
    (newest / "checkpoint_000001" / "member-0" / "tensors.safetensors").write_bytes(b"cut")
    _goes_on(search.resumed(), 4, newest / "checkpoint_000000")
    shutil.rmtree(newest)
    _goes_on(search.resumed(), 3, search.folder.checkpoints / "t0000" / "checkpoint_000010")
    shutil.rmtree(search.folder.checkpoints)
    _goes_on(search.resumed(), 0, None)


def test_checkpoints_in_a_bucket_are_found_by_their_address(search: Search) -> None:
    search.suggested()
    search.reported(1, 2)
    search.saved(2)
    bucket = search.folder.checkpoints.as_uri()
    found = Checkpoints(bucket, lambda spec: STEPS).latest(search.ledger["t0000"])
    assert found is not None and (found.place, found.epoch) == (f"{bucket}/t0000/checkpoint_000000", 2)
    assert Checkpoints(f"{bucket}/none", lambda spec: STEPS).latest(search.ledger["t0000"]) is None


def test_the_checkpoint_of_another_search_is_refused(search: Search) -> None:
    search.suggested()
    search.reported(1, 2)
    place = search.saved(2)
    mark_checkpoint(place, "a", "t0000")
    own = Checkpoints(str(search.folder.checkpoints), lambda spec: STEPS, "a")
    assert own.latest(search.ledger["t0000"]) is not None
    with pytest.raises(ForeignCheckpointError, match=f"{place} is of another one"):
        Checkpoints(str(search.folder.checkpoints), lambda spec: STEPS, "b").latest(search.ledger["t0000"])


def test_a_checkpoint_ahead_of_its_reports_would_leave_a_gap(search: Search) -> None:
    search.suggested()
    search.reported(1, 2)
    search.saved(3, index=1)
    _goes_on(search.resumed(), 0, None)


def test_ended_and_nobody_told(search: Search) -> None:
    search.suggested()
    search.reported(1, 2, end=("PRUNED", "stopped at the rung of epoch 2"), optuna=False)
    place = search.saved(2)
    past = search.resumed()
    assert (past.records, past.unfinished) == ([], [])
    assert [(ended.key, ended.checkpoint) for ended in past.ended] == [("t0000", str(place))]
    assert (search.optuna.state.name, search.optuna.value) == ("PRUNED", 0.25)


def test_trained_to_its_end_and_optuna_not_told(search: Search) -> None:
    search.suggested()
    search.reported(*range(1, EPOCHS + 1), end=("COMPLETE", ""), optuna=False)
    search.saved(EPOCHS)
    assert [ended.key for ended in search.resumed().ended] == ["t0000"]
    assert (search.optuna.state.name, search.optuna.value) == ("COMPLETE", 0.5 / EPOCHS)


def test_trained_to_its_end_and_its_weights_lost(search: Search) -> None:
    search.suggested()
    search.reported(*range(1, EPOCHS + 1), end=("COMPLETE", ""))
    place = search.saved(4)
    _goes_on(search.resumed(), 4, place)


def test_optuna_told_of_a_crash_and_nobody_else(search: Search) -> None:
    search.suggested()
    search.reported(1, 2)
    search.journal.end("t0000", "FAIL", None)
    past = search.resumed()
    assert [ended.key for ended in past.ended] == ["t0000"]
    assert search.ledger["t0000"].end == ("FAIL", "crashed: see its log")


def test_a_disk_without_room_for_the_ledger_and_the_record_makes_no_crash_of_a_finished_trial(search: Search) -> None:
    """Optuna's journal had room for its line; the rest of the disk was full, and the search was killed."""
    search.suggested()
    search.reported(1, 2)
    search.journal.report("t0000", 0.5 / EPOCHS, EPOCHS)
    search.journal.end("t0000", "COMPLETE", 0.5 / EPOCHS)
    place = search.saved(EPOCHS)
    past = search.resumed()
    assert [(ended.key, ended.checkpoint) for ended in past.ended] == [("t0000", str(place))]
    log = search.ledger["t0000"]
    assert log.end == ("COMPLETE", "trained to its budget")
    assert log.rows[EPOCHS] == {"epoch": EPOCHS, "validation_error": 0.5 / EPOCHS}


def test_a_trial_of_which_only_the_record_of_the_interruption_is_left_goes_on(search: Search) -> None:
    """The ledger lies on a disk that was full all the while; the record was written when there was room again."""
    search.suggested()
    search.journal.pause("t0000")
    search.recorded("PRUNED", epoch=2, reason=STOPPED)
    place = search.saved(2)
    past = search.resumed()
    _goes_on(past, 2, place)
    assert search.ledger["t0000"].times == {1: None, 2: None}  # they are in the tracking store already


def test_trials_come_in_the_order_of_their_numbers(search: Search) -> None:
    keys = ["t0007", "t9999", "t10000", "t100000"]
    for number, key in enumerate(keys):
        trial = search.journal.study.ask()
        params = {"training/lr": trial.suggest_float("training/lr", 0.0, 1.0)}
        settings = merge(STUDY.trial().as_mapping(), {"training": {"lr": params["training/lr"]}})
        search.journal.keep(trial, key, "", settings)
        search.trial = {"key": key, "number": int(key[1:]), "name": "", "params": params, "settings": settings}
        if number % 2:
            search.ledger.begin(search.trial)
    assert list(Ledger(search.folder.running).logs) == ["t9999", "t100000"]
    past = search.resumed()
    assert [unfinished.trial["key"] for unfinished in past.unfinished] == keys and past.suggested == 100_001


def test_recorded_and_its_run_perhaps_not_ended(search: Search) -> None:
    search.suggested()
    search.reported(*range(1, EPOCHS + 1), end=("COMPLETE", ""))
    search.saved(EPOCHS)
    search.recorded()
    past = search.resumed()
    assert past.records == [] and [ended.key for ended in past.ended] == ["t0000"]


def test_settled(search: Search) -> None:
    search.suggested()
    search.journal.end("t0000", "COMPLETE", 0.5 / EPOCHS)
    search.recorded()
    past = search.resumed()
    assert [record.key for record in past.records] == ["t0000"]
    assert (past.ended, past.unfinished, past.suggested) == ([], [], 1)


def test_settled_and_its_end_cut_off_the_journal(search: Search) -> None:
    search.suggested()
    search.recorded("PRUNED", epoch=3)
    search.resumed()
    assert (search.optuna.state.name, search.optuna.intermediate_values) == ("PRUNED", {3: 0.5 / 3})


def test_its_suggestion_cut_off_the_journal(search: Search) -> None:
    before = search.folder.journal.read_bytes()
    search.suggested()
    search.reported(1, 2)
    search.folder.journal.write_bytes(before)
    past = search.resumed()
    _goes_on(past, 0, None)
    assert search.optuna.params == search.trial["params"] and search.optuna.intermediate_values == {2: 0.25}
    search.ledger.settle("t0000")
    search.recorded()
    search.folder.journal.write_bytes(before)
    search.resumed()
    assert (search.optuna.state.name, search.optuna.params) == ("COMPLETE", search.trial["params"])


def test_a_deleted_record_leaves_its_trial_out(search: Search) -> None:
    search.suggested()
    search.journal.end("t0000", "COMPLETE", 0.1)
    past = search.resumed()
    assert (past.records, past.ended, past.unfinished, past.suggested) == ([], [], [], 1)


def test_a_damaged_record_is_refused(search: Search) -> None:
    search.suggested()
    search.recorded()
    path = search.folder.trials / "t0000.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(StudyFolderError, match=r"t0000\.json must be a trial's record.*delete that file"):
        search.resumed()


def test_parameters_and_weights_that_belong_together(search: Search) -> None:
    """Population based training changed the parameters after the last checkpoint."""
    search.suggested()
    search.reported(1, 2, 3)
    search.saved(3)
    first = dict(search.trial)
    settings = merge(search.trial["settings"], {"training": {"lr": 0.7}})
    search.trial |= {"params": {"training/lr": 0.7}, "settings": settings}
    search.reported(4, 5)
    assert search.resumed().unfinished[0].trial == first
    place = search.saved(5, index=1)
    past = search.resumed()
    _goes_on(past, 5, place)
    assert past.unfinished[0].trial == search.trial


PROVENANCE = {"data_name": "digits", "data_digest": "abc", "git_sha": "1" * 40, "git_dirty": False}


def _description(**changed: Any) -> dict[str, Any]:
    study = json.loads(json.dumps(as_mapping(STUDY)))
    return {"study": study, "space": {"model/noise": {"low": 0.1}}, "provenance": PROVENANCE, **changed}


def test_changed_code_is_named_and_harmless(tmp_path: Path) -> None:
    space = {"model/noise": {"low": 0.1}}
    assert check_unchanged(_description(), STUDY, space, PROVENANCE, tmp_path) == []
    now = {**PROVENANCE, "git_sha": "2" * 40}
    (line,) = check_unchanged(_description(), STUDY, space, now, tmp_path)
    assert "1" * 40 in line and "2" * 40 in line
    again = _description(resumed=[{"provenance": now}])
    assert check_unchanged(again, STUDY, space, now, tmp_path) == []


@pytest.mark.parametrize(
    ("overrides", "space", "facts", "words"),
    [
        ({"training": {"lr": 0.004}}, {"model/noise": {"low": 0.1}}, {}, ("training.lr", "was 0.002 and is now 0.004")),
        ({"space": {"lr": False}}, {"model/noise": {"low": 0.1}}, {}, ("space.lr", "was True and is now False")),
        ({}, {"model/noise": {"low": 0.2}}, {}, ("model/noise", "{'low': 0.1}", "{'low': 0.2}")),
        ({}, {}, {}, ("model/noise", "is now absent")),
        ({}, {"model/noise": {"low": 0.1}, "new": {}}, {}, ("parameter new", "was absent")),
        ({}, {"model/noise": {"low": 0.1}}, {"data_digest": "xyz"}, ("abc", "xyz", "restore the data")),
    ],
)
def test_another_setting_space_or_data_set_is_refused(
    overrides: dict[str, Any], space: dict[str, Any], facts: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(SettingError) as refused:
        check_unchanged(_description(), STUDY.with_overrides(overrides), space, {**PROVENANCE, **facts}, tmp_path)
    assert all(word in str(refused.value) for word in (*words, str(tmp_path))), refused.value


def test_a_setting_that_is_newer_than_the_search_has_its_default_then(tmp_path: Path) -> None:
    space = _description()["space"]
    begun = _description()
    del begun["study"]["data"]["preprocessing"], begun["study"]["sources"]
    assert check_unchanged(begun, STUDY, space, PROVENANCE, tmp_path) == []
    other = STUDY.with_overrides({"data": {"preprocessing": "gcn-zca"}})
    with pytest.raises(SettingError, match=r"data\.preprocessing of .* was none and is now gcn-zca"):
        check_unchanged(begun, other, space, PROVENANCE, tmp_path)
