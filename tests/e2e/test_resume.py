"""A search that is killed again and again, beside one that nothing disturbs; both on real Ray and a real store."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import ray

import search
from benchmarks.kill_and_resume import SEARCH, Life, examine
from ladder_search.commands.command_line import run_command
from tests.e2e.warm import CHANGES, WarmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ARGUMENTS = (*SEARCH, "--trials", "5", "--epochs", "90", "--set", "stop.first_rung_steps=200")
SAVED_OFTEN = {CHANGES: json.dumps({"ladder_search.driver.run.UPDATES_AT_STAKE": 500})}
"""A trial is saved every 50 epochs."""


@pytest.fixture(scope="module")
def lives(warm: WarmServer) -> Iterator[Callable[..., Life]]:
    begun: list[Life] = []

    def begin(folder: Path, *arguments: str) -> Life:
        begun.append(Life(folder, *arguments, **SAVED_OFTEN))
        return begun[-1]

    yield begin
    for life in begun:
        if life.process.poll() is None:
            life.kill("everything")


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a search that is refused, in this process: that is before Ray starts. Return the sentence."""

    def run(folder: Path, *arguments: str) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
        capsys.readouterr()
        assert run_command(search.main) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and not ray.is_initialized(), told
        return told

    return run


def _statuses(store: Path) -> set[str]:
    with closing(sqlite3.connect(store)) as database:
        return {status for (status,) in database.execute("SELECT status FROM runs")}


def _pictures(results: Path) -> list[Path]:
    """Return the pictures of the search among the artifacts, where the store says they are."""
    with closing(sqlite3.connect(results / "mlflow.db")) as database:
        query = "SELECT artifact_uri FROM runs JOIN tags USING (run_uuid) WHERE key = 'kind' AND value = 'search'"
        ((address,),) = database.execute(query)
    folder = Path(address.removeprefix("file://"))
    assert folder.is_relative_to(results / "mlartifacts")
    return list(folder.glob("pictures/*.png"))


def test_a_search_that_was_killed_ends_like_one_that_was_not(
    lives: Callable[..., Life], refusal: Callable[..., str], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert lives(whole, *ARGUMENTS).ended() == 0

    study = broken / "results" / "s"
    first = lives(broken, *ARGUMENTS)
    first.wait_until((study / "study.json").exists)
    assert "is in use" in refusal(broken, "--resume", "--name", "s")  # while Ray starts
    first.wait_until((study / "checkpoints" / "t0000" / "checkpoint_000000").exists)
    first.kill("driver")

    second = lives(broken, "digits-100", "--resume")
    second.wait_until((study / "running" / "t0001.jsonl").exists)
    second.process.send_signal(signal.SIGINT)
    assert second.ended() == 1
    assert re.search(r"going on with t0000 from epoch [1-9]", second.out()), second.out()
    assert "search.py --resume --name s" in second.out()
    assert "RUNNING" not in _statuses(broken / "results" / "mlflow.db")

    third = lives(broken, "digits-100", "--resume")
    third.wait_until((study / "running" / "t0002.jsonl").exists)
    third.kill("everything")
    with (study / "optuna.journal").open("r+b") as journal:
        journal.truncate((study / "optuna.journal").stat().st_size - 5)

    # The results go elsewhere, and their old place can no longer be made.
    moved = tmp_path / "moved"
    moved.mkdir()
    (broken / "results").rename(moved / "results")
    broken.rename(tmp_path / "begun")
    broken.touch()
    broken, study = moved, moved / "results" / "s"

    last = lives(broken, "--name", "s", "--resume")
    assert last.ended() == 0, last.out()
    assert "The last line of optuna.journal was incomplete" in last.out()
    found = examine(broken / "results", whole / "results")
    assert found.perfect, found
    assert _pictures(broken / "results")
    assert not (study / "running").exists()
    description = json.loads((study / "study.json").read_text())
    ways = [life["arrangement"] for life in (description, *description["resumed"])]
    assert len(ways) == 4 and all(way | {"why": ""} == ways[0] | {"why": ""} for way in ways), ways
    assert "Steps are not compiled (--compile off)." in last.out()
    seconds = [json.loads(path.read_text())["seconds"] for path in sorted((study / "trials").glob("*.json"))]
    assert len(seconds) == 5 and min(seconds) > 0

    again = lives(broken, "--name", "s", "--resume")
    assert again.ended() == 0
    assert "complete, all 5 trials have ended" in again.out() and "Trials: 5 ended" in again.out()
    assert examine(broken / "results", whole / "results").perfect
    assert "--seed" in refusal(broken, "--name", "s", "--resume", "--seed", "9")
    assert "training.lr" in refusal(broken, "--name", "s", "--resume", "--set", "training.lr=0.001")


def test_promotions_survive_kills(lives: Callable[..., Life], tmp_path: Path) -> None:
    """Rungs are epoch 30 and epoch 60 of one draw, and two draws; which trial goes on depends on all before it."""
    rungs = ("--set", "stop.reduction=2", "--set", "stop.first_rung_steps=200", "--set", "stop.failure_error=0.95")
    arguments = (*SEARCH, "--trials", "8", "--epochs", "60", "--draws", "auto", *rungs)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert lives(whole, *arguments).ended() == 0
    study = broken / "results" / "s"
    first = lives(broken, *arguments)
    first.wait_until((study / "running" / "t0003.jsonl").exists)
    first.kill("driver")
    second = lives(broken, "digits-100", "--resume")
    second.wait_until(lambda: any(study.glob("checkpoints/t*.*/checkpoint_000000")))  # one has gone on from a rung
    second.process.send_signal(signal.SIGINT)
    assert second.ended() == 1
    third = lives(broken, "digits-100", "--resume")
    third.wait_until((study / "running" / "t0006.jsonl").exists)
    third.kill("everything")
    assert lives(broken, "digits-100", "--resume").ended() == 0
    found = examine(broken / "results", whole / "results")
    assert found.perfect, found
    records = [json.loads(path.read_text()) for path in sorted((study / "trials").glob("*.json"))]
    lengths = [record["epochs"][-1]["epoch"] for record in records]
    assert len(records) == 8 and lengths[:2] == [120, 120] and set(lengths[2:]) == {30, 60, 120}, lengths
    assert any("at the rung of epoch 30" in record["reason"] for record in records)
    assert all(len({row["epoch"] for row in record["epochs"]}) == len(record["epochs"]) for record in records)
