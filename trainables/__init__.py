"""What Ray runs: the trainable of all families, and the processes around it."""

from __future__ import annotations

import os

import ray

from ladder_search import environment

if ray.is_initialized() and ray.get_runtime_context().get_task_id() is not None:
    # A process that Ray has started for a trial, maybe on a node whose environment is not that of the search. What Ray
    # has set for it stays.
    environment.settle(but=("RAY_", "TUNE_", "__RAY", "PYTHON"))
    # One compile worker: several processes on a node would each start one per core.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

from trainables.base import PackTrainable

__all__ = ["PackTrainable"]
