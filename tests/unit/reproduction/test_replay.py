"""A recorded trial, trained again: equal to the bit in the same arrangement, and deviations are found."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.errors import SettingError
from ladder_search.record.trial import TrialRecord
from ladder_search.reproduction.replay import Replay, replay
from ladder_search.studies import STUDIES
from trainables.host import Host

SMALL = {
    "model": {"widths": [64, 20, 10], "noise_std": [0.3] * 3, "lambda_": [1000.0, 10.0, 0.1]},
    "training": {"epochs": 4},
}
ALONE = {"slots": 1, "compiled": False}


def recorded(goal: int, *, in_turn: bool = False, trials: int = 1, **changed: Any) -> TrialRecord:
    """A trial as a search records it; ``trials`` is the size of its pack."""
    settings = merge(merge(STUDIES["digits-100"].trial().as_mapping(), SMALL), changed)
    host = Host(datasets.load("digits"), trials=trials, device=torch.device("cpu"))
    host.seat("t0007", settings, compiled=False, in_turn=in_turn)
    host.head_for("t0007", goal)
    arrived: dict[str, Any] = {}
    while not arrived:
        arrived = host.interval()
    rows = arrived["t0007"].history
    return TrialRecord(
        key="t0007",
        number=7,
        name="",
        state="COMPLETE",
        reason="",
        params={},
        settings=settings,
        epochs=tuple(rows),
        validation_error=rows[-1]["validation_error"],
        seconds=1.0,
        checkpoint=None,
    )


def again(record: TrialRecord, folder: Path, arrangement: dict[str, Any] | None = None, **how: Any) -> Replay:
    return replay(
        record,
        datasets.load("digits"),
        arrangement=arrangement or ALONE,
        device=torch.device("cpu"),
        folder=folder,
        **how,
    )


@pytest.mark.parametrize(
    ("goal", "in_turn", "draws"), [(4, False, 1), (3, False, 2), (4, True, 1), (10, True, 1)], ids=str
)
def test_a_replay_in_the_same_arrangement_is_equal_to_the_bit(
    goal: int, in_turn: bool, draws: int, tmp_path: Path
) -> None:
    record = recorded(goal, in_turn=in_turn, draws=draws)
    told: list[tuple[int, int]] = []
    found = again(record, tmp_path, report=lambda epoch, epochs: told.append((epoch, epochs)))
    assert found.equal and found.epochs == goal and told[-1] == (goal, goal)
    metrics = {one.metric for one in found.deviations}
    assert {"cost", "cost_denoising_0", "draw_validation_error" if in_turn else "validation_error"} <= metrics
    assert len(metrics) == 6


def test_another_arrangement_differs_by_rounding(tmp_path: Path) -> None:
    found = again(recorded(3, trials=3), tmp_path)
    assert found.largest.relative < 1e-4
    assert again(recorded(3, trials=3), tmp_path, {"slots": 3, "compiled": False}).equal


def test_a_changed_value_is_found_with_its_epoch(tmp_path: Path) -> None:
    record = recorded(4)
    rows = [dict(row) for row in record.epochs]
    rows[2]["cost_denoising_0"] *= 1.5
    largest = again(replace(record, epochs=tuple(rows)), tmp_path).largest
    assert (largest.metric, largest.epoch) == ("cost_denoising_0", 3)
    assert largest.relative == pytest.approx(1 / 3) and largest.recorded == rows[2]["cost_denoising_0"]
    assert again(replace(record, epochs=tuple(rows)), tmp_path, most_epochs=2).equal
    rows[3]["validation_error"] = None
    assert again(replace(record, epochs=tuple(rows)), tmp_path).largest.relative == math.inf


def test_a_trial_without_an_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="t0007 has no epoch"):
        again(replace(recorded(1), epochs=()), tmp_path)
