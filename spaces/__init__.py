"""Search spaces, one file per family. A space is an importable function: saved searches refer to it by its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from spaces import ladder, progressive

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A family's space and its paper points."""

    suggest: Callable[[optuna.trial.BaseTrial, Settings, Settings], dict[str, Any]]
    """(trial, the study's own settings, options of its space) -> nested settings to put over the study's own."""
    published: Callable[[Settings, Settings], dict[str, Any] | None]
    """(the study's own settings, options) -> the flat parameters of that point, None where the space lacks it."""


SPACES: dict[str, Space] = {
    "ladder": Space(suggest=ladder.suggest, published=ladder.published),
    # The same noise, denoising weights and combinators; only the number of layers is another.
    "ladder-conv": Space(suggest=ladder.suggest, published=ladder.published),
    "progressive": Space(suggest=progressive.suggest, published=progressive.published),
    # The same adapters, alphas and sources; only the layers are others.
    "progressive-conv": Space(suggest=progressive.suggest, published=progressive.published),
}
