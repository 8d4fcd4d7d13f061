"""The progressive family's trainable."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory

from trainables.base import PackTrainable


class ProgressiveTrainable(PackTrainable):
    """Progressive networks; the first trial that needs a source trains it in the place of its own."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """One CPU core and no GPU; ``--cpus-per-trial`` and ``--gpus-per-trial`` override it."""
        return PlacementGroupFactory([{"CPU": 1.0}])
