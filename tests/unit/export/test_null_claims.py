"""Simulated reproductions in which nothing differs: how many claim a difference in ten tables of growing runs."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from ladder_search.export import reproduction, table
from ladder_search.export.statistics import LEVEL
from ladder_search.studies import STUDIES

SCRIPT = Path(__file__).parents[3] / "reproductions" / "null_claims.py"
REPRODUCTIONS = 250
MOST = int(binom.ppf(0.999, REPRODUCTIONS, LEVEL))
"""More than so many claims have a chance of at most one in a thousand, if the chance of each is the level."""


@pytest.fixture
def script() -> Iterator[dict[str, Any]]:
    names = runpy.run_path(str(SCRIPT), run_name="script")
    kept = STUDIES[names["STUDY"]]
    yield names
    STUDIES[names["STUDY"]] = kept


def test_the_formulas_are_scipys(script: dict[str, Any]) -> None:
    script["check"](seed=2, reproductions=2)


def test_ten_tables_keep_to_the_level_where_nothing_differs(script: dict[str, Any]) -> None:
    found = script["shares"]("equal", REPRODUCTIONS, 2)
    assert 0 < found["difference"]["count"] <= MOST
    assert found["dropped"]["count"] <= MOST
    assert found["reproduced"]["share"] > 0.05, "what is there can be found"


def test_ten_tables_keep_to_the_level_where_nothing_is_reproduced(script: dict[str, Any]) -> None:
    found = script["shares"]("a margin apart", REPRODUCTIONS, 2)
    assert found["reproduced"]["count"] <= MOST


def test_levels_that_do_not_sum_to_it_would_be_seen(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reproduction, table):
        monkeypatch.setattr(module, "look_level", lambda look: LEVEL)
    monkeypatch.setattr(table, "holm", list)
    assert script["shares"]("equal", 60, 2)["difference"]["count"] > binom.ppf(0.999, 60, LEVEL)
