"""Images of several objects that are drawn on the training device, with the true segment of every pixel.

A drawing is a pure function of (key, number) by SplitMix64 in integers, and has the same bits on every device. True
segments serve scoring only.

Legend: n images; O objects (digits) per image; D pixels of an image or of a frame, in rows of one after another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.hashing import GAMMA, finalise, mixed, signed

UNSCORED = -1
"""Segment of a pixel that is not scored."""

FIXED_SEED = 1
"""Seed of the drawings that never change."""

TRAINING, VALIDATION, TEST = 1, 2, 3
"""What a drawing is for. Those for training may be transformed; those for tests may have material of their own."""

_DRAWING = 0x64726177
"""Separates these keys from those of noise and weights, which are derived from the same seeds."""

_BITS = 21  # three draws per word; n outcomes are equally likely to n / 2**21
_DRAW = (1 << _BITS) - 1


def part_key(part: int) -> int:
    """Return the key of the fixed drawings of the training rows (``VALIDATION``) or of the test rows (``TEST``)."""
    return signed(mixed(FIXED_SEED, (_DRAWING, part)))


def step_keys(keys: Tensor) -> Tensor:
    """Return the keys of a training step's drawings from those of its noise: int64 (K,) -> (K,)."""
    return finalise(keys ^ _DRAWING)


def draws(key: int | Tensor, numbers: Tensor, count: int, *, purpose: int = 0) -> Tensor:
    """Return ``count`` random integers below 2**21 for each number: int64 (n,) -> (n, count).

    Draws for another ``purpose`` are independent. ``numbers`` must be a tensor in memory, see
    ``data.occluded.Renderer.positions``.
    """
    base = finalise((numbers + 1) * signed(GAMMA) + key)
    first = 1 + (purpose << 16)
    words = torch.stack([finalise(base + signed(GAMMA * (first + j) % 2**64)) for j in range(-(-count // 3))], -1)
    thirds = torch.stack([(words >> shift) & _DRAW for shift in (1 + 2 * _BITS, 1 + _BITS, 1)], -1)
    return thirds.flatten(-2)[..., :count]


def choices(draw: Tensor, outcomes: int | Tensor) -> Tensor:
    """Return uniform choices 0 .. outcomes-1 from ``draws``."""
    return (draw * outcomes) >> _BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene(ABC):
    """Settings of a drawing."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of an example: (pixels,), (1, height, width), or (frames, height, width)."""

    @property
    def digits(self) -> int:
        """Number of digits per image; 0 if images are drawn without a data set of digits."""
        return 0

    @property
    def redrawn(self) -> bool:
        """Whether every training step draws its images anew; otherwise each row has one image."""
        return False

    @property
    @abstractmethod
    def segments(self) -> int:
        """Largest number of scored segments."""

    @property
    @abstractmethod
    def full_scale(self) -> float:
        """Value of the brightest pixel as drawn."""

    @abstractmethod
    def painter(self, material: NDArray[Any] | None, device: torch.device) -> Painter:
        """Return the painter on a device; ``material`` is that of ``Grouped``."""


class Painter(ABC):
    """Draws the images of a scene on one device; every call is a pure function of its arguments."""

    @abstractmethod
    def draw(self, digits: Tensor | None, key: int | Tensor, numbers: Tensor, part: int) -> tuple[Tensor, Tensor]:
        """Return images and segments.

        Args:
            digits: of any integer type, (n, O, d, d); None if the scene has none.
            key: of the stream, or one for each image, (n,).
            numbers: numbers of the images in the stream, int64 (n,), as a tensor in memory.
            part: ``TRAINING``, ``VALIDATION`` or ``TEST``.

        Returns:
            Whole numbers 0 .. full_scale in the scene's shape, (n, ...), and the true segment of each pixel, int64
            (n, D) or (n, frames, D), ``UNSCORED`` where a pixel is not scored.
        """


def partners(key: int | Tensor, numbers: Tensor, rows: Tensor, digits: int, available: int) -> Tensor:
    """Return the rows of an image's digits: the image's own, then random ones of the same part; int64 (n, O).

    As in the authors' data, digits of validation images may occur in training images; those of test images do not.
    """
    if digits == 1:
        return rows.unsqueeze(-1)
    drawn = draws(key, numbers, 2, purpose=1)  # 42 bits, because 21 are few for tens of thousands of rows
    wide = (drawn[..., 0] << _BITS) | drawn[..., 1]
    others = ((wide >> 12) * available) >> (2 * _BITS - 12)
    return torch.stack([rows, others], -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouped:
    """Rows of a data set are drawn as images of several objects."""

    scene: Scene
    material: NDArray[Any] | None = None
    """Textures of the scene."""

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.scene.shape
