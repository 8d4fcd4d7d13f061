"""The digits of matplotlib's fonts as small pictures on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
    "cmr10", "cmb10", "cmss10", "cmti10", "cmtt10",
    "cmmi10",  # old-style figures: some rise above the line, some hang below
)  # fmt: skip
"""The faces of matplotlib that have digits."""

HEIGHT = 24
"""Pixels from the highest to the lowest point of a face's digits."""
SIDE = 40
"""Pixels of a picture; the margin around the tallest and broadest digit keeps its edges black."""
FINE = 4
"""Factor by which digits are drawn larger and averaged, which hides the hinting of small sizes."""
BLANK = 10
"""Index of an empty picture after the ten digits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glyphs:
    ink: NDArray[np.float32]
    """[faces, 11, 40, 40], 0..1; ink is centred horizontally for each digit and vertically for each face."""
    width: NDArray[np.float32]
    """[faces, 11], width of the ink in pixels; 12 for the blank."""


def draw_glyphs() -> Glyphs:
    """Draw all digits of all ``FACES``."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    ink = np.zeros((len(FACES), BLANK + 1, SIDE, SIDE), np.float32)
    width = np.full((len(FACES), BLANK + 1), 12, np.float32)
    for face, name in enumerate(FACES):
        for digit, (picture, inked) in enumerate(_draw_face(folder / f"{name}.ttf")):
            ink[face, digit], width[face, digit] = picture, inked
    return Glyphs(ink=ink, width=width)


def _draw_face(path: Path) -> list[tuple[NDArray[np.float32], float]]:
    """Return pictures and widths of ink of the ten digits of one face."""
    high = _inked(path, 400).any(axis=(0, 2)).sum()
    digits = _inked(path, round(400 * HEIGHT * FINE / high))
    rows = np.flatnonzero(digits.any(axis=(0, 2)))
    glyphs = []
    for digit in digits:
        columns = np.flatnonzero(digit.any(axis=0))
        cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cell = np.zeros((SIDE * FINE, SIDE * FINE), np.int64)
        top, left = (cell.shape[0] - cut.shape[0]) // 2, (cell.shape[1] - cut.shape[1]) // 2
        cell[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
        total = cell.reshape(SIDE, FINE, SIDE, FINE).sum(axis=(1, 3))
        glyphs.append((total.astype(np.float32) / np.float32(255 * FINE * FINE), cut.shape[1] / FINE))
    return glyphs


def _inked(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the ten digits of a font on a common line: uint8 [10, 2 size, 2 size]."""
    from PIL import Image, ImageDraw, ImageFont

    # The other layout engine needs a library that some builds of Pillow lack.
    font = ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    pictures = []
    for digit in "0123456789":
        image = Image.new("L", (2 * size, 2 * size))
        ImageDraw.Draw(image).text((size // 2, size // 2), digit, font=font, fill=255)
        pictures.append(np.asarray(image))
    return np.stack(pictures)
