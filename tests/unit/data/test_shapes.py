"""Shapes: the drawing by hand with Python's integers, its distribution and its fixed test set."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from ladder_search.data.drawing import TEST, TRAINING, UNSCORED, VALIDATION, choices, draws, part_key, step_keys
from ladder_search.data.shapes import SHAPES, ShapesScene
from ladder_search.errors import SettingError

CPU = torch.device("cpu")
MASK = 2**64 - 1
PICTURES = (
    "#######|#######|##...##|##...##|##...##|#######|#######",
    ".....##.....|....####....|...######...|..###..###..|.###....###.|############|############",
    "############|############|.###....###.|..###..###..|...######...|....####....|.....##.....",
)


def drawn(numbers: list[int], key: int = part_key(TEST)) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    scene = ShapesScene()
    images, segments = scene.painter(None, CPU).draw(None, key, torch.tensor(numbers), TEST)
    return images.view(-1, 20, 20).numpy(), segments.view(-1, 20, 20).numpy()


def splitmix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def by_hand(key: int, number: int, count: int, purpose: int = 0) -> list[int]:
    gamma = 0x9E3779B97F4A7C15
    base = splitmix(((number + 1) * gamma + key) & MASK)
    words = [splitmix((base + gamma * (1 + (purpose << 16) + j)) & MASK) for j in range(-(-count // 3))]
    return [(word >> shift) & (2**21 - 1) for word in words for shift in (43, 22, 1)][:count]


def test_shapes_are_those_of_the_authors_code() -> None:
    for shape, picture in zip(SHAPES, PICTURES, strict=True):
        assert ["".join(".#"[int(pixel)] for pixel in row) for row in shape] == picture.split("|")


def test_draws_by_hand() -> None:
    numbers = torch.tensor([0, 1, 7, 59_999, 2**40])
    for key in (part_key(TEST), -1, 2**63 - 1):
        for purpose in (0, 1):
            found = draws(key, numbers, 7, purpose=purpose).tolist()
            assert found == [by_hand(key, number, 7, purpose) for number in numbers.tolist()]
    keys = torch.tensor([5, 5, 6])
    assert draws(keys, torch.tensor([3, 4, 4]), 3).tolist() == [by_hand(5, 3, 3), by_hand(5, 4, 3), by_hand(6, 4, 3)]
    assert choices(torch.tensor([0, 2**20, 2**21 - 1]), 3).tolist() == [0, 1, 2]


def test_images_by_hand() -> None:
    key, numbers = part_key(TEST), [0, 1, 2, 3, 4, 999]
    images, segments = drawn(numbers)
    for image, segment, number in zip(images, segments, numbers, strict=True):
        covered = np.zeros((3, 20, 20), int)
        drawing = by_hand(key, number, 9)
        for k in range(3):
            kind, down, across = drawing[3 * k : 3 * k + 3]
            shape = SHAPES[kind * 3 >> 21]
            row, column = down * 14 >> 21, across * (21 - shape.shape[1]) >> 21
            covered[k, row : row + 7, column : column + shape.shape[1]] = shape
        assert (image == covered.any(0)).all()
        alone = covered.sum(0) == 1
        assert (segment == np.where(alone, covered.argmax(0), UNSCORED)).all()


def test_places_and_kinds_are_uniform_and_all_shapes_fit() -> None:
    images, segments = drawn(list(range(4000)))
    assert images.min() == 0 and images.max() == 1
    assert set(np.unique(segments)) == {UNSCORED, 0, 1, 2}
    # A lone square has 40 pixels, a triangle 48; overlaps reduce the scored ones.
    sizes = (segments == 0).sum((1, 2))
    assert sizes.max() == 48 and {40, 48} <= set(sizes.tolist())
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(0)
    assert (corners > 0).all() and np.ptp(corners) < 0.02
    assert images[:, 10, 10].mean() > 5 * corners.max()


def test_parts_and_steps_have_drawings_of_their_own() -> None:
    keys = [part_key(VALIDATION), part_key(TEST), *step_keys(torch.tensor([1, 2, 3])).tolist()]
    assert len(set(keys)) == 5
    first = [drawn([0], key)[0].tobytes() for key in keys]
    assert len(set(first)) == 5
    painter = ShapesScene().painter(None, CPU)
    for part in (TRAINING, VALIDATION):  # nothing but the key decides
        assert torch.equal(
            painter.draw(None, 5, torch.tensor([3]), part)[0], painter.draw(None, 5, torch.tensor([3]), TEST)[0]
        )


@pytest.mark.parametrize(("name", "counts"), [("shapes", (60_000, 10_000)), ("shapes-small", (5500, 1000))])
def test_rows_of_the_table(name: str, counts: tuple[int, int]) -> None:
    assert datasets.state(name) == PRESENT
    data = datasets.load(name)
    assert (len(data.train_y), len(data.test_y)) == counts
    assert data.example_shape == (400,) and data.numbers == 400 and data.full_scale == 1.0
    assert (
        datasets.load(name).digest
        == data.digest
        != datasets.load("shapes" if "small" in name else "shapes-small").digest
    )


def test_the_test_set_stays_what_it_is() -> None:
    """The sha256 over images and segments of the first 1,000 test images, one byte per pixel."""
    images, segments = drawn(list(range(1000)))
    sha = hashlib.sha256(images.astype(np.uint8).tobytes() + segments.astype(np.int8).tobytes()).hexdigest()
    assert sha == "70a5604a5ec267b069d5aa595e405ae2f2fc2d368e09909e309b3e98ef8676ec"


def test_too_small_a_side_is_refused() -> None:
    with pytest.raises(SettingError, match=r"at least 12 pixels, got 11; choose 20\."):
        ShapesScene(side=11)
