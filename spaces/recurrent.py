"""The recurrent family's search space, on video and on music.

Source: the paper tells of no search; ranges are ours, around what is usual for convolutional LSTMs and, of the teacher,
what Mean Teacher's authors swept. Scientific are the weight of the prediction, the decoder cell, whose formulas are
uncertain, and the teacher; learning rate, noise, dropout and weight decay are nuisance parameters. A weight of zero is
an ablation of its own study and is never suggested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from spaces.points import is_point

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
_CELLS = ("lstm", "gru")


def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings to put over ``base``, drawn from ``trial``.

    Args:
        trial: an Optuna trial; a ``FixedTrial`` turns flat parameters into settings.
        base: the study's own settings, nested (``model``, ``training``, ``teacher``).
        options: which parameters vary, see ``studies.recurrent.RecurrentSpaceConfig``.
    """
    own = base["model"]
    model: dict[str, Any] = {}
    found: dict[str, Any] = {"model": model, "training": {}}
    if options["lr"]:
        found["training"]["lr"] = _float(trial, "training/lr")
    for name in _floats(base, options):
        model[name] = _float(trial, f"model/{name}")
    if options["weight_decay"]:
        model["weight_decay"] = trial.suggest_categorical("model/weight_decay", list(WEIGHT_DECAY))
    if options["prediction"] and _predicts(own):
        model["prediction"] = trial.suggest_categorical("model/prediction", list(PREDICTIONS))
    if options["decoder_cell"] and own["decoder"]:
        model["decoder_cell"] = trial.suggest_categorical("model/decoder_cell", list(DECODER_CELLS))
    if options["normalisation"]:
        model["normalisation"] = trial.suggest_categorical("model/normalisation", ["ln", "bn"])
    if options["iterations"]:
        model["iterations"] = trial.suggest_categorical("model/iterations", list(options["iterations"]))
    levels = _levels(trial, own["levels"], options)
    if levels != list(own["levels"]):
        model["levels"] = levels
    if options["teacher"] and _taught(base):
        decay = trial.suggest_categorical("teacher/decay", list(DECAYS))
        found["teacher"] = {"weight": _float(trial, "teacher/weight"), "decay": decay}
    return found


def published(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the flat parameters at which ``suggest`` gives back ``base``, None when it has no such point."""
    model, training = base["model"], base["training"]
    params: dict[str, Any] = {}
    if options["lr"]:
        params["training/lr"] = training["lr"]
    params |= {f"model/{name}": model[name] for name in _floats(base, options)}
    if options["weight_decay"]:
        params["model/weight_decay"] = model["weight_decay"]
    if options["prediction"] and _predicts(model):
        params["model/prediction"] = model["prediction"]
    if options["decoder_cell"] and model["decoder"]:
        params["model/decoder_cell"] = model["decoder_cell"]
    if options["normalisation"]:
        params["model/normalisation"] = model["normalisation"]
    if options["iterations"]:
        params["model/iterations"] = model["iterations"]
    channels, kernel, cell, top = _written(model["levels"])
    for name, value, asked in (
        ("channels", channels, options["channels"]),
        ("kernel", kernel, options["kernels"]),
        ("cell", cell, options["cells"]),
        ("top", top, options["top"]),
    ):
        if asked:
            params[f"model/{name}"] = value
    if options["teacher"] and _taught(base):
        params |= {"teacher/weight": base["teacher"]["weight"], "teacher/decay": base["teacher"]["decay"]}
    return params if is_point(suggest, params, base, options) else None


def _floats(base: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Names of the model's searched numbers."""
    model = base["model"]
    found = [name for name in ("noise_std", "dropout") if options[name.removesuffix("_std")]]
    if options["lambda_p"] and _predicts(model):
        found.append("lambda_p")
    return sorted(found)


def _predicts(model: Mapping[str, Any]) -> bool:
    return bool(model["task"] == "video" and model["decoder"] and model["lambda_p"] > 0)


def _taught(base: Mapping[str, Any]) -> bool:
    return bool(base.get("teacher", {}).get("weight", 0.0) > 0)


def _levels(trial: optuna.trial.BaseTrial, levels: list[str], options: Mapping[str, Any]) -> list[str]:
    """The study's levels with other channels, kernels, cells or units at the top."""
    channels, kernel, cell, top = _written(levels)
    wanted = channels
    if options["channels"]:
        wanted = trial.suggest_categorical("model/channels", list(options["channels"]))
    if options["kernels"]:
        kernel = trial.suggest_categorical("model/kernel", list(options["kernels"]))
    if options["cells"]:
        cell = trial.suggest_categorical("model/cell", list(options["cells"]))
    if options["top"]:
        top = trial.suggest_categorical("model/top", list(TOPS))

    def rewritten(word: str) -> str:
        kind, *numbers = word.split(":")
        if kind == "conv":
            return ":".join((kind, str(int(numbers[0]) * wanted // channels), *numbers[1:]))
        if kind in _CELLS:
            size = kernel if options["kernels"] else numbers[1]
            return f"{cell if options['cells'] else kind}:{int(numbers[0]) * wanted // channels}:{size}"
        if kind.startswith("dense-") and kind != "dense-rnn":
            return f"dense-{cell if options['cells'] else kind.removeprefix('dense-')}:{top}"
        return f"{kind}:{top}" if kind.startswith("dense") else word

    return [" ".join(rewritten(word) for word in _words(level)) for level in levels]


def _words(level: str) -> list[str]:
    return level.replace("+", " ").split()


def _written(levels: list[str]) -> tuple[int, int, str, int]:
    """Channels of the lowest convolution, kernel and kind of the lowest recurrent cell, units of the top."""
    words = [word.split(":") for level in levels for word in _words(level)]
    channels = next((int(word[1]) for word in words if word[0] == "conv"), 1)
    cells = [word for word in words if word[0] in _CELLS]
    top = next((int(word[1]) for word in reversed(words) if word[0].startswith("dense")), 0)
    return channels, int(cells[0][2]) if cells else 0, cells[0][0] if cells else _CELLS[0], top


def _float(trial: optuna.trial.BaseTrial, name: str) -> float:
    low, high, logarithmic = RANGES[name]
    return trial.suggest_float(name, low, high, log=logarithmic)
