"""Occluded moving digits as data sets: MNIST's or scikit-learn's digits in a scene, cut into training and fixed sets.

Training sequences are drawn anew: sequence i of a member is a function of (its seed, i), with whichever digit its batch
names. Validation and test sequences are fixed: one for every digit, the same for all members and searches, named by a
digest. Digits of the training part are trained on and validated with, by a label split as everywhere; digits of the
test part are tested with. The streams of the three have keys of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data import datasets
from ladder_search.data.arrays import Notify, quiet
from ladder_search.data.datasets import Dataset
from ladder_search.data.hashing import mixed, signed
from ladder_search.data.images import SIDE
from ladder_search.data.occluded import FULL, HALF, MINI, Renderer, Scene, Sequences
from ladder_search.data.splits import Split, make_split
from ladder_search.errors import SettingError, UnknownNameError

TRAINING, VALIDATION, TEST = 1, 2, 3
"""Parts: each has a stream of trajectories of its own."""

FIXED_SEED = 1
"""Of the validation and the test sequences."""

N_LABELLED = 1000
"""Of the paper's semi-supervised experiment, beside 59,000 unlabelled sequences: all of MNIST's training digits."""

_TRAJECTORY = 0x6D6F7665
"""Keeps these keys apart from those of noise and weights, which are derived from the same seeds."""

_CHUNK = 1000
"""Sequences at a time: about 60 MB at the full size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OccludedSource:
    """Whose digits move in which scene."""

    name: str
    description: str
    dataset: str
    """Row of ``data.datasets.DATASETS``, with images of 28 x 28 pixels."""
    scene: Scene


def _table() -> Mapping[str, OccludedSource]:
    scenes = {
        "": (FULL, "32 x 32, 5 frames, 8 velocities"),
        "-half": (HALF, "16 x 16, 5 frames, 8 velocities"),
        "-mini": (MINI, "16 x 16, 5 frames, 1 velocity, no bounce"),
    }
    rows = {
        f"occluded-{short}{suffix}": OccludedSource(
            name=f"occluded-{short}{suffix}", description=f"{whose} behind bars: {words}", dataset=dataset, scene=scene
        )
        for short, dataset, whose in (("mnist", "mnist", "MNIST"), ("digits", "digits-28", "scikit-learn's digits"))
        for suffix, (scene, words) in scenes.items()
    }
    return MappingProxyType(rows)


OCCLUDED = _table()


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

    def training_digits(self) -> Tensor:
        """Return the training digits in 0..1: float32 (n_train, d, d). A member draws
        ``renderer.sequences(digits[rows], stream_key(seed, TRAINING), sequence_numbers(...))``."""
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


def load(name: str, *, notify: Notify = quiet) -> OccludedDigits:
    """Return the moving digits ``name``.

    Raises:
        UnknownNameError: a name that ``OCCLUDED`` does not have.
        DataError: the digits' own data set cannot be had.
    """
    row = _source(name)
    return in_scene(name, datasets.load(row.dataset, notify=notify), row.scene)


def state(name: str) -> str:
    """Return the state of the digits' own data set, one of those of ``data.datasets``.

    Raises:
        UnknownNameError: a name that ``OCCLUDED`` does not have.
        DataError: ``LADDER_SEARCH_DATA`` names no folder.
    """
    return datasets.state(_source(name).dataset)


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
        seed: 0 .. 2**64-1; a member's own for ``TRAINING``.
        part: ``TRAINING``, ``VALIDATION`` or ``TEST``.
    """
    return signed(mixed(seed, (_TRAJECTORY, part)))


def sequence_numbers(rows: Tensor, step: int | Tensor, *, fresh: bool = True) -> Tensor:
    """Return the numbers of the training sequences of a batch: int64 (B,) -> (B,).

    They are a table, to be made outside a compiled program: see ``Renderer.positions``.

    Args:
        rows: of the batch's digits.
        step: of training, from 0; all steps have the same number of rows.
        fresh: every sequence has a trajectory of its own; else a digit moves the same way in every pass. Whether the
            paper drew anew is not stated: fresh is ours.
    """
    return step * len(rows) + torch.arange(len(rows), device=rows.device) if fresh else rows


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


def _source(name: str) -> OccludedSource:
    if name not in OCCLUDED:
        raise UnknownNameError("set of moving digits", name, OCCLUDED)
    return OCCLUDED[name]
