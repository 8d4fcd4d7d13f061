"""Data sets of images with several objects, for perceptual grouping; see ``data.drawing``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ladder_search.data import moving_pairs, textures
from ladder_search.data.arrays import Notify
from ladder_search.data.dataset import ABSENT, PRESENT, Dataset, Source
from ladder_search.data.drawing import Grouped, Scene
from ladder_search.data.images import SIDE
from ladder_search.data.moving_pairs import MovingPairs
from ladder_search.data.occluded_sets import shrunk
from ladder_search.data.shapes import ShapesScene
from ladder_search.data.textured import TexturedScene
from ladder_search.errors import SettingError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsSource:
    """A row of the table of data sets: digits that are drawn with textures, or moving in pairs."""

    name: str
    description: str
    digits: Source
    """Images of 28 x 28 pixels."""
    scene: TexturedScene | MovingPairs

    @property
    def photographs(self) -> bool:
        """Whether the scene needs Brodatz's photographs."""
        return isinstance(self.scene, TexturedScene) and self.scene.kind == "photographs"

    @property
    def sources(self) -> tuple[str, ...]:
        if not self.photographs:
            return self.digits.sources
        return tuple(f"{s}, and {textures.FOLDER} in the folder LADDER_SEARCH_DATA" for s in self.digits.sources)

    @property
    def identity(self) -> str:
        material = f" {json.dumps(textures.BRODATZ)}" if self.photographs else ""
        return f"{self.digits.identity} grouped@{_EDITION} {_settings(self.scene)}{material}"

    @property
    def examples(self) -> str:
        return self.identity

    def load(self, notify: Notify) -> Dataset:
        material = textures.photographs() if self.photographs else None
        dataset = drawn_digits(self.name, self.digits.load(notify), self.scene, material)
        return replace(dataset, digest=hashlib.sha256(f"{dataset.digest} {self.identity}".encode()).hexdigest())

    def state(self) -> str:
        return ABSENT if self.photographs and not textures.has_photographs() else self.digits.state()


def drawn_digits(
    name: str, dataset: Dataset, scene: TexturedScene | MovingPairs, material: NDArray[np.int64] | None = None
) -> Dataset:
    """Return the data set ``name`` of digits (28 x 28 grey levels) that are drawn in a scene whose ``digit`` divides
    28; raise ``SettingError`` if images or digit have another size. ``material`` are photographs."""
    if dataset.train_x[0].size != SIDE * SIDE or SIDE % scene.digit:
        raise SettingError(
            "grouped digits need images of 28 x 28 pixels and a digit whose side divides 28, got "
            f"{dataset.name!r} with {dataset.train_x[0].size} numbers and {scene.digit}; choose for example mnist and "
            "14."
        )
    textured = scene if isinstance(scene, TexturedScene) else None

    def made(x: NDArray[np.uint8]) -> NDArray[np.int16]:
        if textured is not None and textured.sharpened:
            x = np.clip(2 * x.astype(np.int16) - 128, 0, 255).astype(np.uint8)
        return shrunk(_thick(x) if textured is not None and textured.thickened else x, SIDE // scene.digit, "mean")

    return Dataset(
        name=name,
        train_x=made(dataset.train_x),
        train_y=np.array(dataset.train_y),
        test_x=made(dataset.test_x),
        test_y=np.array(dataset.test_y),
        full_scale=scene.full_scale,
        n_classes=dataset.n_classes,
        digest=hashlib.sha256(f"{dataset.digest} {_settings(scene)}".encode()).hexdigest(),
        grouped=Grouped(scene=scene, material=material),
    )


def _thick(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images [n, 784] of which each pixel is the maximum of 3 x 3 ones."""
    from scipy.ndimage import maximum_filter  # imported on use: most data sets do not need it

    thick: NDArray[np.uint8] = maximum_filter(x.reshape(-1, SIDE, SIDE), size=(1, 3, 3), mode="constant")
    return thick.reshape(len(x), -1)


def grouping_rows(images: Mapping[str, Source]) -> list[Source]:
    """Return the rows of data sets for grouping; ``images`` are those of digits by name."""
    shapes = ShapesScene()
    text = "images of three shapes, 20 x 20, black and white, without classes"
    rows: list[Source] = [
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
    for short, dataset, whose in (("mnist", "mnist", "MNIST"), ("digits", "digits-28", "scikit-learn's digits")):
        digits, soft = images[dataset], dataset == "digits-28"
        scenes: dict[str, tuple[TexturedScene | MovingPairs, str]] = {
            f"freq20-1{short}": (
                TexturedScene(sharpened=soft),
                "one digit with a sinusoid texture on another, 28 x 28",
            ),
            f"freq20-2{short}": (
                TexturedScene(n_digits=2, shift=2, sharpened=soft),
                "two digits with sinusoid textures on another, 28 x 28, two classes per image",
            ),
            f"freq20-1{short}-small": (
                TexturedScene(side=14, digit=14, sharpened=soft),
                "one digit with a sinusoid texture on another, 14 x 14",
            ),
            f"brodatz-{short}": (
                TexturedScene(kind="photographs", thickened=True, fresh=True, sharpened=soft),
                "thickened, with a photograph's texture on another, drawn anew in training, 28 x 28",
            ),
            f"two-textures-{short}": (
                TexturedScene(side=16, digit=14, thickened=True, fresh=True, sharpened=soft),
                "thickened, with a sinusoid texture on another, drawn anew in training, 16 x 16",
            ),
            f"moving-{short}": (moving_pairs.FULL, "two moving digits, 20 frames, 64 x 64"),
            f"moving-{short}-half": (moving_pairs.HALF, "two moving digits, 20 frames, 32 x 32"),
            f"moving-{short}-small": (moving_pairs.SMALL, "two moving digits, 8 frames, 16 x 16"),
        }
        rows += [
            DigitsSource(name=name, description=f"{whose}, {text}", digits=digits, scene=scene)
            for name, (scene, text) in scenes.items()
        ]
    return rows


def _settings(scene: Scene) -> str:
    return json.dumps(asdict(scene), sort_keys=True)
