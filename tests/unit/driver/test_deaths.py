"""What Tune is told of a process that ended in the middle of a task."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.air.execution.resources import ResourceManager
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError

from ladder_search.driver import deaths

KILLED = OutOfMemoryError("2 worker(s) were killed due to the node running low on memory. Top 10 memory users: …")


def _told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[Any]:
    told: list[Any] = []
    monkeypatch.setattr(RayActorManager, "_cleanup_actor", lambda self, tracked_actor: None)  # there is no process
    actor = TrackedActor(1, on_error=lambda actor, error: told.append(error))
    task = TrackedActorTask(actor, on_error=lambda actor, error: told.append(error))
    manager = RayActorManager(cast(ResourceManager, None))  # Ray's own would start a cluster
    manager._actor_task_failed(tracked_actor_task=task, exception=error)
    return told


def test_tune_alone_would_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="unexpected exception"):
        _told(monkeypatch, KILLED)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KILLED, "OutOfMemoryError: 2 worker(s) were killed due to the node running low on memory"),
        (ObjectLostError("ab", "driver", "here"), "ObjectLostError: "),
        (RayActorError(error_msg="it died"), "it died"),
    ],
)
def test_every_end_of_a_process_is_the_death_of_its_actor(
    monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    with deaths.survived():
        told = _told(monkeypatch, error)
    assert RayActorManager._actor_task_failed is deaths._original
    assert [type(one) for one in told] == [RayActorError, RayActorError]  # once for the actor, once for its task
    assert str(told[0]).startswith(says)
