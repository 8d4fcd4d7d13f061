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
