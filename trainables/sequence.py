"""The trainable of the music baselines."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory

from trainables.base import PackTrainable


class SequenceTrainable(PackTrainable):
    """Recurrent networks and the TCN: minutes of one core."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """One CPU core and no GPU; ``--cpus-per-trial`` and ``--gpus-per-trial`` override it."""
        return PlacementGroupFactory([{"CPU": 1.0}])
