"""Search spaces, one file per family. Spaces are importable functions: saved searches refer to them by path.

``ladder_search.models`` names each family's file, and the entry point passes ``find_space`` to the driver, so
that this package and the library do not import each other.
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

    All functions take the study's own settings including ``variation`` (see ``nn.protocol.ModelConfig``), and the
    options of the space.
    """

    suggest: Callable[[optuna.trial.BaseTrial, Settings, Settings], dict[str, Any]]
    """Returns nested settings that replace the study's own, with replaced entries of the notation in ``variation``."""
    published: Callable[[Settings, Settings], dict[str, Any] | None]
    """Returns flat parameters for which ``suggest`` returns the study's own settings; None if there are none."""
    first: Callable[[Settings, Settings], list[dict[str, Any]]] = _no_points
    """Returns flat parameters of points to suggest before those of the sampler."""


def find_space(name: str) -> Space:
    """Return the space in ``spaces/NAME.py``, whose functions are named like the fields of ``Space``."""
    module = importlib.import_module(f"spaces.{name}")
    return Space(suggest=module.suggest, published=module.published, first=getattr(module, "first", _no_points))
