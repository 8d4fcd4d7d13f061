"""Occluded moving digits as data sets: MNIST's or scikit-learn's digits in a scene, cut into training and fixed sets.

Training sequences are drawn anew: those of a step are a function of (the member's seed, the step), with whichever
digits its batch names. Whether the paper drew anew or repeated is not stated: this is ours. Validation and test
sequences are fixed: one for every digit, the same for all members and searches, named by a digest. Digits of the
training part are trained on and validated with, by a label split as everywhere; digits of the test part are tested
with. Validation and test have streams with keys of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.arrays import Notify, quiet
from ladder_search.data.dataset import Dataset, Moving, Source
from ladder_search.data.hashing import finalise, mixed, signed
from ladder_search.data.images import SIDE
from ladder_search.data.occluded import FULL, HALF, MINI, Renderer, Scene, Sequences
from ladder_search.data.splits import Split, make_split
from ladder_search.errors import SettingError

VALIDATION, TEST = 2, 3
"""Parts with fixed sequences: each has a stream of trajectories of its own."""

FIXED_SEED = 1
"""Of the validation and the test sequences."""

N_LABELLED = 1000
"""Of the paper's semi-supervised experiment, beside 59,000 unlabelled sequences: all of MNIST's training digits."""

_TRAJECTORY = 0x6D6F7665
"""Keeps these keys apart from those of noise and weights, which are derived from the same seeds."""

_CHUNK = 1000
"""Sequences at a time: about 60 MB at the full size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingSource:
    """A row of the table of data sets: whose digits move in which scene, and what of them is seen."""

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
        return self.load_digits(notify).as_dataset(reconstructed=self.moving.reconstructed)

    def load_digits(self, notify: Notify = quiet) -> OccludedDigits:
        """Return what the data set is made of."""
        return in_scene(self.name, self.digits.load(notify), self.moving.scene)

    def state(self) -> str:
        return self.digits.state()


def moving_rows(images: Mapping[str, Source]) -> list[MovingSource]:
    """Return the rows of moving digits; ``-seen`` has the optimal reconstructions in place of the frames."""
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedSet:
    """Validation or test sequences, drawn when they are asked for, the same each time."""

    digits: NDArray[np.uint16]  # [n, d, d], in grey levels of ``unit``
    labels: NDArray[np.uint8]  # [n]
    numbers: NDArray[np.int64]  # [n], of the sequences in their stream
    key: int
    unit: float

    def chunk(self, renderer: Renderer, rows: slice, device: torch.device | str = "cpu") -> Sequences:
        """Return the sequences of ``rows``; the renderer's tables lie on ``device``."""
        digits = _values(self.digits[rows], self.unit).to(device)
        return renderer.sequences(digits, self.key, torch.from_numpy(self.numbers[rows]).to(device))

    def digest(self, scene: Scene) -> str:
        """Return the sha256 (hex) over shape, frames in whole grey levels (uint16, little-endian) and labels.

        MNIST's 10,000 test sequences take some seconds on one core.
        """
        renderer, n = Renderer(scene), len(self.labels)
        sha = hashlib.sha256(f"{n} {scene.frames} {scene.side}\n".encode())
        for rows in _chunks(n):
            digits = torch.from_numpy(self.digits[rows].astype(np.int32))
            positions = renderer.positions(self.key, torch.from_numpy(self.numbers[rows]))
            sha.update(renderer.frames(digits, positions).numpy().astype("<u2").data)
        sha.update(self.labels.data)
        return sha.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OccludedDigits:
    """Digits at the size of a scene, and the sets that are made of them."""

    name: str
    scene: Scene
    train_x: NDArray[np.uint16]  # [n_train, d, d], in grey levels of ``unit``
    train_y: NDArray[np.uint8]  # [n_train]
    test_x: NDArray[np.uint16]  # [n_test, d, d]
    test_y: NDArray[np.uint8]  # [n_test]
    n_classes: int

    unit: float
    """x = level / unit lies in 0..1."""

    digest: str
    """sha256 of the digits' own data set and the scene; goes into a run's provenance."""

    def as_dataset(self, *, reconstructed: bool = False) -> Dataset:
        """Return the digits as rows of a data set whose models see frames, or what these have shown."""
        moving = Moving(scene=self.scene, reconstructed=reconstructed)
        shown = hashlib.sha256(f"{self.digest} {reconstructed}".encode()).hexdigest()
        return Dataset(
            name=self.name,
            train_x=self.train_x.astype(np.int16),
            train_y=self.train_y,
            test_x=self.test_x.astype(np.int16),
            test_y=self.test_y,
            full_scale=self.unit,
            n_classes=self.n_classes,
            digest=shown,
            moving=moving,
        )

    def training_digits(self) -> Tensor:
        """Return the training digits in 0..1: float32 (n_train, d, d)."""
        return _values(self.train_x, self.unit)

    def split(self, *, n_labelled: int | None = N_LABELLED, n_validation: int = 0, seed: int) -> Split:
        """Return which training digits are labelled, unlabelled and held out; see ``make_split``.

        The paper's 1,000 labels and 59,000 other sequences leave no validation digits: searches hold some out.

        Raises:
            SettingError: a number that breaks its rule.
        """
        return make_split(
            self.train_y, n_labelled=n_labelled, n_validation=n_validation, n_classes=self.n_classes, seed=seed
        )

    def validation(self, split: Split) -> FixedSet:
        """Return a fixed sequence for each validation digit; a digit's does not depend on the other rows."""
        rows = split.validation
        return self._fixed(VALIDATION, self.train_x[rows], self.train_y[rows], rows)

    def test(self) -> FixedSet:
        """Return a fixed sequence for each test digit."""
        return self._fixed(TEST, self.test_x, self.test_y, np.arange(len(self.test_y)))

    def _fixed(
        self, part: int, digits: NDArray[np.uint16], labels: NDArray[np.uint8], numbers: NDArray[np.int64]
    ) -> FixedSet:
        return FixedSet(digits=digits, labels=labels, numbers=numbers, key=stream_key(FIXED_SEED, part), unit=self.unit)


