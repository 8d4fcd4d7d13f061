"""Synthetic house numbers: crops of rendered font digits that resemble SVHN where SVHN is not available.

Images are 32 x 32 pixels in colour. The class is the middle digit; its neighbours are partly visible, and digits are
darker than their background as often as lighter. Results on these images are not results on SVHN.

Image i of a part is a pure function of (seed, part, i). Random numbers are raw output of PCG64, which NumPy keeps
stable, and pixels use only + - * / and square roots in a fixed order (a sine or a matrix product may differ in the last
bit). The images are therefore identical on all machines with the same fonts and the same FreeType in Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ladder_search.data import cifar
from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.glyphs import BLANK, FACES, HEIGHT, Glyphs, draw_glyphs
from ladder_search.data.glyphs import SIDE as CELL
from ladder_search.data.images import View, grey_rows, resized

SEED = 1
N_TRAIN, N_TEST = 20_000, 5_000
TRAIN, TEST = 0, 1
"""Parts; each has its own random stream."""

SIDE = 32
CHUNK = 500
"""Images per chunk, about 100 MB."""

N_DRAWS = 96
"""Random numbers per image for everything but noise; unused ones are reserved for extensions."""
NOISE_DRAWS = SIDE * SIDE * 3 // 2
"""Raw 64-bit numbers per image for noise: four bytes for each pixel and colour."""

Pixels = NDArray[np.float32]


def load(notify: Notify, *, view: View = grey_rows, on_photographs: bool = False) -> Arrays:
    """Draw the images: [20000, d] and [5000, d]. On photographs of CIFAR-10, of its training or test part, the digits
    differ. Raise ``DataError`` if the photographs are missing."""
    photographs = cifar.load_jpeg75(notify) if on_photographs else None
    glyphs = draw_glyphs()
    notify(f"drawing {N_TRAIN + N_TEST:,} house numbers (once)")
    arrays = []
    for part, n in ((TRAIN, N_TRAIN), (TEST, N_TEST)):
        grounds = None if photographs is None else (photographs.train_x, photographs.test_x)[part]
        images, labels = np.empty((n, SIDE, SIDE, 3), np.uint8), np.empty(n, np.uint8)
        for first in range(0, n, CHUNK):
            count = min(CHUNK, n - first)
            images[first : first + count], labels[first : first + count] = draw(
                first, count, seed=SEED, part=part, glyphs=glyphs, grounds=grounds
            )
        arrays += [view(images), labels]
    return Arrays(*arrays)


def draw(
    first: int, count: int, *, seed: int, part: int, glyphs: Glyphs, grounds: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw images ``first .. first+count-1`` of a part, ``TRAIN`` or ``TEST``: uint8 [count, 32, 32, 3], and their
    classes, uint8 [count]. ``grounds`` are photographs for the backgrounds, uint8 [m, 3072] with planes of red, green
    and blue; ``seed`` is 0 .. 2**32-1."""
    size = N_DRAWS + NOISE_DRAWS
    bits = np.random.PCG64(np.random.SeedSequence([seed, part])).advance(first * size)
    raw = np.asarray(bits.random_raw(count * size), np.uint64).reshape(count, size)
    draws = _Draws(raw[:, :N_DRAWS])
    labels = draws.whole(10)
    level, ink_level = _levels(draws)
    image = _wall(draws, level)
    if grounds is not None:
        image = _on_photograph(draws, image, grounds)
    for _ in range(2):
        image = _with_strip(draws, image, often=0.35, thinnest=1.0, broadest=7.0)
    image = _with_digits(draws, image, _tinted(draws, ink_level), labels, glyphs)
    image = _with_strip(draws, image, often=0.1, thinnest=0.5, broadest=1.5)
    image = _lit(draws, image)
    image = _blurred(draws, image)
    image = _noisy(draws, image, raw[:, N_DRAWS:])
    return np.clip(np.floor(image + np.float32(0.5)), 0, 255).astype(np.uint8), labels.astype(np.uint8)


