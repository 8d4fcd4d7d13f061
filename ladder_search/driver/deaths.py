"""However a trial's process comes to its end, the trial starts again from its checkpoint.

Tune 2.60 knows a death in the middle of a task by ``RayActorError`` alone and ends the whole search for others. Ray's
memory monitor, which ends processes of trials before the kernel would end others, has an ``OutOfMemoryError`` of its
own. Tune has no place to hand in another rule, so the one method that has it is replaced.
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
    """While it holds, no such death ends a search of this process."""
    before = getattr(RayActorManager, TASK_FAILED)
    setattr(RayActorManager, TASK_FAILED, _actor_task_failed)
    try:
        yield
    finally:
        setattr(RayActorManager, TASK_FAILED, before)
