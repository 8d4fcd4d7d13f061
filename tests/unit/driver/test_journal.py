"""Optuna's journal as a search keeps it."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ladder_search.driver.searcher import open_studies


def test_the_disk_is_waited_for_when_a_trial_ends_and_not_at_every_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = open_studies(tmp_path / "optuna.journal", "search", "random", 1)
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)

    trial = study.ask()
    trial.suggest_float("lr", 0.0, 1.0)
    trial.set_user_attr("key", "t0000")
    trial.report(0.5, 1)
    assert waits == []
    study.tell(trial, 0.25)

    assert len(waits) == 1


def test_optuna_reads_it_with_its_own_backend_at_once(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    study, _ = open_studies(path, "search", "random", 1)
    study.tell(study.ask(), 0.25)
    running = study.ask()
    running.suggest_float("lr", 0.0, 1.0)
    running.report(0.5, 1)

    found = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(path))))

    assert [trial.value for trial in found.trials] == [0.25, None]
    assert found.trials[1].params.keys() == {"lr"}
    assert found.trials[1].intermediate_values == {1: 0.5}
    assert not list(tmp_path.glob("*.lock"))
