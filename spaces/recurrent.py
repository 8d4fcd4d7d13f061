"""The recurrent family's search space, for video and music.

The paper does not mention a search. Ranges are ours, based on common values for convolutional LSTMs and on the sweeps
of Mean Teacher's authors. Scientific hyper-parameters are the prediction weight, the decoder cell, whose formulas are
uncertain, and the teacher; nuisance hyper-parameters are learning rate, noise, dropout and weight decay. A weight of
zero, which is an ablation with its own study, is never suggested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from spaces.points import published_point

# name: (low, high, logarithmic)
RANGES: dict[str, tuple[float, float, bool]] = {
    "training/lr": (0.0003, 0.005, True),
    "model/lambda_p": (1.0, 300.0, True),
    "model/noise_std": (0.0, 0.3, False),
    "model/dropout": (0.0, 0.6, False),
    "teacher/weight": (1.0, 300.0, True),
}
DECODER_CELLS = ("g1", "g2", "g3")
PREDICTIONS = ("mse", "bce")
TOPS = (64, 128, 256, 512)
WEIGHT_DECAY = (0.0, 1e-6, 1e-5, 1e-4)
DECAYS = (0.99, 0.995, 0.999)


def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that replace those of ``base``, the study's own; ``options`` as in ``RecurrentSpaceConfig``."""
    network = base["model"]
    model: dict[str, Any] = {}
    variation: dict[str, Any] = {}
    settings: dict[str, Any] = {"model": model, "training": {}, "variation": variation}
    if options["lr"]:
        settings["training"]["lr"] = _float(trial, "training/lr")
    for name in _floats(base, options):
        model[name] = _float(trial, f"model/{name}")
    if options["weight_decay"]:
        model["weight_decay"] = trial.suggest_categorical("model/weight_decay", list(WEIGHT_DECAY))
    if options["prediction"] and _predicts(network):
        model["prediction"] = trial.suggest_categorical("model/prediction", list(PREDICTIONS))
    if options["decoder_cell"] and network["decoder"]:
        model["decoder_cell"] = trial.suggest_categorical("model/decoder_cell", list(DECODER_CELLS))
    if options["normalisation"]:
        model["normalisation"] = trial.suggest_categorical("model/normalisation", ["ln", "bn"])
    if options["iterations"]:
        model["iterations"] = trial.suggest_categorical("model/iterations", list(options["iterations"]))
    for name, option in (("channels", "channels"), ("kernel", "kernels"), ("cell", "cells")):
        if options[option]:
            variation[name] = trial.suggest_categorical(f"model/{name}", list(options[option]))
    if options["top"]:
        variation["top"] = trial.suggest_categorical("model/top", list(TOPS))
    if options["teacher"] and _has_teacher(base):
        decay = trial.suggest_categorical("teacher/decay", list(DECAYS))
        settings["teacher"] = {"weight": _float(trial, "teacher/weight"), "decay": decay}
    return settings


def published(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    values = {f"model/{name}": value for name, value in base["variation"].items()}
    return published_point(suggest, base, options, values)


def _floats(base: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Return the names of the model's numeric hyper-parameters to search."""
    model = base["model"]
    names = [name for name in ("noise_std", "dropout") if options[name.removesuffix("_std")]]
    if options["lambda_p"] and _predicts(model):
        names.append("lambda_p")
    return sorted(names)


def _predicts(model: Mapping[str, Any]) -> bool:
    return bool(model["task"] == "video" and model["decoder"] and model["lambda_p"] > 0)


def _has_teacher(base: Mapping[str, Any]) -> bool:
    return bool(base.get("teacher", {}).get("weight", 0.0) > 0)


def _float(trial: optuna.trial.BaseTrial, name: str) -> float:
    low, high, logarithmic = RANGES[name]
    return trial.suggest_float(name, low, high, log=logarithmic)