def in_scene(name: str, dataset: Dataset, scene: Scene) -> OccludedDigits:
    """Return a data set's digits, downscaled to the size of a scene.

    Args:
        name: for messages and records.
        dataset: images of 28 x 28 grey levels.
        scene: its ``digit`` divides 28.

    Raises:
        SettingError: images or a digit of another size.
    """
    if dataset.train_x[0].size != SIDE * SIDE or SIDE % scene.digit:
        raise SettingError(
            f"moving digits need images of 28 x 28 pixels and a digit whose side divides 28, got {dataset.name!r} with "
            f"{dataset.train_x[0].size} numbers and {scene.digit}; choose for example mnist and 14."
        )
    factor = SIDE // scene.digit
    content = json.dumps({"data": dataset.digest, "scene": asdict(scene)}, sort_keys=True)
    return OccludedDigits(
        name=name,
        scene=scene,
        train_x=_shrunk(dataset.train_x, factor, scene.pooling),
        train_y=np.array(dataset.train_y),
        test_x=_shrunk(dataset.test_x, factor, scene.pooling),
        test_y=np.array(dataset.test_y),
        n_classes=dataset.n_classes,
        unit=dataset.full_scale * (factor**2 if scene.pooling == "mean" else 1),
        digest=hashlib.sha256(content.encode()).hexdigest(),
    )


def stream_key(seed: int, part: int) -> int:
    """Return the key of a stream of trajectories, for ``Renderer.positions``.

    Args:
        seed: 0 .. 2**64-1.
        part: ``VALIDATION`` or ``TEST``.
    """
    return signed(mixed(seed, (_TRAJECTORY, part)))


def step_keys(keys: Tensor) -> Tensor:
    """Return the keys of the trajectories that training steps draw, given those of their noise: int64 (K,) -> (K,).

    A step's sequences are numbered from 0 in a stream of its own, which nothing else that is drawn for it comes from.
    """
    return finalise(keys ^ _TRAJECTORY)


def _shrunk(x: NDArray[np.uint8], factor: int, pooling: str) -> NDArray[np.uint16]:
    """Pool squares of ``factor`` pixels into sums or maxima, whole numbers both: uint8 [n, 784] -> uint16 [n, d, d]."""
    d = SIDE // factor
    squares = x.reshape(len(x), d, factor, d, factor)
    pooled: NDArray[np.uint16] = (
        squares.sum((2, 4), dtype=np.uint16) if pooling == "mean" else squares.max((2, 4)).astype(np.uint16)
    )
    return pooled


def _values(levels: NDArray[np.uint16], unit: float) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32)) / unit


def _chunks(n: int) -> Iterator[slice]:
    return (slice(begin, begin + _CHUNK) for begin in range(0, n, _CHUNK))
