"""Drawn house numbers: what is drawn where, by hand; the same images always; parts that share nothing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ladder_search.data import datasets, glyphs, house_numbers
from ladder_search.data.arrays import Arrays, quiet
from ladder_search.data.house_numbers import TEST, TRAIN, _blurred, _Draws, _levels, _noisy, _Number, _sampled
from ladder_search.data.images import channels_first, grey_rows
from ladder_search.errors import DataError

pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

TOP = 2**64 - 1


@pytest.fixture(scope="module")
def drawn() -> glyphs.Glyphs:
    return glyphs.draw_glyphs()


def raw(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint64)


def test_random_numbers_by_hand() -> None:
    draws = _Draws(raw([0, 0, 0, 0], [TOP, TOP, TOP, TOP], [2**63, 2**63, 2**63, 2**63]))
    assert draws.whole(10).tolist() == [0, 9, 5]
    between = draws.between(-2, 6)
    assert between.shape == (3, 1, 1) and between.dtype == np.float32
    # 24 bits of one: 8 * (1 - 2**-24) - 2 rounds to the float32 below 6 or to 6 itself.
    assert between[:, 0, 0].tolist() == pytest.approx([-2, 6, 2], abs=1e-6)
    assert draws.often(0.5)[:, 0, 0].tolist() == [1, 0, 0]
    assert draws.often(0.51)[:, 0, 0].tolist() == [1, 0, 1]


def test_places_between_pixels_are_those_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (3, 9, 7), np.uint8)
    which = np.array([2, 0, 1, 2])
    y, x = random.uniform(-3, 12, (4, 5, 6)).astype(np.float32), random.uniform(-3, 10, (4, 5, 6)).astype(np.float32)
    found = _sampled(pictures, which[:, None, None], y, x)
    for i, picture in enumerate(which):
        image = pictures[picture].astype(np.float64)
        expected = ndimage.map_coordinates(image, [y[i], x[i]], order=1, mode="nearest")
        assert np.abs(found[i] - expected).max() < 1e-3


def test_where_the_neighbours_stand() -> None:
    """Digit d is a square of level d / 10, as broad as its ink of 4 + d pixels."""
    ink = np.zeros((1, 11, 40, 40), np.float32)
    for digit in range(10):
        ink[0, digit, 4:36, 4:36] = digit / 10
    width = np.arange(4, 15, dtype=np.float32)[None]
    number = _Number(
        glyphs=glyphs.Glyphs(ink=ink, width=width),
        face=np.array([0]),
        digits=(np.array([2]), np.array([6]), np.array([8])),
        gap=np.full((1, 1, 1), 3, np.float32),
    )
    # The middle digit is 10 broad: its own side ends at 5 + 3 / 2 = 6.5.
    u = np.array([-8, -7, -6, 0, 6, 7, 8], np.float32)[None, None]
    assert number.ink(u, np.zeros_like(u)).ravel().tolist() == pytest.approx([0.2, 0.2, 0.6, 0.6, 0.6, 0.8, 0.8])
    # The left digit's middle is 5 + 3 + 6 / 2 = 11 to the left, the right one's 5 + 3 + 12 / 2 = 14 to the right.
    ink[0, 2], ink[0, 8] = 0, 0
    ink[0, 2, :, 19:21], ink[0, 8, :, 19:21] = 1, 1
    u = np.array([-12.5, -11, -9.5, 12.5, 14, 15.5], np.float32)[None, None]
    assert number.ink(u, np.zeros_like(u)).ravel().tolist() == pytest.approx([0, 1, 0, 0, 1, 0])


def test_a_point_is_blurred_by_the_binomial_weights() -> None:
    image = np.zeros((3, 32, 32, 3), np.float32)
    image[:, 10, 20] = 256
    # Whole numbers 0..3 out of 64 bits: 0, then a quarter, then one half.
    found = _blurred(_Draws(raw([0], [2**62], [2**63])), image.copy())
    np.testing.assert_array_equal(found[0], image[0])
    once = np.outer([1, 2, 1], [1, 2, 1]) * 16
    np.testing.assert_array_equal(found[1, 9:12, 19:22, 1], once)
    twice = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])
    np.testing.assert_array_equal(found[2, 8:13, 18:23, 0], twice)
    assert found[2].sum() == 3 * 256


def test_flat_images_stay_flat_when_blurred() -> None:
    image = np.full((1, 32, 32, 3), 77, np.float32)
    np.testing.assert_array_equal(_blurred(_Draws(raw([TOP])), image.copy()), image)


def test_noise_has_the_deviation_that_was_drawn() -> None:
    image = np.full((2, 32, 32, 3), 100, np.float32)
    bits = np.random.default_rng(0).integers(0, TOP, (2, house_numbers.NOISE_DRAWS), np.uint64, endpoint=True)
    found = _noisy(_Draws(raw([0], [TOP])), image, bits)
    np.testing.assert_array_equal(found[0], image[0])
    # 3072 values: the deviation 12 is known to 12 / sqrt(2 * 3072) = 0.15, the mean to 12 / sqrt(3072) = 0.22.
    assert found[1].std() == pytest.approx(12, abs=0.6) and found[1].mean() == pytest.approx(100, abs=0.9)


def test_ink_is_lighter_and_darker_than_its_ground_and_never_the_same() -> None:
    draws = _Draws(np.random.default_rng(0).integers(0, TOP, (4000, 3), np.uint64))
    level, ink = _levels(draws)
    contrast = np.abs(ink - level)
    assert contrast.min() >= 45 - 1e-3 and contrast.max() <= 125 + 1e-3
    assert ink.min() >= 0 and ink.max() <= 255
    assert 0.4 < (ink > level).mean() < 0.6


def test_an_image_depends_on_its_number_alone(drawn: glyphs.Glyphs) -> None:
    images, labels = house_numbers.draw(0, 40, seed=7, part=TRAIN, glyphs=drawn)
    assert images.shape == (40, 32, 32, 3) and images.dtype == labels.dtype == np.uint8
    for first, count in ((0, 40), (13, 1), (30, 10)):
        again, same = house_numbers.draw(first, count, seed=7, part=TRAIN, glyphs=drawn)
        np.testing.assert_array_equal(again, images[first : first + count])
        np.testing.assert_array_equal(same, labels[first : first + count])


def test_seeds_and_parts_share_no_image(drawn: glyphs.Glyphs) -> None:
    found = [
        house_numbers.draw(0, 30, seed=seed, part=part, glyphs=drawn)[0]
        for seed, part in ((1, TRAIN), (1, TEST), (2, TRAIN), (0, TEST))
    ]
    assert len({image.tobytes() for images in found for image in images}) == 120


def test_the_digit_of_the_class_is_in_the_middle(drawn: glyphs.Glyphs) -> None:
    """With glyphs that are filled squares for one class and nothing else, only that class has ink in the middle."""
    ink = np.zeros_like(drawn.ink)
    ink[:, 3, 6:34, 6:34] = 1
    squares = glyphs.Glyphs(ink=ink, width=np.full_like(drawn.width, 28))
    plain = glyphs.Glyphs(ink=np.zeros_like(ink), width=squares.width)
    with_ink, labels = house_numbers.draw(0, 300, seed=3, part=TRAIN, glyphs=squares)
    without, same = house_numbers.draw(0, 300, seed=3, part=TRAIN, glyphs=plain)
    np.testing.assert_array_equal(labels, same)
    middle = np.abs(with_ink[:, 14:18, 14:18].astype(int) - without[:, 14:18, 14:18]).mean(axis=(1, 2, 3))
    assert (middle[labels != 3] < 12).all(), "a neighbour's shadow at most"
    assert np.median(middle[labels == 3]) > 30
    assert np.bincount(labels, minlength=10).min() >= 15  # of 30 expected


@pytest.mark.skipif(
    [importlib.metadata.version(name) for name in ("pillow", "matplotlib")] != ["13.0.0", "3.11.2"],
    reason="other fonts or another FreeType than the pinned ones may draw other pixels",
)
def test_the_pinned_fonts_give_these_very_images(drawn: glyphs.Glyphs) -> None:
    """Goes up together with the rows' edition."""
    images, labels = house_numbers.draw(0, 12, seed=1, part=TRAIN, glyphs=drawn)
    assert labels.tolist() == [5, 6, 1, 9, 4, 2, 9, 8, 1, 7, 6, 0]
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "3984c24110f284cb7ac76990e0c9204fd23ad80f670ede162c7e8fdbaa786eba"
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_numbers, "N_TRAIN", 33)
    monkeypatch.setattr(house_numbers, "N_TEST", 12)
    monkeypatch.setattr(house_numbers, "CHUNK", 10)


