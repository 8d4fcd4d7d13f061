"""What a final training says when the tracking store does not take it: the result is kept either way."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from ladder_search.commands import final_runs
from ladder_search.console import Console
from ladder_search.errors import TrackingError
from ladder_search.final.results import FinalResult, write_result
from ladder_search.final.training import train_final
from ladder_search.studies import find_study
from ladder_search.tracking import NullTracker
from ladder_search.trial import TrialSpec


class _Tracker(NullTracker):
    """Its store takes everything, or nothing."""

    stored = True

    def __init__(self, *given: Any) -> None:
        super().__init__()

    @property
    def stored_but_files(self) -> bool:
        return self.stored

    def close(self, timeout_s: float = 60.0) -> bool:
        return self.stored

    def problems(self) -> list[str]:
        return []

    def run_id(self, key: str) -> str | None:
        return "run"


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinalResult:
    from ladder_search.data import datasets

    monkeypatch.setattr(final_runs, "SpoolTracker", _Tracker)
    study = find_study("digits-50-base")
    spec = TrialSpec.from_mapping({**study.trial().as_mapping(), "training": {"epochs": 1}})
    found = train_final(spec, datasets.load("digits"), seeds=[1001], study=study)
    write_result(tmp_path, found, provenance={"git_sha": "ab"})
    return found


def _recorded(result: FinalResult, folder: Path) -> str:
    out = io.StringIO()
    console = Console(file=out, width=300)
    final_runs.record(result, folder, name="digits-50-base", store="http://127.0.0.1:1", console=console)
    return out.getvalue()


def test_a_store_that_takes_nothing(result: FinalResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Tracker, "stored", False)
    monkeypatch.setattr(final_runs, "_register", lambda *given: pytest.fail("nothing to register with"))
    assert "did not accept everything; the same command sends it again" in _recorded(result, tmp_path)


def test_a_registry_that_fails(result: FinalResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> str:
        raise TrackingError("the model was not registered.")

    monkeypatch.setattr(final_runs, "_register", refuse)
    assert "note: the model was not registered. The same command sends it again." in _recorded(result, tmp_path)
    monkeypatch.setattr(final_runs, "_register", lambda *given: "7")
    assert "registered as model digits-50-base, version 7" in _recorded(result, tmp_path)
