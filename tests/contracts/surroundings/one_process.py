"""Ray in one process: a remote call is a call.

The search above it is the product's, Ray Tune included: its loop, schedulers, searchers, stoppers, callbacks,
checkpoints and storage. What is replaced lies below Tune: processes, the object store and the count of resources.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.air.execution.resources import fixed
from ray.exceptions import RayTaskError
from ray.tune.execution import tune_controller

CORES = 2


class _Reference:
    """What a remote call returns: its result, or its error, which is there already."""

    _numbers = itertools.count()

    def __init__(self, call: Callable[[], Any]) -> None:
        self.number = next(self._numbers)
        self._value: Any = None
        self._error: Exception | None = None
        try:
            self._value = call()
        except Exception as error:
            self._error = RayTaskError("call", traceback.format_exc(), error)

    def get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class _Method:
    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def remote(self, *arguments: Any, **options: Any) -> _Reference:
        return _Reference(lambda: self._method(*arguments, **options))


class _Actor:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._made = _Reference(make)

    def __getattr__(self, name: str) -> _Method:
        if name == "__ray_ready__":
            return _Method(self._made.get)
        if name == "__ray_terminate__":
            return _Method(lambda: None)
        return _Method(lambda *arguments, **options: getattr(self._made.get(), name)(*arguments, **options))


class _ActorClass:
    def __init__(self, kind: type) -> None:
        self._kind = kind

    def options(self, **options: Any) -> _ActorClass:
        return self

    def remote(self, *arguments: Any, **options: Any) -> _Actor:
        return _Actor(lambda: self._kind(*arguments, **options))


def _remote(*kinds: type, **options: Any) -> Any:
    return _ActorClass(kinds[0]) if kinds else _ActorClass


def _wait(references: list[_Reference], **options: Any) -> tuple[list[_Reference], list[_Reference]]:
    first = min(references, key=lambda reference: reference.number)  # Tune shuffles them
    return [first], [reference for reference in references if reference is not first]


class _Resources(fixed.FixedResourceManager):  # type: ignore[misc]
    def __init__(self) -> None:
        self._allow_strict_pack = True
        self._total_resources = {"CPU": float(CORES)}
        self._requested_resources, self._used_resources = [], []


class _Node:
    """The folder that Ray has for a session, where Tune keeps drafts."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def init(self, *, _temp_dir: str | None = None, logging_level: int = logging.INFO, **options: Any) -> None:
        logging.getLogger("ray").setLevel(logging_level)
        self.folder = Path(tempfile.mkdtemp(prefix="one-process-", dir=_temp_dir))

    def get_session_dir_path(self) -> str:
        return str(self.folder)

    def shutdown(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)
        self.folder = None


def replace_ray() -> None:
    """From now on this process needs no Ray."""
    node = _Node()
    atexit.unregister(ray.shutdown)
    replacements: dict[str, Any] = {
        "init": node.init,
        "shutdown": node.shutdown,
        "remote": _remote,
        "get": lambda reference, **options: reference.get(),
        "put": lambda value: _Reference(lambda: value),
        "wait": _wait,
        "kill": lambda actor, **options: None,
        "is_initialized": lambda: True,
        "cluster_resources": lambda: {"CPU": float(CORES)},
        "nodes": list,
        "get_runtime_context": lambda: SimpleNamespace(get_node_id=lambda: "here", get_job_id=lambda: "01000000"),
    }
    for name, replacement in replacements.items():
        setattr(ray, name, replacement)
    ray.util.get_node_ip_address = lambda: "127.0.0.1"
    ray.actor.ActorClass = _ActorClass
    ray._private.worker._global_node = node
    tune_controller.PlacementGroupResourceManager = _Resources
