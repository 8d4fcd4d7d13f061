"""The search space of the ladder families, fully connected and convolutional.

Ranges follow the paper, its code and a later automatic search (Rasmus et al. 2015). Scientific hyper-parameters are the
noise, the denoising weights and the combinator; nuisance hyper-parameters are the learning rate and its decay, which
the paper kept fixed. Parameters are flat and named ``section/field``; the result of ``suggest`` is nested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from spaces.points import published_point

# name: (low, high, logarithmic)
RANGES: dict[str, tuple[float, float, bool]] = {
    "model/noise": (0.1, 0.6, False),
    "model/lambda_0": (100.0, 10_000.0, True),
    "model/lambda_0_bottom": (200.0, 10_000.0, True),
    "model/lambda_1": (1.0, 100.0, True),
    "model/lambda_rest": (0.001, 1.0, True),
    "model/combinator_std": (0.006, 0.05, True),
    "training/lr": (0.0005, 0.005, True),
    "training/decay_start": (0.5, 0.86, False),
}
LAMBDA_TOP = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""The paper's grid for models with a single weight, at the top."""
LAMBDA_TOP_CONV = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 5.0, 10.0, 20.0)
"""The grid for convolutional networks, one of which was published with 4."""


def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that replace those of ``base``, the study's own; ``options`` as in ``SpaceConfig``.

    An Optuna ``FixedTrial`` converts flat parameters to settings.
    """
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    noise = _noise(trial, base, options)
    if noise is not None:
        model["noise_std"] = noise
    lambda_ = _lambda(trial, base, options)
    if lambda_ is not None:
        model["lambda_"] = lambda_
    if options["combinators"]:
        model["combinator"] = trial.suggest_categorical("model/combinator", list(options["combinators"]))
    if options["combinator_std"]:
        model["combinator_std"] = _float(trial, "model/combinator_std")
    if options["lr"]:
        training["lr"] = _float(trial, "training/lr")
    if options["decay_start"]:
        training["decay_start"] = _float(trial, "training/decay_start")
    return {"model": model, "training": training}


def published(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    noise, lambda_ = base["model"]["noise_std"], base["model"]["lambda_"]
    values = {
        "model/noise": noise[0],
        "model/noise_input": noise[0],
        "model/noise_local": noise[1],
        **{f"model/noise_{layer}": value for layer, value in enumerate(noise)},
        "model/lambda_top": lambda_[-1],
        "model/lambda_rest": lambda_[-1],
        **{f"model/lambda_{layer}": value for layer, value in enumerate(lambda_)},
    }
    return published_point(suggest, base, options, values)


def _kind(base: Mapping[str, Any]) -> str:
    model = base["model"]
    if model["decoder"] == "full" and not any(model["lambda_"][1:]):
        return "bottom"
    return str(model["decoder"])


def _noise(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> list[float] | None:
    layers = len(base["model"]["noise_std"])
    match options["noise"]:
        case "tied":
            return [_float(trial, "model/noise")] * layers
        case "input-and-local":
            first = _float(trial, "model/noise_input", "model/noise")
            return [first, *[_float(trial, "model/noise_local", "model/noise")] * (layers - 1)]
        case "per-layer":
            return [_float(trial, f"model/noise_{layer}", "model/noise") for layer in range(layers)]
    return None


def _lambda(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> list[float] | None:
    layers, kind, scale = len(base["model"]["lambda_"]), _kind(base), options.get("lambda_0_scale", 1.0)
    if options["lambda_"] == "fixed" or kind == "none":
        return None
    if kind == "gamma":
        grid = LAMBDA_TOP_CONV if "layers" in base["model"] else LAMBDA_TOP
        return [*[0.0] * (layers - 1), trial.suggest_categorical("model/lambda_top", list(grid))]
    if kind == "bottom":
        return [_float(trial, "model/lambda_0", "model/lambda_0_bottom", scale), *[0.0] * (layers - 1)]
    first = [_float(trial, "model/lambda_0", scale=scale), _float(trial, "model/lambda_1")]
    if layers == 2:
        return first
    if options["lambda_"] == "per-layer":
        return [*first, *(_float(trial, f"model/lambda_{i}", "model/lambda_rest") for i in range(2, layers))]
    return [*first, *[_float(trial, "model/lambda_rest")] * (layers - 2)]


def _float(trial: optuna.trial.BaseTrial, name: str, like: str | None = None, scale: float = 1.0) -> float:
    low, high, logarithmic = RANGES[like or name]
    return trial.suggest_float(name, scale * low, scale * high, log=logarithmic)
