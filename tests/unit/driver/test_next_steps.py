"""What is printed last is complete, quoted, and holds no password."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from ladder_search.commands.command_line import Parser
from ladder_search.commands.search import add_arguments
from ladder_search.driver.next_steps import next_steps
from ladder_search.driver.search import SearchResult
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.studies import find_study
from ladder_search.tracking.address import default_store

RECORD = TrialRecord(
    key="t0003", number=3, name="", state="COMPLETE", reason="", params={}, settings={}, epochs=(),
    validation_error=0.1, seconds=1.0, checkpoint=None,
)  # fmt: skip


def _result(folder: Path) -> SearchResult:
    return SearchResult(
        has_tests=True,
        study=find_study("digits-100"),
        folder=StudyFolder(folder),
        records=[replace(RECORD, key="t0004", number=4, validation_error=0.2), RECORD],
        store="postgresql://ann:***@db/runs",
        stored=False,
        interrupted=True,
        unfinished=True,
        problems=["a problem"],
    )


@pytest.fixture(autouse=True)
def _no_program_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def _commands(lines: list[str]) -> dict[str, list[str]]:
    """Command -> its words, from ``ladder-search`` or ``search.py`` on."""
    found = {}
    for line in lines:
        if "/ladder-search " not in line and "search.py " not in line:
            continue
        words = shlex.split(line[16:])
        for place, word in enumerate(words):
            if Path(word).name == "search.py":
                found["search"] = words[place + 1 :]
            if Path(word).name == "ladder-search":
                found[words[place + 1]] = words[place + 1 :]
    return found


@pytest.mark.parametrize("root", ["results", "my results", "it's $HOME", "~", "/elsewhere/x y"])
def test_every_command_is_complete(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = next_steps(_result(tmp_path / root / "first"))
    assert "***@" not in "".join(lines[2:]) and "PGPASSWORD" in "\n".join(lines)
    place = [] if root == "results" else ["--root", str(tmp_path / "~") if root == "~" else root]
    tracking = ["--tracking", "postgresql://ann@db/runs"]
    bundles = "configs/first"
    commands = _commands(lines)
    assert commands == {
        "sync": ["sync", "first", *place, *tracking],
        "search": ["--resume", "--name", "first", *place, *tracking],
        "ui": ["ui", *place, *tracking],
        "export": ["export", "first", "--top", "3", "--output", bundles, *place],
        "train": ["train", f"{bundles}/01-t0003", "--seeds", "10", *place, *tracking],
    }
    parser = Parser("search", "")
    add_arguments(parser)
    assert parser.parse_args(commands["search"]).name == "first"
    assert lines[-1] == "note: a problem"


def test_what_is_not_needed_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = default_store(tmp_path / "results")
    ended = _result(tmp_path / "results" / "first")
    complete = replace(ended, stored=True, unfinished=False, records=[], problems=[], store=store)
    assert set(_commands(next_steps(complete))) == {"ui"}


def test_the_pages_of_a_server_are_its_own(tmp_path: Path) -> None:
    lines = next_steps(replace(_result(tmp_path / "results" / "first"), store="https://ann:***@mlflow.lab"))
    assert "look at it      https://mlflow.lab in a browser" in lines
    assert "ui" not in _commands(lines)


def test_data_without_test_rows_are_not_trained_on_in_the_end(tmp_path: Path) -> None:
    result = _result(tmp_path / "results" / "s")
    assert "train" in _commands(next_steps(result))
    lines = next_steps(replace(result, has_tests=False))
    assert "train" not in _commands(lines) and "export" in _commands(lines)
    assert any("test rows" in line and "data.test" in line for line in lines)
