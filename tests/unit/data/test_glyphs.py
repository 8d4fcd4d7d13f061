"""The pictures of the digits."""

from __future__ import annotations

import numpy as np
import pytest

from ladder_search.data import glyphs
from ladder_search.data.images import resized

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def drawn() -> glyphs.Glyphs:
    return glyphs.draw_glyphs()


def shape(picture: np.ndarray) -> np.ndarray:
    """The ink alone, brought to 12 x 12 and to length 1: what italics and old-style figures have in common."""
    rows, columns = np.flatnonzero(picture.max(axis=1) > 0.1), np.flatnonzero(picture.max(axis=0) > 0.1)
    cut = np.round(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * 255)
    flat = resized(cut[None], 12, 12).astype(np.float64).ravel()
    return (flat - flat.mean()) / np.linalg.norm(flat - flat.mean())


def test_every_face_really_shows_the_digits(drawn: glyphs.Glyphs) -> None:
    """Each digit is most like the mean of that digit in the other faces; symbols and empty boxes would not be."""
    n = len(glyphs.FACES)
    assert drawn.ink.shape == (n, 11, 40, 40) and len(set(glyphs.FACES)) == n
    shapes = np.stack([[shape(drawn.ink[face, digit]) for digit in range(10)] for face in range(n)])
    for face, name in enumerate(glyphs.FACES):
        means = shapes.sum(axis=0) - shapes[face]
        likest = (shapes[face] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
        assert (likest == np.arange(10)).sum() >= 9, (name, likest)  # the 1 of one face passes for a 7


def test_ink_lies_in_the_middle_and_is_of_one_height(drawn: glyphs.Glyphs) -> None:
    for face, name in enumerate(glyphs.FACES):
        rows = np.flatnonzero(drawn.ink[face].max(axis=(0, 2)) > 0.02)
        # 24 pixels about the middle of 40, and at most one more where a quarter pixel of ink enters the next.
        assert 24 <= rows[-1] - rows[0] + 1 <= 26 and abs(rows[0] + rows[-1] - 39) <= 2, name
        for digit in range(10):
            columns = np.flatnonzero(drawn.ink[face, digit].max(axis=0) > 0)
            assert abs(columns[0] + columns[-1] - 39) <= 2, (name, digit)
            assert 0 <= columns[-1] - columns[0] + 1 - drawn.width[face, digit] <= 2, (name, digit)
    assert drawn.ink.min() == 0 and 0.99 < drawn.ink.max() <= 1 and drawn.ink.dtype == np.float32
    edges = np.stack([drawn.ink[..., 0], drawn.ink[..., -1], drawn.ink[..., 0, :], drawn.ink[..., -1, :]])
    assert not edges.any(), "what lies beyond a picture repeats its edge and must be empty"


def test_the_eleventh_is_blank(drawn: glyphs.Glyphs) -> None:
    assert not drawn.ink[:, glyphs.BLANK].any() and drawn.ink[:, :10].any(axis=(2, 3)).all()
