"""Private names of Ray, as Ray 2.60 defines them. Any release may change them; pyproject.toml bounds it."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray._private import ray_constants as ray_constants
from ray._private import services as services
from ray._private.node import Node as Node
from ray._private.utils import detect_fate_sharing_support as detect_fate_sharing_support
from ray.air.execution._internal import RayActorManager as RayActorManager
from ray.job_config import JobConfig
from ray.train._internal.session import _TrainingResult
from ray.tune.schedulers import PopulationBasedTraining

VERSION = "2.60"

TASK_FAILED = "_actor_task_failed"
"""Method of ``RayActorManager`` that handles the death of an actor during a task."""


def set_driver_path(job: JobConfig, folders: list[str]) -> None:
    """Set the folders in which a job's workers look for modules; Ray extends the list."""
    job._py_driver_sys_path = folders


class AmendedPBT(PopulationBasedTraining):
    """PBT whose subclasses can amend the configuration that a trial copies from another."""

    def amended(self, trial: Any, config: dict[str, Any]) -> dict[str, Any]:
        return config

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return self.amended(trial, config), operations


def nothing_saved(trainable: tune.Trainable) -> Any:
    """Return the result of ``Trainable.save`` without a checkpoint."""
    return _TrainingResult(checkpoint=None, metrics=dict(trainable._last_result or {}))


def delete_checkpoint(trainable: tune.Trainable) -> None:
    """Delete the partial upload of the checkpoint that is being saved."""
    storage = trainable._storage
    if storage is not None:
        storage.storage_filesystem.delete_dir(storage.checkpoint_fs_path)
