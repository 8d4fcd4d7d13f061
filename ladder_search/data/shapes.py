"""Shapes (Reichert and Serre 2014, as drawn for Tagger by Greff et al. 2016): three of three shapes on 20 x 20 pixels.

A square with a hole and a triangle outline that points up or down are placed uniformly where they fit completely, and
the image is their union. Pixels of exactly one object are scored; the background and overlaps are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.drawing import UNSCORED, Painter, Scene, choices, draws
from ladder_search.errors import SettingError

_HEIGHT, _WIDTH = 7, 12


def _square() -> NDArray[np.bool_]:
    """A square of 7 x 7 pixels with a hole of 3 x 3."""
    square = np.ones((7, 7), bool)
    square[2:5, 2:5] = False
    return square


def _triangle() -> NDArray[np.bool_]:
    """The outline of a triangle that points up: each row extends the upper one by a pixel on both sides, down to two
    full rows; sides are three pixels wide."""
    triangle = np.zeros((_HEIGHT, _WIDTH), bool)
    for row in range(_HEIGHT):
        left = max(0, 5 - row)
        triangle[row, left : _WIDTH - left] = True
        if 3 <= row < 5:
            triangle[row, left + 3 : _WIDTH - left - 3] = False
    return triangle


SHAPES = (_square(), _triangle(), _triangle()[::-1])
"""Square, triangle up, triangle down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesScene(Scene):
    side: int = 20
    objects: int = 3

    def __post_init__(self) -> None:
        if self.side < _WIDTH:
            raise SettingError(f"shapes need a side of at least {_WIDTH} pixels, got {self.side}; choose 20.")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.side * self.side,)

    @property
    def segments(self) -> int:
        return self.objects

    @property
    def full_scale(self) -> float:
        return 1.0

    def painter(self, material: NDArray[Any] | None, device: torch.device) -> Painter:
        return _ShapesPainter(self, device)


class _ShapesPainter(Painter):
    def __init__(self, scene: ShapesScene, device: torch.device) -> None:
        self._scene = scene
        # One more pixel, without ink, which positions outside a shape refer to.
        table = np.zeros((len(SHAPES), _HEIGHT * _WIDTH + 1), bool)
        for place, shape in enumerate(SHAPES):
            padded = np.zeros((_HEIGHT, _WIDTH), bool)
            padded[:, : shape.shape[1]] = shape
            table[place, :-1] = padded.ravel()
        self._table = torch.from_numpy(table.ravel()).to(device)
        self._widths = torch.tensor([shape.shape[1] for shape in SHAPES], device=device)
        self._place = torch.arange(scene.side, device=device)

    def draw(self, digits: Tensor | None, key: int | Tensor, numbers: Tensor, part: int) -> tuple[Tensor, Tensor]:
        side, objects = self._scene.side, self._scene.objects
        drawn = draws(key, numbers, 3 * objects).view(-1, objects, 3)
        kind = choices(drawn[..., 0], len(SHAPES))  # (n, objects)
        row = choices(drawn[..., 1], side - _HEIGHT + 1)
        column = choices(drawn[..., 2], side - self._widths[kind] + 1)
        down, across = self._place - row.unsqueeze(-1), self._place - column.unsqueeze(-1)  # (n, objects, side)
        outside = _HEIGHT * _WIDTH
        place = torch.where((down >= 0) & (down < _HEIGHT), down * _WIDTH, outside).unsqueeze(-1)
        place = place + torch.where((across >= 0) & (across < _WIDTH), across, outside).unsqueeze(-2)
        covered = self._table[(outside + 1) * kind[..., None, None] + place.clamp(max=outside)].flatten(-2)
        count = covered.sum(1)
        segment = (covered * torch.arange(objects, device=numbers.device)[:, None]).sum(1)
        return (count > 0).long(), torch.where(count == 1, segment, UNSCORED)
