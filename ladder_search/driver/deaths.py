"""Restart a trial from its checkpoint whatever ended its process.

Tune 2.60 restarts only after ``RayActorError`` and ends the whole search for other errors, such as the
``OutOfMemoryError`` of Ray's memory monitor. It has no hook, so its method is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError

from ladder_search.internals.ray import TASK_FAILED, RayActorManager

_original = getattr(RayActorManager, TASK_FAILED)


def _actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
    if isinstance(exception, RayError) and not isinstance(exception, (RayActorError, RayTaskError)):
        sentence = f"{type(exception).__name__}: {str(exception).partition('. ')[0]}"
        exception = RayActorError(error_msg=sentence)
    _original(self, tracked_actor_task, exception)


@contextmanager
def survived() -> Iterator[None]:
    before = getattr(RayActorManager, TASK_FAILED)
    setattr(RayActorManager, TASK_FAILED, _actor_task_failed)
    try:
        yield
    finally:
        setattr(RayActorManager, TASK_FAILED, before)
