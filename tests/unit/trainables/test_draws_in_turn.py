"""Label draws that a trial trains one after another in one slot, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.trainables.hosts import FIRST, SECOND, assert_agree, new_host, rows_alone, run_until, trial_settings
from trainables.host import Host

pytestmark = pytest.mark.timeout(400)  # a busy machine


def _in_turn(host: Host, goal: int, checkpoint: Path | None = None) -> list[dict[str, Any]]:
    host.seat("t", FIRST, compiled=False, checkpoint=checkpoint, in_turn=True)
    host.head_for("t", goal)
    return run_until(host, "t").history


def test_draws_in_turn_are_those_that_train_at_once() -> None:
    rows = _in_turn(new_host(1), 3 * 7)
    assert [row["epoch"] for row in rows] == list(range(1, 22))
    assert [row["draw"] for row in rows] == [0] * 7 + [1] * 7 + [2] * 7
    assert [row["step"] for row in rows] == [10 * epoch for epoch in range(1, 22)]
    together = new_host(1)
    together.seat("t", trial_settings(draws=3), compiled=False)
    together.head_for("t", 7)
    expected = run_until(together, "t").history[-1]["validation_error"]
    assert rows[-1]["validation_error"] == pytest.approx(expected, abs=1.01 / 297)
    own = [rows[end]["draw_validation_error"] for end in (6, 13, 20)]
    assert rows[-1]["validation_error"] == pytest.approx(np.mean(own))
    assert rows[13]["validation_error"] == pytest.approx(np.mean(own[:2]))
    assert {row["validation_error"] for row in rows[7:13]} == {own[0]}, "an unfinished draw does not count"
    assert rows[6]["validation_error"] == own[0] == rows_alone(FIRST, 7)[-1]["validation_error"]


@pytest.mark.parametrize("stop", [5, 7, 9, 14])
def test_draws_in_turn_go_on_from_a_checkpoint_bit_for_bit(stop: int, tmp_path: Path) -> None:
    unbroken = _in_turn(new_host(1), 16)
    first = new_host(1)
    before = _in_turn(first, stop)
    first.save("t", tmp_path)
    after = _in_turn(new_host(1), 16, tmp_path)
    untimed = [{name: row[name] for name in row if name != "step_time_ms"} for row in (*before, *after)]
    assert untimed == [{name: row[name] for name in row if name != "step_time_ms"} for row in unbroken]


def test_a_trial_on_a_later_draw_shares_its_pack_and_leaves_the_others_alone() -> None:
    host = new_host(2)
    host.seat("a", FIRST, compiled=False, in_turn=True)
    host.seat("b", SECOND, compiled=False, in_turn=True)
    pack = host.pack
    host.head_for("a", 9)
    host.head_for("b", 7)
    b = run_until(host, "b").history
    a = run_until(host, "a").history
    assert host.pack is pack and a[-1]["draw"] == 1
    assert_agree([{name: row[name] for name in row if "draw" not in name} for row in b], rows_alone(SECOND, 7))
