"""A reproduction as a user runs it: killed in the middle, run again, reported."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_killed_reproduction_goes_on_and_ends_as_if_it_had_not_been(
    start: Callable[..., Any], command: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("reproduce", "digits-50-base", "--seeds", "5", "--epochs", "20")
    first = start(*words, folder=tmp_path, command=[sys.executable, "-m", "ladder_search.cli"])
    first.wait_for("published, seeds 1004 to 1005: ")
    first.kill()
    again = command(*words, folder=tmp_path)
    assert again.returncode == 0 and again.stderr == "", again.stderr
    assert "seeds 1001 to 1003" not in again.stdout and "seeds 1004 to 1005" in again.stdout
    whole = command(*words, "-o", "whole", folder=tmp_path)

    def row(text: str) -> str:
        (line,) = re.findall(r"^ *digits-50-base, reduced.*$", text, re.MULTILINE)
        return line

    assert row(again.stdout) == row(whole.stdout)
    made = command("report", "-o", "report", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "report" / "report.html").is_file()


def test_a_search_confirms_its_best_on_fresh_seeds(start: Callable[..., Any], tmp_path: Path) -> None:
    small = (
        "--set",
        "model.widths=64,20,10",
        "--set",
        "model.lambda_=1000,10,0.1",
        "--set",
        "model.noise_std=0.3,0.3,0.3",
    )
    search = start("digits-50", "--trials", "4", "--epochs", "12", *small, "--confirm", "2", folder=tmp_path)
    assert search.ended().code == 0, search.out()
    text = search.out()
    assert text.index("Best found") < text.index("published, seeds 1001 to 1002")
    assert re.search(r"re-run +2 ", text) and re.search(r"found t000\d +2 ", text)
    assert (tmp_path / "results" / "reproductions" / "digits-50-reduced-to-12-epochs" / "race.json").is_file()
