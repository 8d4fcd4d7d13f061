"""Occluded Moving MNIST (Prémont-Schwarz et al. 2017): a digit moves behind bars, and no frame shows all of it.

A frame has ``side`` x ``side`` pixels, background 0, ink up to 1. Vertical and horizontal bars of the background's
colour at fixed places hide the digit, which moves by a whole number of pixels per frame and is reflected at the
borders. The network predicts the class after the last frame, and before that each next occluded frame.

A trajectory is a pure function of (key, number of the sequence) by SplitMix64, and frames are gathered from the digit's
pixels, so that they are equal on every device.

Legend: n sequences, T frames; S ``side``, d ``digit``; positions are (row, column) of the digit's upper left pixel.
Settings are *stated* in the text of the paper, *unverified* (recalled, and consistent with the text), or *ours*.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder_search.data.hashing import GAMMA, finalise, signed

KNIGHT = ((1, 2), (1, -2), (-1, 2), (-1, -2), (2, 1), (2, -1), (-2, 1), (-2, -1))
"""Rows and columns per frame."""

_BITS = 21  # bits per draw, three draws per word: n outcomes are equally likely to n / 2**21
_DRAW = (1 << _BITS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scene and its motion; lengths in pixels."""

    side: int = 32
    """Side of a frame. Unverified; 8 + 4 + 8 + 4 + 8 is the only size at which the stated bars are symmetric."""
    digit: int = 14
    """Side of a digit, to which its image is downscaled. Unverified."""
    bar: int = 4
    """Width of a bar. Stated."""
    gap: int = 8
    """Distance of two bars. Stated."""
    first_bar: int = 8
    """First row and first column of the first bar. Ours: symmetric."""
    velocities: tuple[tuple[int, int], ...] = KNIGHT
    """Rows and columns per frame, one pair for each sequence, equally likely. Their number, eight, is stated; the
    values are unverified."""
    bounces: bool = True
    """Reflect the digit at the borders (stated); otherwise start a sequence where it will not reach one."""
    margin: int = 0
    """Minimum distance of the digit's start from the borders. Ours: none."""
    frames: int = 5
    """T. Stated."""
    pooling: str = "mean"
    """How pixels are pooled when a digit is downscaled, ``mean`` or ``max``. Ours."""

    def __post_init__(self) -> None:
        assert 1 <= self.digit < self.side, "a digit must be smaller than its frame"
        assert self.bar >= 0 and self.gap >= 1 and self.first_bar >= 0, "bars must leave gaps of at least 1 pixel"
        assert self.frames >= 2, "a sequence must have at least 2 frames"
        assert self.pooling in ("mean", "max"), "pooling must be 'mean' or 'max'"
        velocities = self.velocities
        assert velocities and max(abs(v) for pair in velocities for v in pair) <= self.room, "a digit moves in its room"
        starts = [count for velocity in velocities for _, count in self.starts(velocity)]
        assert min(starts) >= 1, "a digit must have a place to start from"

    @property
    def room(self) -> int:
        """Maximum distance of a digit from the upper and the left border; positions are 0 .. room."""
        return self.side - self.digit

    @property
    def visible(self) -> tuple[bool, ...]:
        """Whether a row or column is free of the bars parallel to it: [S]."""
        period = self.bar + self.gap
        return tuple(i < self.first_bar or (i - self.first_bar) % period >= self.bar for i in range(self.side))

    def starts(self, velocity: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (lowest, count) of the possible start positions of a sequence, for rows and for columns."""
        ranges = []
        for speed in velocity:
            way = 0 if self.bounces else speed * (self.frames - 1)
            low, high = max(self.margin, -way), min(self.room - self.margin, self.room - way)
            ranges.append((low, high - low + 1))
        return ranges


FULL = Scene()
HALF = Scene(side=16, digit=7, bar=2, gap=4, first_bar=4)
"""Half the size at the same speeds, for machines without an accelerator. Ours."""
MINI = Scene(side=16, digit=7, bar=2, gap=4, first_bar=4, velocities=((1, 1),), bounces=False)
"""Half the size with one velocity, trainable in minutes on one core. Ours."""


class Renderer:
    """Draws sequences of a scene on one device; every call is a pure function of its arguments."""

    def __init__(self, scene: Scene, device: torch.device | str = "cpu") -> None:
        self.scene = scene
        self._velocities = torch.tensor(scene.velocities, device=device)  # (V, 2)
        starts = torch.tensor([scene.starts(velocity) for velocity in scene.velocities], device=device)
        self._lowest, self._counts = starts[..., 0], starts[..., 1]  # (V, 2)
        self._visible = torch.tensor(scene.visible, device=device)  # (S,)
        self._time = torch.arange(scene.frames, device=device)
        self._place, self._pixel = (torch.arange(n, device=device) for n in (scene.side, scene.digit))

    def positions(self, key: int | Tensor, numbers: Tensor) -> Tensor:
        """Return the positions of the digits: int64 (n, T, 2), each 0 .. S-d.

        Args:
            key: key of the stream, a 64-bit word as a signed number; see ``data.occluded_sets``.
            numbers: numbers of the sequences in the stream, int64 (n,), as a tensor in memory: a C++ compiler may
                assume that multiples of a large number that it generates itself do not overflow.
        """
        words = finalise((numbers + 1) * signed(GAMMA) + key)
        row, column, choice = ((words >> shift) & _DRAW for shift in (1 + 2 * _BITS, 1 + _BITS, 1))
        which = (choice * len(self.scene.velocities)) >> _BITS
        start = self._lowest[which] + ((torch.stack([row, column], -1) * self._counts[which]) >> _BITS)
        return self.moved(start, self._velocities[which])

    def moved(self, start: Tensor, velocity: Tensor) -> Tensor:
        """Return the positions in all frames of digits with these starts and velocities: int64 (n, 2) -> (n, T, 2)."""
        room = self.scene.room
        unfolded = torch.remainder(start.unsqueeze(1) + velocity.unsqueeze(1) * self._time[:, None], 2 * room)
        return torch.where(unfolded > room, 2 * room - unfolded, unfolded)  # reflected

    def frames(self, digits: Tensor, positions: Tensor, *, occluded: bool = True) -> Tensor:
        """Return the frames, (n, T, S, S), of digits of any type, (n, d, d), at positions int64 (n, T, 2)."""
        d = self.scene.digit
        pixel = self._place - positions.unsqueeze(-1)  # (n, T, 2, S): row or column of the digit
        inside = (pixel >= 0) & (pixel < d)
        if occluded:
            inside = inside & self._visible
        # Rows and columns are hidden independently. An additional pixel after the digit's is background, which
        # positions outside the digit refer to.
        place = torch.where(inside[:, :, 0], pixel[:, :, 0] * d, d * d).unsqueeze(-1)
        place = place + torch.where(inside[:, :, 1], pixel[:, :, 1], d * d).unsqueeze(-2)
        padded = torch.nn.functional.pad(digits.flatten(1), (0, 1))
        n, T = positions.shape[:2]
        return padded.gather(1, place.clamp(max=d * d).flatten(1)).view(n, T, self.scene.side, self.scene.side)

    def visible(self, positions: Tensor) -> Tensor:
        """Return the pixels of the digit visible in each frame: int64 (n, T, 2) -> bool (n, T, d, d)."""
        free = self._visible[positions.unsqueeze(-1) + self._pixel]  # (n, T, 2, d)
        return free[:, :, 0, :, None] & free[:, :, 1, None, :]


def seen_so_far(visible: Tensor) -> Tensor:
    """Return the pixels visible in frame t or an earlier one, from those of each frame: bool (n, T, d, d)."""
    return visible.cumsum(1) > 0
