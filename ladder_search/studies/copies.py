"""Copies of study files in study folders: ``settings.definition`` of ``study.json``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ladder_search.disk.foreign import read_json

_LIMIT = 1 << 28  # bytes of a study.json


def definitions(root: Path) -> dict[str, dict[str, Any]]:
    """Return the latest definition of each study that a file defined, by name; unreadable folders are left out."""
    found: dict[str, tuple[int, str, dict[str, Any]]] = {}
    for path in root.glob("*/study.json"):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            definition = read_json(path, _LIMIT)["settings"].get("definition")
            if isinstance(definition, dict):
                entry = (path.stat().st_mtime_ns, path.parent.name, definition)
                name = str(definition["name"])
                if name not in found or entry[:2] > found[name][:2]:
                    found[name] = entry
    return {name: definition for name, (_, _, definition) in found.items()}
