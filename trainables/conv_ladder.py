"""The convolutional ladder family's trainable."""

from __future__ import annotations

from typing import Any

from ray.tune import PlacementGroupFactory

from trainables.base import PackTrainable


class ConvLadderTrainable(PackTrainable):
    """Convolutional ladders: a step keeps one CPU core busy for some tenths of a second, or fills a GPU."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """One CPU core and no GPU; ``--cpus-per-trial`` and ``--gpus-per-trial`` override it."""
        return PlacementGroupFactory([{"CPU": 1.0}])
