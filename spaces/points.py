"""Whether a space has a point: what a study's own settings are, told as the space's parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna

Suggest = Callable[[optuna.trial.BaseTrial, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


def is_point(suggest: Suggest, params: dict[str, Any], base: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Tell whether ``suggest`` gives back the settings ``base`` at the flat parameters ``params``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns of a value outside its range
            found = suggest(optuna.trial.FixedTrial(params), base, options)
    except (ValueError, UserWarning):
        return False
    return _agrees(found, base)


def _agrees(found: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    for name, value in found.items():
        own = base[name]
        if isinstance(value, Mapping):
            if not _agrees(value, own):
                return False
        elif isinstance(value, list):
            # Settings may say with one value what the space says with as many equal ones.
            if list(own) != value and not (len(own) == 1 and set(value) == set(own)):
                return False
        elif value != own:
            return False
    return True
