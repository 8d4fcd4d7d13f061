"""Sources: networks of an earlier stage, each trained once and kept as a bundle for whoever asks for the same one.

A source is named by what it is: its settings, its seed, where it stops, and its data. Shown::

    shelf = Shelf(folder, device=device)
    networks = shelf.networks(spec)         # trains what the folder lacks, reads what it has
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
from ladder_search.data.datasets import DATASETS
from ladder_search.trial import SourceConfig, TrialSpec

FOLDER = "sources"
"""Name of a shelf's folder, in a study folder or beside final trainings."""


class Networks(Protocol):
    """Whoever hands out the trained sources of a trial."""

    def networks(self, spec: TrialSpec, draw: int = 0) -> dict[str, nn.Module]:
        """Return the networks of ``spec.stages`` for one of its label draws, trained where nobody has done so."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One source, as it is asked for."""

    config: SourceConfig
    seed: int

    @property
    def key(self) -> str:
        """Names the source by all that its numbers depend on: 16 hexadecimal digits."""
        plain = as_mapping(self.config)
        # What is done with a source afterwards makes it no other one.
        del plain["statistics"]
        # A bundle is what it is, whichever seed asks for it.
        seed = self.seed if self.config.bundle is None else None
        named = {"source": plain, "seed": seed, "data": DATASETS[self.config.data.dataset].identity}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        data = self.config.data
        if self.config.bundle is not None:
            return f"the bundle {self.config.bundle}"
        labels = "all labels" if data.labels is None else f"{data.labels} labels"
        return f"{self.config.weights} {self.config.family} on {data.dataset}, {labels}, seed {self.seed}"


def orders(spec: TrialSpec, draw: int = 0) -> dict[str, Order]:
    """Return what a trial needs, by the names of its stages."""
    return {name: Order(config=stage, seed=spec.seed + draw) for name, stage in spec.stages.items()}


def told_sources(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> key and a few words for the sources of a trial's settings: its run is tagged with them."""
    if not settings.get("sources"):
        return {}
    return {name: f"{order.key}: {order}" for name, order in orders(TrialSpec.from_mapping(settings)).items()}
