"""ladder-search: find, track and confirm hyper-parameters of ladder networks."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_FOR_PROGRAMS = {
    "LadderClassifier": "ladder_search.classifier",
    "search": "ladder_search.programs",
}
"""Names for programs and notebooks, and their modules, which are imported when a name is first used: PyTorch and Ray
take seconds, and no part of the library depends on them."""

__all__ = ["LadderClassifier", "__version__", "search"]


def __getattr__(name: str) -> Any:
    if name in _FOR_PROGRAMS:
        return getattr(importlib.import_module(_FOR_PROGRAMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
