"""Finds the point of a space that corresponds to a study's own settings, with the space's ``suggest``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

Suggest = Callable[[optuna.trial.BaseTrial, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


class _OwnTrial(optuna.trial.FixedTrial):
    """A trial that returns the study's own value for each suggestion and records it."""

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
    """Return the flat parameters for which ``suggest`` returns the settings ``base``; None if there are none.

    ``values`` are the study's own values of parameters whose names are not paths of settings.
    """
    trial = _OwnTrial(base, values)
    suggest(trial, base, options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns about values outside their range
            suggested = suggest(optuna.trial.FixedTrial(trial.own), base, options)
    except (ValueError, UserWarning):
        return None
    return trial.own if _agrees(suggested, base) else None


def _agrees(suggested: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    for name, value in suggested.items():
        expected = base[name]
        if isinstance(value, Mapping):
            if not _agrees(value, expected):
                return False
        elif isinstance(value, list):
            # One value in the settings may correspond to several equal ones in the space.
            if list(expected) != value and not (len(expected) == 1 and set(value) == set(expected)):
                return False
        elif value != expected:
            return False
    return True