def test_both_rows_hold_the_same_images(few: None, drawn: glyphs.Glyphs) -> None:
    grey, colour = house_numbers.load(quiet), house_numbers.load(quiet, view=channels_first)
    assert grey.train_x.shape == (33, 784) and grey.test_x.shape == (12, 784)
    for part, x, y, planes in (
        (TRAIN, grey.train_x, grey.train_y, colour.train_x),
        (TEST, grey.test_x, grey.test_y, colour.test_x),
    ):
        images, labels = house_numbers.draw(0, len(y), seed=house_numbers.SEED, part=part, glyphs=drawn)
        np.testing.assert_array_equal(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), images)
        np.testing.assert_array_equal(x, grey_rows(images))
        np.testing.assert_array_equal(y, labels)


def test_photographs_are_the_ground_and_each_part_has_its_own(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def photographs(notify: object) -> Arrays:
        red = np.repeat(np.array([[200, 20, 20]], np.uint8), 1024, axis=1)  # 200 everywhere in red, 20 elsewhere
        classes = np.zeros(1, np.uint8)
        return Arrays(red, classes, np.roll(red, 2048, axis=1), classes)  # the test part's is blue

    monkeypatch.setattr(house_numbers.cifar, "load_jpeg75", photographs)
    seen: list[np.ndarray] = []
    found = house_numbers.load(quiet, view=lambda x: seen.append(x) or grey_rows(x), on_photographs=True)
    assert found.train_x.shape == (33, 784) and found.test_x.shape == (12, 784)
    train, test = (np.median(images, axis=(1, 2)) for images in seen)
    assert (train[:, 0] > train[:, 2]).mean() > 0.8 and (test[:, 2] > test[:, 0]).mean() > 0.8


def test_what_is_needed_and_what_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    names = [f"synthetic-house-numbers{variant}" for variant in ("", "-rgb", "-cifar")]
    assert [datasets.state(name) for name in names] == ["present", "present", "not available here"]
    with pytest.raises(DataError, match="cifar10_jpeg75.npz must be in the folder"):
        datasets.load(names[2])
