"""The script of the kept learning curves still runs, and its last point is the final training's."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ladder_search.data import datasets
from ladder_search.final.training import train_final
from ladder_search.studies import find_study

SCRIPT = Path(__file__).parents[2] / "reproductions" / "learning_curve.py"


def test_the_last_point_is_the_final_trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "curve.jsonl"
    options = ("--study", "digits-100", "--seeds", "1001,1002", "--epochs", "1", "--every", "9", "--no-compile")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options, "--output", str(kept)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    spec = find_study("digits-100").trial()
    spec = replace(spec, training=replace(spec.training, epochs=1))
    final = train_final(spec, datasets.load("digits"), seeds=[1001, 1002])
    steps = spec.member(datasets.load("digits")).steps_per_epoch
    assert {row["reduced_to_epochs"] for row in rows} == {1} and rows[0]["step"] == 9 and rows[-1]["step"] >= steps
    assert {row["seed"]: row["test_error"] for row in rows[-2:]} == {o.seed: o.test_error for o in final.outcomes}
