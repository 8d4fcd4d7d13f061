"""Search spaces, one file per family. A space is an importable function: saved searches refer to it by its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from spaces import ladder, progressive, recurrent, sequence

Settings = Mapping[str, Any]


def _nothing(base: Settings, options: Settings) -> list[dict[str, Any]]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A family's space and its paper points."""

    suggest: Callable[[optuna.trial.BaseTrial, Settings, Settings], dict[str, Any]]
    """(trial, the study's own settings, options of its space) -> nested settings to put over the study's own."""
    published: Callable[[Settings, Settings], dict[str, Any] | None]
    """(the study's own settings, options) -> the flat parameters of that point, None where the space lacks it."""
    first: Callable[[Settings, Settings], list[dict[str, Any]]] = _nothing
    """(the study's own settings, options) -> flat parameters of points to suggest before the sampler does."""


SPACES: dict[str, Space] = {
    "ladder": Space(suggest=ladder.suggest, published=ladder.published),
    # The same noise, denoising weights and combinators; only the number of layers is another.
    "ladder-conv": Space(suggest=ladder.suggest, published=ladder.published),
    "progressive": Space(suggest=progressive.suggest, published=progressive.published, first=progressive.first),
    # The same adapters, alphas and sources; only the layers are others.
    "progressive-conv": Space(suggest=progressive.suggest, published=progressive.published, first=progressive.first),
    "recurrent": Space(suggest=recurrent.suggest, published=recurrent.published),
    "sequence": Space(suggest=sequence.suggest, published=sequence.published),
}
