"""Simulated reproductions in which nothing differs: how many claim a difference in ten tables of growing runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from ladder_search.statistics import LEVEL

SCRIPT = Path(__file__).parents[3] / "reproductions" / "null_claims.py"
REPRODUCTIONS = 2_000
MOST = int(binom.ppf(0.999, REPRODUCTIONS, LEVEL))
"""More than so many claims have a chance of at most one in a thousand, if the chance of each is the level."""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="script")


@pytest.mark.parametrize("kind", ["equal", "a margin apart"])
def test_the_simulated_rule_is_that_of_reproduce(script: dict[str, Any], kind: str) -> None:
    script["check"](kind, seed=3, reproductions=4)


def test_ten_tables_keep_to_the_level_where_nothing_differs(script: dict[str, Any]) -> None:
    found = script["shares"]("equal", REPRODUCTIONS, 2)
    assert 0 < found["difference"]["count"] <= MOST
    assert found["dropped"]["count"] <= MOST
    assert found["reproduced"]["share"] > 0.05, "what is there can be found"


def test_ten_tables_keep_to_the_level_where_nothing_is_reproduced(script: dict[str, Any]) -> None:
    found = script["shares"]("a margin apart", REPRODUCTIONS, 2)
    assert found["reproduced"]["count"] <= MOST


def test_the_kept_figures_are_those_of_the_readme_and_keep_to_the_level() -> None:
    kept = json.loads((SCRIPT.parent / "results" / "null-claims.json").read_text(encoding="utf-8"))
    text = (SCRIPT.parent / "README.md").read_text(encoding="utf-8")
    for kind, claims in (("equal", ("difference", "from the re-run")), ("a margin apart", ("reproduced",))):
        assert kept[kind]["reproductions"] >= 10_000
        for own in (kept[kind][claim] for claim in claims):
            assert own["high"] <= LEVEL
            assert f"{100 * own['share']:.2f} % ({100 * own['low']:.2f} .. {100 * own['high']:.2f})" in text


def test_levels_that_do_not_sum_to_it_would_be_seen(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    names = script["shares"].__globals__
    monkeypatch.setitem(names, "look_level", lambda look: LEVEL)  # every look at the whole of it
    assert script["shares"]("equal", REPRODUCTIONS, 2)["difference"]["count"] > MOST
