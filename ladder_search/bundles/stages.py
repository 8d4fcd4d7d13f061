"""Earlier stages of a trial: networks that are trained beforehand. Settings and file formats call them sources.

A stage is identified by its settings, seed, stopping rule and data. Example::

    networks = Shelf(folder, device=device).networks(spec)  # trains the missing ones, reads the others
    member = spec.member(dataset, sources=networks)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from ladder_search.config import as_mapping
from ladder_search.data import datasets
from ladder_search.trial import SourceConfig, TrialSpec

FOLDER = "sources"
"""Name of a shelf's folder, in a study folder or beside final trainings."""


class Networks(Protocol):
    """Provides the trained networks of a trial's stages."""

    def networks(self, spec: TrialSpec, draw: int = 0) -> dict[str, nn.Module]:
        """Return the networks of ``spec.stages`` for one label draw; missing ones are trained."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    config: SourceConfig
    seed: int

    @property
    def key(self) -> str:
        """Key of all settings that the stage's weights depend on: 16 hexadecimal digits."""
        plain = as_mapping(self.config)
        # The use of statistics does not affect the training of a source.
        del plain["statistics"]
        # A named bundle does not depend on the seed.
        seed = self.seed if self.config.bundle is None else None
        identity = {"source": plain, "seed": seed, "data": datasets.source_of(self.config.data).identity}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        data = self.config.data
        if self.config.bundle is not None:
            return f"the bundle {self.config.bundle}"
        labels = "all labels" if data.labels is None else f"{data.labels} labels"
        return f"{self.config.weights} {self.config.family} on {data.name}, {labels}, seed {self.seed}"


def stages_of(spec: TrialSpec, draw: int = 0) -> dict[str, Stage]:
    return {name: Stage(config=stage, seed=spec.seed + draw) for name, stage in spec.stages.items()}


def stage_tags(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> key and description of the stages in a trial's settings, the tags of its run."""
    if not settings.get("sources"):
        return {}
    return {name: f"{stage.key}: {stage}" for name, stage in stages_of(TrialSpec.from_mapping(settings)).items()}
