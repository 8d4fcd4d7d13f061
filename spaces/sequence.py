"""The search space of the music baselines; ranges are ours. A network memorises the chorales within some 20 passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from spaces.points import published_point

LR = (0.0003, 0.005)
DROPOUT = (0.0, 0.6)
WEIGHT_DECAY = (0.0, 1e-6, 1e-5, 1e-4)


def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that replace those of ``base``, the study's own; ``options`` as in ``SequenceSpaceConfig``."""
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    if options["lr"]:
        training["lr"] = trial.suggest_float("training/lr", *LR, log=True)
    if options["dropout"]:
        model["dropout"] = trial.suggest_float("model/dropout", *DROPOUT)
    if options["weight_decay"]:
        model["weight_decay"] = trial.suggest_categorical("model/weight_decay", list(WEIGHT_DECAY))
    if options["hidden"]:
        model["hidden"] = trial.suggest_categorical("model/hidden", list(options["hidden"]))
    return {"model": model, "training": training}


def published(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    return published_point(suggest, base, options, {})
