"""Search spaces, one file per family. A space is an importable function: saved searches refer to it by its path.

A row of ``ladder_search.models.FAMILIES`` names the file of its space, and the entry point passes ``find_space`` to the
driver. So this package needs no table, and neither it nor the library imports the other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

Settings = Mapping[str, Any]


def _no_points(base: Settings, options: Settings) -> list[dict[str, Any]]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A family's space and its paper points.

    The arguments are the study's own settings with ``variation`` (see ``nn.protocol.ModelConfig``), and the options of
    its space.
    """

    suggest: Callable[[optuna.trial.BaseTrial, Settings, Settings], dict[str, Any]]
    """Returns nested settings that replace the study's own; ``variation`` holds replaced entries of that."""
    published: Callable[[Settings, Settings], dict[str, Any] | None]
    """Returns the flat parameters at which ``suggest`` gives the study's own settings, None where there is no point."""
    first: Callable[[Settings, Settings], list[dict[str, Any]]] = _no_points
    """Returns the flat parameters of points to suggest before the sampler suggests any."""


def find_space(name: str) -> Space:
    """Return the space in the file ``spaces/NAME.py``, the functions of which have the names of ``Space``'s fields."""
    module = importlib.import_module(f"spaces.{name}")
    return Space(suggest=module.suggest, published=module.published, first=getattr(module, "first", _no_points))
