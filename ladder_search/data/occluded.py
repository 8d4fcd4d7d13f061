"""Occluded Moving MNIST (Prémont-Schwarz et al. 2017): a digit moves behind bars, and no frame shows all of it.

A frame is ``side`` x ``side`` pixels, background 0, ink up to 1. Bars of the background's colour stand upright and lie
across at fixed places, and hide the digit where it passes behind them. The digit moves by a whole number of pixels a
frame and is reflected at the borders. The network sees the occluded frames only; it predicts the class after the
last one, and for each next frame on the way.

A trajectory is a pure function of (key, number of the sequence), by SplitMix64: no generator, no state, the same whole
numbers on every device, and a fresh one for every number. Frames are gathered from the digit's pixels, not computed, so
they are the same bits everywhere, too.

Legend: n sequences, T frames; S ``side``, d ``digit``; positions are (row, column) of the digit's upper left pixel.

What the paper states is its text; its numbers of pixels and its appendix were not to be had. Each setting says which of
them it is: *stated*, *unverified* (recalled, and consistent with what is stated), or *ours*.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder_search.data.hashing import GAMMA, finalise, signed
from ladder_search.errors import SettingError

KNIGHT = ((1, 2), (1, -2), (-1, 2), (-1, -2), (2, 1), (2, -1), (-2, 1), (-2, -1))
"""Rows and columns a frame."""

_BITS = 21  # of a word for each of its three draws: n outcomes are equally likely to n / 2**21
_DRAW = (1 << _BITS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is seen and how it moves; lengths in pixels."""

    side: int = 32
    """Of a frame. Unverified; 8 + 4 + 8 + 4 + 8 is the one size at which the stated bars are symmetric."""

    digit: int = 14
    """Side of a digit, whose image is downscaled to it. Unverified."""

    bar: int = 4
    """Width of a bar. Stated."""

    gap: int = 8
    """Between two bars. Stated."""

    first_bar: int = 8
    """Where the first bar begins, in rows and columns alike. Ours: symmetric."""

    velocities: tuple[tuple[int, int], ...] = KNIGHT
    """Rows and columns a frame, one of them for each sequence, equally likely. That they are eight is stated; which is
    unverified."""

    bounces: bool = True
    """Reflected at the borders, which is stated; otherwise a sequence starts where it will not reach one."""

    margin: int = 0
    """Least distance of the digit's start from the borders. Ours: any place will do."""

    frames: int = 5
    """T. Stated."""

    pooling: str = "mean"
    """How pixels are put together when a digit is downscaled, ``mean`` or ``max``. Ours."""

    def __post_init__(self) -> None:
        if not 1 <= self.digit < self.side:
            raise SettingError(f"a digit must be smaller than its frame of {self.side}, got {self.digit}; shrink it.")
        if self.bar < 0 or self.gap < 1 or self.first_bar < 0:
            raise SettingError(
                f"bars must leave gaps of at least 1 pixel, got bars of {self.bar} from {self.first_bar}, gaps of "
                f"{self.gap}; choose for example 4, 8, 8."
            )
        if self.frames < 2:
            raise SettingError(f"a sequence must have at least 2 frames, got {self.frames}; choose for example 5.")
        if self.pooling not in ("mean", "max"):
            raise SettingError(f"pooling must be 'mean' or 'max', got {self.pooling!r}; choose one of them.")
        if not self.velocities or any(max(map(abs, v)) > self.room for v in self.velocities):
            raise SettingError(
                f"velocities must be some, of at most the {self.room} pixels that a digit has to move in, got "
                f"{self.velocities}; slow them."
            )
        if any(count < 1 for velocity in self.velocities for _, count in self.starts(velocity)):
            raise SettingError(
                f"a digit must have a place to start from, a margin of {self.margin} and {self.frames} frames leave "
                "none; choose fewer, or let it bounce."
            )

    @property
    def room(self) -> int:
        """How far a digit can be from the upper and from the left border: positions are 0 .. room."""
        return self.side - self.digit

    @property
    def visible(self) -> tuple[bool, ...]:
        """Whether a row, or a column, is free of bars lying across it, or standing in it: [S]."""
        period = self.bar + self.gap
        return tuple(i < self.first_bar or (i - self.first_bar) % period >= self.bar for i in range(self.side))

    def starts(self, velocity: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (lowest, how many) of the positions that a sequence may start from, for rows and for columns."""
        found = []
        for speed in velocity:
            way = 0 if self.bounces else speed * (self.frames - 1)
            low, high = max(self.margin, -way), min(self.room - self.margin, self.room - way)
            found.append((low, high - low + 1))
        return found


FULL = Scene()
HALF = Scene(side=16, digit=7, bar=2, gap=4, first_bar=4)
"""At half the size and the same speeds, for machines without an accelerator. Ours."""
MINI = Scene(side=16, digit=7, bar=2, gap=4, first_bar=4, velocities=((1, 1),), bounces=False)
"""At half the size with one velocity: what minutes on one core are enough for. Ours."""


class Renderer:
    """Draws sequences of a scene on one device; it holds tables only, and every call is a function of its arguments.

    Shown: ``Renderer(FULL, device).positions(key, numbers)`` is the same whenever and wherever it is called.
    """

    def __init__(self, scene: Scene, device: torch.device | str = "cpu") -> None:
        self.scene = scene
        self._velocities = torch.tensor(scene.velocities, device=device)  # (V, 2)
        starts = torch.tensor([scene.starts(velocity) for velocity in scene.velocities], device=device)
        self._lowest, self._counts = starts[..., 0], starts[..., 1]  # (V, 2)
        self._visible = torch.tensor(scene.visible, device=device)  # (S,)
        self._time = torch.arange(scene.frames, device=device)
        self._place, self._pixel = (torch.arange(n, device=device) for n in (scene.side, scene.digit))

    def positions(self, key: int | Tensor, numbers: Tensor) -> Tensor:
        """Return where the digits are: int64 (n, T, 2), each 0 .. S-d.

        Args:
            key: of the stream, a 64-bit word as a signed number; see ``data.occluded_sets``.
            numbers: which sequences of the stream, int64 (n,). A table in memory: a compiler of C++ may take it for
                granted that the multiples of a large number which it makes itself do not overflow.
        """
        words = finalise((numbers + 1) * signed(GAMMA) + key)
        row, column, choice = ((words >> shift) & _DRAW for shift in (1 + 2 * _BITS, 1 + _BITS, 1))
        which = (choice * len(self.scene.velocities)) >> _BITS
        start = self._lowest[which] + ((torch.stack([row, column], -1) * self._counts[which]) >> _BITS)
        return self.moved(start, self._velocities[which])

    def moved(self, start: Tensor, velocity: Tensor) -> Tensor:
        """Return the positions in all frames of digits that start somewhere: int64 (n, 2) and (n, 2) -> (n, T, 2)."""
        room = self.scene.room
        there = torch.remainder(start.unsqueeze(1) + velocity.unsqueeze(1) * self._time[:, None], 2 * room)
        return torch.where(there > room, 2 * room - there, there)  # as far back as it would have gone beyond

    def frames(self, digits: Tensor, positions: Tensor, *, occluded: bool = True) -> Tensor:
        """Return the frames.

        Args:
            digits: of any type, (n, d, d).
            positions: int64 (n, T, 2).
            occluded: whether there are bars.

        Returns:
            Of the digits' type, (n, T, S, S).
        """
        d = self.scene.digit
        pixel = self._place - positions.unsqueeze(-1)  # (n, T, 2, S): which row or column of the digit is there
        inside = (pixel >= 0) & (pixel < d)
        if occluded:
            inside = inside & self._visible
        # Rows and columns are hidden independently of each other. One pixel more than the digit has is background:
        # whatever lies outside in either direction ends there.
        place = torch.where(inside[:, :, 0], pixel[:, :, 0] * d, d * d).unsqueeze(-1)
        place = place + torch.where(inside[:, :, 1], pixel[:, :, 1], d * d).unsqueeze(-2)
        padded = torch.nn.functional.pad(digits.flatten(1), (0, 1))
        n, T = positions.shape[:2]
        return padded.gather(1, place.clamp(max=d * d).flatten(1)).view(n, T, self.scene.side, self.scene.side)

    def visible(self, positions: Tensor) -> Tensor:
        """Return which pixels of the digit each frame shows: int64 (n, T, 2) -> bool (n, T, d, d)."""
        shown = self._visible[positions.unsqueeze(-1) + self._pixel]  # (n, T, 2, d)
        return shown[:, :, 0, :, None] & shown[:, :, 1, None, :]


def seen_so_far(visible: Tensor) -> Tensor:
    """Return which pixels frame t or an earlier one shows: bool (n, T, d, d) of each frame alone -> the same shape."""
    return visible.cumsum(1) > 0
