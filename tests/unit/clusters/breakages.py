"""Ways to break a cluster file, for tests that show each rule about it to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]
Rule = Callable[[Config], None]
Breakage = Callable[[Config], None]


def put(*path: Any) -> Breakage:
    """A breakage: set the value at a path, ``put("provider", "type", 3)``."""

    def breakage(config: Config) -> None:
        *parents, leaf, value = path
        here: Any = config
        for key in parents:
            here = here[key]
        here[leaf] = value

    return breakage


def drop(*path: Any) -> Breakage:
    def breakage(config: Config) -> None:
        *parents, leaf = path
        here: Any = config
        for key in parents:
            here = here[key]
        del here[leaf]

    return breakage


def edit(old: str, new: str, *keys: str) -> Breakage:
    """A breakage: replace a text in the commands under each of ``keys``."""

    def breakage(config: Config) -> None:
        for key in keys:
            assert any(old in command for command in config[key]), "the breakage breaks nothing"
            config[key] = [command.replace(old, new) for command in config[key]]

    return breakage
