"""The point of a space that a study's own settings are, found by the space's own ``suggest``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

Suggest = Callable[[optuna.trial.BaseTrial, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


class _OwnTrial(optuna.trial.FixedTrial):
    """A trial that answers each suggestion with the study's own value and records the answers."""

    def __init__(self, base: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        super().__init__({})
        self.own: dict[str, Any] = {}
        self._base, self._values = base, values

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> float:
        return float(self._answer(name))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        value: Any = self._values.get(name, self._base)
        if name not in self._values:
            for key in name.split("/"):
                value = value[key]
        self.own[name] = value
        return value


def published_point(
    suggest: Suggest, base: Mapping[str, Any], options: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the flat parameters at which ``suggest`` gives back the settings ``base``, None where there is no point.

    Args:
        values: the study's own values of parameters whose names are not the paths of settings.
    """
    trial = _OwnTrial(base, values)
    suggest(trial, base, options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns of a value outside its range
            suggested = suggest(optuna.trial.FixedTrial(trial.own), base, options)
    except (ValueError, UserWarning):
        return None
    return trial.own if _agrees(suggested, base) else None


def _agrees(suggested: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    for name, value in suggested.items():
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
