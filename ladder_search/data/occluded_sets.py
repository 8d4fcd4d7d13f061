"""Occluded moving digits as data sets: digits of MNIST or scikit-learn in a scene.

Training sequences are drawn anew in every step, as a function of (data seed of the member, step); the paper does not
state whether it did so. Validation and test sequences are fixed, one for each digit, with separate streams. A label
split divides the digits of the training part into training and validation; the test part is for testing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.arrays import Notify
from ladder_search.data.dataset import Dataset, Moving, Source
from ladder_search.data.hashing import finalise, mixed, signed
from ladder_search.data.images import SIDE
from ladder_search.data.occluded import FULL, HALF, MINI

VALIDATION, TEST = 2, 3
"""Parts with fixed sequences; each has its own stream of trajectories."""

FIXED_SEED = 1
"""Seed of the validation and the test sequences."""

_TRAJECTORY = 0x6D6F7665
"""Separates these keys from those of noise and weights, which are derived from the same seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingSource:
    """A row of the table of data sets: digits, their scene, and the models' view of it."""

    name: str
    description: str
    digits: Source
    """Images of 28 x 28 pixels."""
    moving: Moving

    @property
    def sources(self) -> tuple[str, ...]:
        return self.digits.sources

    @property
    def identity(self) -> str:
        return f"{self.digits.identity} {json.dumps(asdict(self.moving), sort_keys=True)}"

    @property
    def examples(self) -> str:
        return f"{self.digits.examples} {json.dumps(asdict(self.moving.scene), sort_keys=True)}"

    def load(self, notify: Notify) -> Dataset:
        return in_scene(self.name, self.digits.load(notify), self.moving)

    def state(self) -> str:
        return self.digits.state()


def moving_rows(images: Mapping[str, Source]) -> list[MovingSource]:
    """Return the rows of moving digits; ``-seen`` has the optimal reconstructions instead of the frames."""
    scenes = {
        "": (FULL, "32 x 32, 5 frames, 8 velocities"),
        "-half": (HALF, "16 x 16, 5 frames, 8 velocities"),
        "-mini": (MINI, "16 x 16, 5 frames, 1 velocity, no bounce"),
    }
    rows = []
    for short, dataset, whose in (("mnist", "mnist", "MNIST"), ("digits", "digits-28", "scikit-learn's digits")):
        for suffix, (scene, words) in scenes.items():
            for seen in (False, True):
                name = f"occluded-{short}{suffix}{'-seen' if seen else ''}"
                what = "what the frames have shown of it" if seen else "frames"
                rows.append(
                    MovingSource(
                        name=name,
                        description=f"{whose} behind bars: {words}; {what}",
                        digits=images[dataset],
                        moving=Moving(scene=scene, reconstructed=seen),
                    )
                )
    return rows


def in_scene(name: str, dataset: Dataset, moving: Moving) -> Dataset:
    """Return the data set ``name`` of digits (28 x 28 grey levels) downscaled to a scene whose ``digit`` divides 28."""
    scene = moving.scene
    assert dataset.train_x[0].size == SIDE * SIDE and SIDE % scene.digit == 0, (dataset.name, scene.digit)
    factor = SIDE // scene.digit
    content = json.dumps({"data": dataset.digest, "scene": asdict(scene)}, sort_keys=True)
    digits = hashlib.sha256(content.encode()).hexdigest()
    return Dataset(
        name=name,
        train_x=shrunk(dataset.train_x, factor, scene.pooling),
        train_y=np.array(dataset.train_y),
        test_x=shrunk(dataset.test_x, factor, scene.pooling),
        test_y=np.array(dataset.test_y),
        full_scale=dataset.full_scale * (factor**2 if scene.pooling == "mean" else 1),
        n_classes=dataset.n_classes,
        digest=hashlib.sha256(f"{digits} {moving.reconstructed}".encode()).hexdigest(),
        moving=moving,
    )


def stream_key(seed: int, part: int) -> int:
    """Return the key of a stream of ``Renderer.positions``, for the part ``VALIDATION`` or ``TEST``."""
    return signed(mixed(seed, (_TRAJECTORY, part)))


def step_keys(keys: Tensor) -> Tensor:
    """Return the keys of training steps' trajectories from those of their noise: int64 (K,) -> (K,). The sequences of a
    step are numbered from 0 in a separate stream."""
    return finalise(keys ^ _TRAJECTORY)


def shrunk(x: NDArray[np.uint8], factor: int, pooling: str) -> NDArray[np.int16]:
    """Pool squares of ``factor`` pixels into integer sums or maxima: uint8 [n, 784] -> int16 [n, d, d]."""
    d = SIDE // factor
    squares = x.reshape(len(x), d, factor, d, factor).astype(np.int16)
    pooled: NDArray[np.int16] = squares.sum((2, 4), dtype=np.int16) if pooling == "mean" else squares.max((2, 4))
    return pooled
