"""Training settings: the paper's defaults, and one sentence for everything else."""

from __future__ import annotations

from typing import Any

import pytest

from ladder_search.config import build
from ladder_search.errors import SettingError
from ladder_search.training.settings import TrainingConfig


def test_the_defaults_are_the_papers() -> None:
    config = TrainingConfig()
    assert (config.epochs, config.lr, config.decay_start) == (150, 0.002, 0.67)
    assert (config.labelled_batch, config.unlabelled_batch) == (100, 100)
    assert (config.dtype, config.precision) == ("float32", "float32")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "training.epochs must be at least 1, got 0"),
        ({"labelled_batch": 0}, "training.labelled_batch must be at least 1, got 0"),
        ({"unlabelled_batch": -5}, "training.unlabelled_batch must be at least 1, got -5"),
        ({"lr": -0.1}, "training.lr must lie in [0, 1], got -0.1"),
        ({"lr": float("nan")}, "training.lr must lie in [0, 1], got nan"),
        ({"lr": 20}, "training.lr must lie in [0, 1], got 20"),
        (
            {"dtype": "float64", "precision": "bf16"},
            "training.precision must be float32 where training.dtype is float64, got bf16",
        ),
        ({"decay_start": 1.5}, "training.decay_start must lie in [0, 1], got 1.5"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError) as caught:
        TrainingConfig(**changes)
    message = str(caught.value)
    assert message.startswith(says)
    assert message.endswith(".") and message.count(". ") == 0 and "\n" not in message


def test_an_unknown_precision_is_refused_where_mappings_come_in() -> None:
    with pytest.raises(LookupError, match="did you mean 'float32'"):
        build(TrainingConfig, {"dtype": "float23"})
    with pytest.raises(LookupError, match="did you mean 'bf16'"):
        build(TrainingConfig, {"precision": "bf61"})
