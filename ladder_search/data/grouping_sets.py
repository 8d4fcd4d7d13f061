"""Data sets of images with several objects, for perceptual grouping; see ``data.drawing``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ladder_search.data.arrays import Notify
from ladder_search.data.dataset import PRESENT, Dataset, Source
from ladder_search.data.drawing import Grouped, Scene
from ladder_search.data.shapes import ShapesScene

_EDITION = 1
"""Increased when the drawing of the same settings changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesSource:
    """A row of the table of data sets: images of shapes, which need no other data."""

    name: str
    description: str
    scene: ShapesScene
    training: int
    """Number of images for training and validation."""
    testing: int

    @property
    def sources(self) -> tuple[str, ...]:
        return ("drawn by this package",)

    @property
    def identity(self) -> str:
        return f"shapes@{_EDITION} {_settings(self.scene)} {self.training} {self.testing}"

    @property
    def examples(self) -> str:
        return self.identity

    def load(self, notify: Notify) -> Dataset:
        return Dataset(
            name=self.name,
            train_x=np.zeros((self.training, 0), np.uint8),
            train_y=np.zeros(self.training, np.uint8),
            test_x=np.zeros((self.testing, 0), np.uint8),
            test_y=np.zeros(self.testing, np.uint8),
            full_scale=self.scene.full_scale,
            n_classes=1,
            digest=hashlib.sha256(self.identity.encode()).hexdigest(),
            grouped=Grouped(scene=self.scene),
        )

    def state(self) -> str:
        return PRESENT


def grouping_rows(images: Mapping[str, Source]) -> list[Source]:
    """Return the rows of data sets for grouping; ``images`` are those of digits by name."""
    shapes = ShapesScene()
    text = "images of three shapes, 20 x 20, black and white, without classes"
    return [
        ShapesSource(
            name="shapes",
            description=f"Shapes: 60,000 + 10,000 {text}",
            scene=shapes,
            training=60_000,
            testing=10_000,
        ),
        ShapesSource(
            name="shapes-small",
            description=f"fewer Shapes: 5,500 + 1,000 {text}",
            scene=shapes,
            training=5500,
            testing=1000,
        ),
    ]


def _settings(scene: Scene) -> str:
    return json.dumps(asdict(scene), sort_keys=True)
