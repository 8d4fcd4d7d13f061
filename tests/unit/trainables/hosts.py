"""Hosts of small trials on the digits, and what their trials report."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.studies import STUDIES
from trainables.host import Host
from trainables.seat import Stretch

SMALL = {
    "model": {"widths": [64, 20, 10], "noise_std": [0.3] * 3, "lambda_": [1000.0, 10.0, 0.1]},
    "training": {"epochs": 7},
}


def trial_settings(**changed: Any) -> dict[str, Any]:
    return merge(merge(STUDIES["digits-100"].trial().as_mapping(), SMALL), changed)


def new_host(trials: int, snapshots: int = 0, device: str = "cpu") -> Host:
    return Host(datasets.load("digits"), trials=trials, device=torch.device(device), snapshots=snapshots)


def rows_alone(settings: dict[str, Any], epochs: int) -> list[dict[str, Any]]:
    host = new_host(1)
    host.seat("t", settings, compiled=False)
    host.head_for("t", epochs)
    return run_until(host, "t").history


def run_until(host: Host, key: str) -> Stretch:
    """Run intervals until the trial arrives."""
    for _ in range(50):
        arrived = host.interval()
        if key in arrived:
            return arrived[key]
    raise AssertionError(f"{key} never arrived")


def assert_agree(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """All that is reported, to float tolerance; an error of 297 rows may differ by one row."""
    assert [row["epoch"] for row in found] == [row["epoch"] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"step_time_ms"}:
            if name == "validation_error":
                assert ours[name] == pytest.approx(theirs[name], abs=1.01 / 297)
            else:
                assert ours[name] == pytest.approx(theirs[name], rel=2e-3), (name, ours["epoch"])


FIRST, SECOND, THIRD = (
    trial_settings(),
    trial_settings(seed=2, training={"lr": 0.004}),
    trial_settings(seed=3, label_seed=5),
)
