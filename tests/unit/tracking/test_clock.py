"""Times in records go on, whatever is done to the machine's clock."""

from __future__ import annotations

import time

import pytest

from ladder_search.tracking.clock import steady_time


def test_a_step_of_the_wall_clock_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    assert steady_time() == pytest.approx(before, abs=60)
    monkeypatch.setattr(time, "time", lambda: before - 3600)
    first = steady_time()
    monkeypatch.setattr(time, "time", lambda: before + 3600)
    assert 0 <= steady_time() - first < 60
