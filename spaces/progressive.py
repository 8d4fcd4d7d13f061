"""The progressive family's search space.

Source: Rusu et al. 2016 searched learning rate and initial alpha over categories, which are tried first; Thaker's
single setting comes next. Scientific hyper-parameters are the adapter, alpha, the treatment of the source's batch
statistics, and the source's noise and denoising weights; nuisance hyper-parameters are learning rate and weight decay.
A search over a source's settings trains a source for every trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from spaces.points import published_point

LR = (0.0001, 0.003)
ALPHA = (0.003, 3.0)
"""Ranges of log-uniform values, which contain the categories of the paper's search."""
RUSU_LR, RUSU_ALPHA = (0.001, 0.0005, 0.0001), (1.0, 0.1, 0.01)
"""The categories of Rusu et al. 2016, appendix, whose grid is tried first."""
WEIGHT_DECAY = (0.0, 1e-6, 1e-5)
ADAPTERS = ("rusu", "sum", "linear")
ADAPTER_SHARES = (0.25, 0.5, 1.0)
"""Width of the adapters' hidden layers as a fraction of the target's second layer."""
LABELS = (100, 1000)
NOISE = (0.1, 0.6)
LAMBDA_0 = (100.0, 10_000.0)


def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that replace those of ``base``, the study's own; ``options`` as in ``ProgressiveSpaceConfig``."""
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    lateral = base["model"]["approach"] == "progressive"
    staged = base["model"]["approach"] != "scratch"
    if lateral and options["alpha"] != "fixed":
        names = ["model/alpha"]
        if options["alpha"] == "per-layer":
            names = [f"model/alpha_{layer}" for layer in range(2, _laterals(base["model"]) + 2)]
        model["alpha_init"] = [trial.suggest_float(name, *ALPHA, log=True) for name in names]
    if lateral and options["adapter"]:
        model["adapter"] = trial.suggest_categorical("model/adapter", list(ADAPTERS))
    if lateral and options["adapter_width"]:
        share = trial.suggest_categorical("model/adapter_share", list(ADAPTER_SHARES))
        model["adapter_width"] = max(1, round(share * base["model"]["widths"][2]))
    if options["batch_norm"] and base["model"]["approach"] != "fine-tuned":
        model["batch_norm"] = trial.suggest_categorical("model/batch_norm", [True, False])
    if options["weight_decay"]:
        model["weight_decay"] = trial.suggest_categorical("model/weight_decay", list(WEIGHT_DECAY))
    if options["lr"]:
        training["lr"] = trial.suggest_float("training/lr", *LR, log=True)
    settings: dict[str, Any] = {"model": model, "training": training}
    if staged:
        sources = sorted(base["sources"].items())
        settings["sources"] = {name: _source(trial, name, source, options) for name, source in sources}
    return settings


def published(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    model = base["model"]
    values = {"model/alpha": model["alpha_init"][0]}
    alphas = model["alpha_init"] if len(model["alpha_init"]) > 1 else model["alpha_init"] * _laterals(model)
    values |= {f"model/alpha_{layer}": alpha for layer, alpha in enumerate(alphas, start=2)}
    if "widths" in model:
        values["model/adapter_share"] = (model["adapter_width"] or 0) / model["widths"][2]
    for name, source in base.get("sources", {}).items():
        values[f"sources/{name}/labels"] = source["data"]["labels"]
        values[f"sources/{name}/noise"] = source["model"].get("noise_std", [None])[0]
        values[f"sources/{name}/lambda_0"] = source["model"].get("lambda_", [None])[0]
    return published_point(suggest, base, options, values)


def first(base: Mapping[str, Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return points to try before the sampler's: Rusu's grid around the study's own point, and Thaker's setting."""
    paper = published(base, options)
    if paper is None or "training/lr" not in paper or not any(name.startswith("model/alpha") for name in paper):
        return []
    alphas = [name for name in paper if name.startswith("model/alpha")]
    grid = [{**paper, "training/lr": lr, **dict.fromkeys(alphas, alpha)} for lr in RUSU_LR for alpha in RUSU_ALPHA]
    thaker = {"training/lr": 0.0001, "model/adapter": "sum", "model/weight_decay": 1e-6, **dict.fromkeys(alphas, 1.0)}
    grid.append({**paper, **{name: value for name, value in thaker.items() if name in paper}})
    return [point for number, point in enumerate(grid) if point != paper and point not in grid[:number]]


def _source(
    trial: optuna.trial.BaseTrial, name: str, base: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options["statistics"]:
        settings["statistics"] = trial.suggest_categorical(f"sources/{name}/statistics", ["source", "target"])
    if options["source_labels"]:
        settings["data"] = {"labels": trial.suggest_categorical(f"sources/{name}/labels", list(LABELS))}
    if options["source_noise"] and base["model"].get("decoder", "none") != "none":
        sigma = trial.suggest_float(f"sources/{name}/noise", *NOISE)
        settings["model"] = {"noise_std": [sigma] * len(base["model"]["noise_std"])}
        if base["model"]["decoder"] == "full":
            bottom = trial.suggest_float(f"sources/{name}/lambda_0", *LAMBDA_0, log=True)
            settings["model"]["lambda_"] = [bottom, *base["model"]["lambda_"][1:]]
    return settings


def _laterals(model: Mapping[str, Any]) -> int:
    """Return the number of alphas: one per layer above the first, or the settings' number for convolutions."""
    return len(model["widths"]) - 2 if "widths" in model else len(model["alpha_init"])
