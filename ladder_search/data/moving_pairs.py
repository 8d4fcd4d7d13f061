"""Two digits that move in one frame, as in Moving MNIST (Srivastava et al. 2015), with the digit of every pixel.

Each digit moves by a whole number of pixels per frame and is reflected at the borders; where digits overlap, the
brighter one is seen. A pixel is scored if one digit has more than nine tenths of its ink: the empty background and
overlaps are not scored (Prémont-Schwarz et al. 2017, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data import occluded
from ladder_search.data.drawing import UNSCORED, Painter, Scene
from ladder_search.data.occluded import KNIGHT, Renderer


def velocities(slowest: float, fastest: float) -> tuple[tuple[int, int], ...]:
    """Return all velocities of whole pixels per frame with a speed from ``slowest`` to ``fastest``."""
    reach = range(-int(fastest), int(fastest) + 1)
    return tuple((row, column) for row in reach for column in reach if slowest**2 <= row**2 + column**2 <= fastest**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingPairs(Scene):
    """Two digits of ``digit`` pixels in frames of ``side``."""

    side: int = 64
    digit: int = 28
    frames: int = 20
    velocities: tuple[tuple[int, int], ...] = velocities(3.0, 4.25)
    """Rows and columns per frame, equally likely for each digit. Ours, near the 3.6 pixels of the published videos."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.frames, self.side, self.side)

    @property
    def digits(self) -> int:
        return 2

    @property
    def redrawn(self) -> bool:
        return True

    @property
    def segments(self) -> int:
        return 2

    @property
    def full_scale(self) -> float:
        return float(255 * (28 // self.digit) ** 2)

    def painter(self, material: NDArray[Any] | None, device: torch.device) -> Painter:
        return _PairPainter(self, device)


FULL = MovingPairs()
HALF = MovingPairs(side=32, digit=14, velocities=KNIGHT)
SMALL = MovingPairs(side=16, digit=7, frames=8, velocities=KNIGHT)
"""Trainable in minutes on one core. Ours."""


class _PairPainter(Painter):
    def __init__(self, scene: MovingPairs, device: torch.device) -> None:
        self._faintest = int(scene.full_scale) // 10
        motion = occluded.Scene(
            side=scene.side, digit=scene.digit, bar=0, gap=1, velocities=scene.velocities, frames=scene.frames
        )
        self._renderer = Renderer(motion, device)

    def draw(self, digits: Tensor | None, key: int | Tensor, numbers: Tensor, part: int) -> tuple[Tensor, Tensor]:
        assert digits is not None, "the scene has digits"
        inks = []
        for place, digit in enumerate(digits.unbind(1)):
            positions = self._renderer.positions(key, 2 * numbers + place)
            inks.append(self._renderer.frames(digit.long(), positions, occluded=False))
        ink = torch.stack(inks)  # (digits, n, frames, side, side)
        brightest, segment = ink.max(0)
        scored = (10 * brightest > 9 * ink.sum(0)) & (brightest > self._faintest)
        return brightest, torch.where(scored, segment, UNSCORED).flatten(2)
