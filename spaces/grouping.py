"""The search space of the grouping families, Tagger and RTagger.

The papers tuned noise and class cost by a grid; ranges are ours. Scientific hyper-parameters are the normalisation,
which decides whether Tagger groups at all, the number of groups and of iterations, and for RTagger states and feedback;
nuisance hyper-parameters are learning rate, noise, class cost and widths. The initial z is the data's mean and fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from spaces.points import published_point

LR = (0.0002, 0.002)
NOISE = (0.1, 0.3)
CLASS_COST = (0.03, 0.3)


def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that replace those of ``base``, the study's own; ``options`` as in ``GroupingSpaceConfig``."""
    network = base["model"]
    model: dict[str, Any] = {}
    variation: dict[str, Any] = {}
    settings: dict[str, Any] = {"model": model, "training": {}, "variation": variation}
    if options["lr"]:
        settings["training"]["lr"] = trial.suggest_float("training/lr", *LR, log=True)
    if options["noise"]:
        model["noise"] = trial.suggest_float("model/noise", *NOISE)
    if options["class_cost"] and network["classes"]:
        model["class_cost"] = trial.suggest_float("model/class_cost", *CLASS_COST, log=True)
    own = network.get("approach") != "fine-tuned"  # otherwise levels and normalisation are those of the source
    if options["norm"] and own:
        model["norm"] = trial.suggest_categorical("model/norm", ["ln", "bn"])
    for name in ("groups", *(("iterations", "evaluation_iterations") if _of_images(network) else ())):
        if options[name]:
            model[name] = trial.suggest_categorical(f"model/{name}", list(options[name]))
    for name in ("stateful", "feedback"):
        if options[name] and name in network:
            model[name] = trial.suggest_categorical(f"model/{name}", [True, False])
    for name in ("widths", "channels"):
        if options[name] and name in base["variation"] and own:
            variation[name] = trial.suggest_categorical(f"model/{name}", list(options[name]))
    return settings


def published(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    values = {f"model/{name}": value for name, value in base["variation"].items()}
    return published_point(suggest, base, options, values)


def _of_images(model: Mapping[str, Any]) -> bool:
    """Return whether the number of iterations is a setting; of a video it is the number of frames."""
    return bool(model.get("frames", 1) == 1)