class _Draws:
    """Iterator over the random numbers of an image, for all images of a chunk at once."""

    def __init__(self, raw: NDArray[np.uint64]) -> None:
        self._raw = raw
        self._next = 0

    def _column(self) -> NDArray[np.uint64]:
        self._next += 1
        return self._raw[:, self._next - 1]

    def whole(self, n: int) -> NDArray[np.int64]:
        """Return integers 0..n-1, n below 2**31: [count]."""
        return ((self._column() >> np.uint64(33)) * np.uint64(n) >> np.uint64(31)).astype(np.int64)

    def between(self, low: float, high: float) -> Pixels:
        """Return numbers low <= number < high: [count, 1, 1]."""
        # 24 bits, the precision of float32.
        unit = (self._column() >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return (np.float32(low) + np.float32(high - low) * unit)[:, None, None]

    def often(self, share: float) -> Pixels:
        """Return 1 for this share of the images, else 0: [count, 1, 1]."""
        return (self.between(0, 1) < share).astype(np.float32)


_PLACE = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
_X, _Y = _PLACE[None, None, :], _PLACE[None, :, None]
"""Positions of pixels relative to the middle of the image."""


def _levels(draws: _Draws) -> tuple[Pixels, Pixels]:
    """Return the grey levels of background and ink; ink is lighter or darker by 45 to 125, as the range allows."""
    level, contrast = draws.between(15, 240), draws.between(45, 125)
    lighter = draws.often(0.5) > 0
    lighter = np.where(level + contrast > 255, False, np.where(level - contrast < 0, True, lighter))
    return level, np.where(lighter, level + contrast, level - contrast)


def _tinted(draws: _Draws, level: Pixels) -> Pixels:
    """Return a colour of about this grey level: [count, 1, 1, 3]."""
    colour: Pixels = np.stack([level + draws.between(-35, 35) for _ in range(3)], axis=-1)
    return colour


def _wall(draws: _Draws, level: Pixels) -> Pixels:
    """Return the background, one colour with a slope and coarse stains: [count, 32, 32, 3]."""
    slope = draws.between(-1, 1) * _X + draws.between(-1, 1) * _Y
    stains = np.stack([draws.between(0, 256)[:, 0, 0] for _ in range(25)], axis=-1).astype(np.uint8)
    coarse = resized(stains.reshape(-1, 5, 5).astype(np.float64), SIDE, SIDE).astype(np.float32) - np.float32(127.5)
    wall: Pixels = _tinted(draws, level) + (slope + draws.between(0, 0.25) * coarse)[..., None]
    return wall


def _on_photograph(draws: _Draws, wall: Pixels, grounds: NDArray[np.uint8]) -> Pixels:
    """Blend a square piece of a photograph (at least half its side) into the wall, faintly enough for the ink."""
    which = draws.whole(len(grounds))
    zoom, strength = draws.between(0.5, 1.0), draws.between(0.2, 0.5)
    middle = np.float32((SIDE - 1) / 2)
    room = middle * (1 - zoom)
    y = _Y * zoom + draws.between(-1, 1) * room + middle
    x = _X * zoom + draws.between(-1, 1) * room + middle
    planes = grounds.reshape(-1, SIDE, SIDE)
    piece = np.stack([_sampled(planes, which[:, None, None] * 3 + c, y, x) for c in range(3)], axis=-1)
    covered: Pixels = wall + (piece - np.float32(127.5)) * strength[..., None]
    return covered


def _with_strip(draws: _Draws, image: Pixels, *, often: float, thinnest: float, broadest: float) -> Pixels:
    """Draw a straight strip (a frame, gutter or wire) across some of the images."""
    opacity = draws.often(often) * draws.between(0.5, 1.0)
    along, across = draws.between(-1, 1), draws.between(-1, 1)
    # (along, across) scaled to length 1; like + - * /, a square root is exact to the last bit on all machines.
    length = np.sqrt(along * along + across * across) + np.float32(1e-6)
    distance = np.abs((along * _X + across * _Y) / length - draws.between(-16, 16))
    cover: Pixels = opacity * np.clip(draws.between(thinnest, broadest) - distance + np.float32(0.5), 0, 1)
    colour = _tinted(draws, draws.between(0, 255))
    result: Pixels = image + (colour - image) * cover[..., None]
    return result


def _with_digits(draws: _Draws, image: Pixels, colour: Pixels, labels: NDArray[np.int64], glyphs: Glyphs) -> Pixels:
    """Draw the number: the class in the middle, neighbours in most images, and often a shadow."""
    face = draws.whole(len(FACES))
    left, right = (np.where(draws.whole(10) < 6, draws.whole(10), BLANK) for _ in range(2))
    # The tangent of the half angle gives sine and cosine by division alone; +-0.1 is +-11 degrees.
    half = draws.between(-0.1, 0.1)
    cosine = (1 - half * half) / (1 + half * half)
    sine = 2 * half / (1 + half * half)
    tall = HEIGHT / (SIDE * draws.between(0.62, 0.95))  # glyph pixels per image pixel
    broad = tall * draws.between(0.8, 1.2)
    shear, gap = draws.between(-0.2, 0.2), draws.between(1.5, 5.0)
    x, y = _X - draws.between(-2.5, 2.5), _Y - draws.between(-2, 2)
    across, down = cosine * x + sine * y, cosine * y - sine * x
    u, v = (across - shear * down) * broad, down * tall
    number = _Number(glyphs=glyphs, face=face, digits=(left, labels, right), gap=gap)
    shadow = draws.often(0.3) * draws.between(0.3, 0.8)
    behind = number.ink(u - draws.between(-2.5, 2.5), v - draws.between(-2.5, 2.5)) * shadow
    image = image * (1 - behind[..., None])
    ink = number.ink(u, v) * draws.between(0.7, 1.0)
    return image + (colour - image) * ink[..., None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Number:
    """Three digits on a line; the middle of the second one is at (0, 0)."""

    glyphs: Glyphs
    face: NDArray[np.int64]  # [count]
    digits: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # [count] each
    gap: Pixels  # [count, 1, 1], glyph pixels between two digits

    def ink(self, u: Pixels, v: Pixels) -> Pixels:
        """Return the ink 0..1 at positions in glyph pixels: all [count, 32, 32]."""
        left, middle, right = (self.glyphs.width[self.face, digit][:, None, None] for digit in self.digits)
        is_left, is_right = u < -(middle + self.gap) / 2, u > (middle + self.gap) / 2
        u = np.where(is_left, u + (left + middle) / 2 + self.gap, u)
        u = np.where(is_right, u - (middle + right) / 2 - self.gap, u)
        before, middle_digit, after = (digit[:, None, None] for digit in self.digits)
        digit = np.where(is_left, before, np.where(is_right, after, middle_digit))
        middle_of_cell = np.float32((CELL - 1) / 2)
        pictures = self.glyphs.ink.reshape(-1, CELL, CELL)
        return _sampled(
            pictures, self.face[:, None, None] * (BLANK + 1) + digit, v + middle_of_cell, u + middle_of_cell
        )


def _sampled(
    pictures: NDArray[np.float32] | NDArray[np.uint8], which: NDArray[np.int64], y: Pixels, x: Pixels
) -> Pixels:
    """Interpolate pictures [m, h, w] bilinearly at fractional positions, clamped to the edge; the indices ``which``,
    ``y`` and ``x`` are broadcastable to [count, 32, 32]."""
    _, h, w = pictures.shape
    y, x = np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)
    row, column = np.minimum(y.astype(np.int64), h - 2), np.minimum(x.astype(np.int64), w - 2)
    down, across = y - row.astype(np.float32), x - column.astype(np.float32)
    flat, place = pictures.reshape(-1), (which * h + row) * w + column
    a, b, c, d = (flat[place + to].astype(np.float32) for to in (0, 1, w, w + 1))
    upper, lower = a + (b - a) * across, c + (d - c) * across
    result: Pixels = upper + (lower - upper) * down
    return result


def _lit(draws: _Draws, image: Pixels) -> Pixels:
    """Add light that decreases to one side."""
    light = 1 + draws.between(-0.02, 0.02) * _X + draws.between(-0.02, 0.02) * _Y
    result: Pixels = image * light[..., None]
    return result


def _blurred(draws: _Draws, image: Pixels) -> Pixels:
    """Blur 0 to 3 times with weights 1/4, 1/2, 1/4 along both axes, a deviation of up to 1.2 pixels."""
    times = draws.whole(4)
    for turn in range(3):
        more = times > turn
        padded = np.pad(image[more], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        image[more] = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    return image


def _noisy(draws: _Draws, image: Pixels, raw: NDArray[np.uint64]) -> Pixels:
    """Add noise to each pixel and colour; the sum of four random bytes is nearly normal."""
    four = np.ascontiguousarray(raw).view(np.uint8).reshape(len(image), SIDE, SIDE, 3, 4)
    total = four[..., 0].astype(np.float32) + four[..., 1] + four[..., 2] + four[..., 3]
    deviation = np.float32(147.8)  # of the sum: sqrt(4 (256**2 - 1) / 12)
    return image + (total - np.float32(510)) * (draws.between(0, 12) / deviation)[..., None]
