"""Ray trainables and actors shared by all families."""

from __future__ import annotations

import os

import ray

from ladder_search import environment

if ray.is_initialized() and ray.get_runtime_context().get_task_id() is not None:
    # In a Ray worker, perhaps on a node with another environment than the search's. Ray's variables stay unchanged.
    environment.settle(but=("RAY_", "TUNE_", "__RAY", "PYTHON"))
    # One compile worker: several processes on a node would each start one per core.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

from trainables.base import PackTrainable

__all__ = ["PackTrainable"]
