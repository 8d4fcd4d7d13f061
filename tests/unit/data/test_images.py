"""Grey levels, sizes and JPEG, against numbers by hand and PyTorch's own interpolation."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ladder_search.data import images


def test_halving_and_enlarging_by_hand() -> None:
    # Centres 0.5 and 2.5 of the old pixels: each new pixel is the mean of two.
    row = np.array([[[0.0, 10.0, 20.0, 41.0]]])
    assert images.resized(row, 1, 2).tolist() == [[[5, 31]]]  # 30.5 is rounded up
    # Centres -0.25, 0.25, 0.75, 1.25: the outer ones repeat the edge.
    assert images.resized(np.array([[[0.0, 100.0]]]), 1, 4).tolist() == [[[0, 25, 75, 100]]]
    assert images.resized(np.array([[[0.0], [100.0]]]), 4, 1).tolist() == [[[0], [25], [75], [100]]]
    # The unit: 16 levels of 255 each.
    assert images.resized(np.array([[[8.0 * 255]]]), 1, 1, 16).tolist() == [[[128]]]  # 127.5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 16), (8, 8), (32, 20), (28, 28)])
def test_sizes_are_pytorchs_bilinear_ones(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    found = np.random.default_rng(0).integers(0, 256, (50, height, width), np.uint8)
    tensor = torch.tensor(found[:, None], dtype=torch.float64)
    expected = torch.nn.functional.interpolate(tensor, size=(28, 28), mode="bilinear")[:, 0].numpy()
    rows = images.grey_rows(found)
    assert rows.shape == (50, 784) and rows.dtype == np.uint8
    # Where PyTorch's sum lies on a half to the last bit, either neighbour is right.
    assert np.abs(rows.reshape(50, 28, 28) - expected).max() <= 0.5 + 1e-9
    assert np.array_equal(rows, np.floor(expected + 0.5).reshape(50, -1).astype(np.uint8)) or height != 28


def test_luminance_by_hand() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30], [0, 0, 0]], np.uint8)
    pictures = np.broadcast_to(colours[:, None, None], (6, 32, 32, 3))
    rows = images.grey_rows(pictures)
    # 0.2989 * 255 = 76.2; 0.5870 * 255 = 149.7; 0.1140 * 255 = 29.1; 0.9999 * 255 = 254.97; 2.989 + 11.74 + 3.42 = 18.1
    assert rows[:, 0].tolist() == [76, 150, 29, 255, 18, 0]
    assert (rows == rows[:, :1]).all()


def test_luminance_comes_before_the_size_and_is_rounded_once() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (9, 32, 32, 3), np.uint8)
    torch = pytest.importorskip("torch")
    grey = pictures @ np.array([0.2989, 0.5870, 0.1140])
    expected = torch.nn.functional.interpolate(torch.tensor(grey[:, None]), size=(28, 28), mode="bilinear")
    assert np.abs(images.grey_rows(pictures) - expected.flatten(1).numpy()).max() <= 0.5 + 1e-9


def test_many_images_are_the_same_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = np.random.default_rng(2).integers(0, 256, (7, 32, 32, 3), np.uint8)
    whole = images.grey_rows(pictures)
    monkeypatch.setattr(images, "CHUNK", 3)
    np.testing.assert_array_equal(images.grey_rows(pictures), whole)
    np.testing.assert_array_equal(images.grey_rows(pictures[4:5]), whole[4:5])


def test_channels_come_first() -> None:
    pictures = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    assert images.channels_first(pictures).tolist() == [
        [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11],
        [12, 15, 18, 21, 13, 16, 19, 22, 14, 17, 20, 23],
    ]


def stored(pictures: list[np.ndarray], **settings: int) -> tuple[np.ndarray, np.ndarray]:
    image = pytest.importorskip("PIL.Image")
    files = []
    for picture in pictures:
        file = io.BytesIO()
        image.fromarray(picture).save(file, "JPEG", quality=95, **settings)
        files.append(file.getvalue())
    offset = np.cumsum([0, *map(len, files)])
    return np.frombuffer(b"".join(files), np.uint8), offset


def test_jpeg_files_one_after_the_other() -> None:
    ramp = np.linspace(0, 255, 32 * 20).reshape(32, 20).astype(np.uint8)
    pictures = [np.stack([ramp, ramp.max() - ramp, ramp // 2], axis=-1), np.full((32, 20, 3), 200, np.uint8)]
    found = images.decoded(*stored(pictures, subsampling=0))
    assert found.shape == (2, 32, 20, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - pictures).max() <= 8  # quality 95 is lossy
