"""Meter digits, Chars74K and USPS from small files of the same layout, and the real ones where they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.data import datasets, sources, stand_ins
from ladder_search.data.arrays import quiet
from ladder_search.data.dataset import ABSENT
from ladder_search.data.images import channels_first
from ladder_search.errors import DataError

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Writes a file of arrays where the loader looks for it, with its checksum in place of the real one's."""
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))

    def write(file: str, **arrays: Any) -> Path:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **arrays)
        monkeypatch.setitem(stand_ins.SHA256, file, hashlib.sha256(path.read_bytes()).hexdigest())
        return path

    return write


def small_usps(put: Put, **changed: Any) -> Path:
    flat = {"train_image": np.full((3, 16, 16), 77, np.uint8), "test_image": np.full((2, 16, 16), 255, np.uint8)}
    labels = {"train_label": np.array([6, 0, 9], np.uint8), "test_label": np.array([1, 2], np.uint8)}
    return put(stand_ins.USPS, **(flat | labels | changed))


def test_usps_keeps_its_grey_levels_and_its_official_split(put: Put) -> None:
    image = np.zeros((3, 16, 16), np.uint8)
    image[0, :, 8:] = 200
    small_usps(put, train_image=image)
    found = stand_ins.load_usps(quiet)
    assert found.train_x.shape == (3, 784) and found.test_x.shape == (2, 784)
    assert (found.test_x == 255).all() and (found.train_x[1:] == 0).all()
    # The edge between columns 7 and 8 lies at 14 of 28: new column j has its centre at (j + 1/2) 16/28 - 1/2, so
    # column 13 is 3/14 of the way from 7 to 8 and column 14 is 11/14 of it.
    row = found.train_x[0].reshape(28, 28)[5].tolist()
    assert row == [0] * 13 + [43, 157] + [200] * 13
    assert found.train_y.tolist() == [6, 0, 9] and found.test_y.tolist() == [1, 2]


def test_chars74k_is_cut_by_the_files_own_split(put: Put) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (4, 32, 32, 3))
    put(
        stand_ins.CHARS74K,
        image=images,
        label=np.array([3, 1, 4, 5], np.uint8),
        split=np.array([0, 1, 0, 1], np.uint8),
        good=np.ones(4, np.uint8),
        name=np.array([b"a", b"b", b"c", b"d"]),
    )
    found = stand_ins.load_chars74k(quiet)
    assert found.train_x[:, 0].tolist() == [76, 29] and found.test_x[:, 0].tolist() == [150, 255]
    assert found.train_y.tolist() == [3, 4] and found.test_y.tolist() == [1, 5]
    assert found.train_x.shape == found.test_x.shape == (2, 784)


@pytest.fixture
def meters(put: Put) -> None:
    """Three pictures, 32 high and 20 wide: flat ones, and one whose left quarter is bright."""
    image = pytest.importorskip("PIL.Image")
    pictures = np.full((3, 32, 20, 3), 40, np.uint8)
    pictures[1, :, :8] = 240
    files = []
    for picture in pictures:
        file = io.BytesIO()
        image.fromarray(picture).save(file, "JPEG", quality=100, subsampling=0)
        files.append(file.getvalue())
    put(
        stand_ins.METER_DIGITS,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=np.array([7, 8, 9], np.uint8),
        split=np.array([0, 0, 1], np.uint8),
    )


def test_meter_digits_keep_their_proportions_and_have_no_frame(meters: None) -> None:
    found = stand_ins.load_meter_digits(quiet)
    assert found.train_x.shape == (2, 784) and found.test_x.shape == (1, 784)
    assert found.train_y.tolist() == [7, 8] and found.test_y.tolist() == [9]
    assert np.abs(found.train_x[0].astype(int) - 40).max() <= 2  # nothing but the picture's own grey, to the edges
    # 6 repeated columns and 8 bright ones of 32 make 12.25 of 28 new columns.
    row = found.train_x[1].reshape(28, 28)[14].astype(int)
    assert np.abs(row[:11] - 240).max() <= 3 and np.abs(row[14:] - 40).max() <= 3


def test_meter_digits_in_colour(meters: None) -> None:
    found = stand_ins.load_meter_digits(quiet, view=channels_first)
    assert found.train_x.shape == (2, 3072) and found.test_x.shape == (1, 3072)
    red = found.train_x[1, :1024].reshape(32, 32).astype(int)
    assert np.abs(red[:, :14] - 240).max() <= 3 and np.abs(red[:, 14:] - 40).max() <= 3


def test_without_the_folder_or_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)
    assert not sources.has_file(stand_ins.USPS)
    with pytest.raises(DataError, match="usps_16x16.npz is read from the folder LADDER_SEARCH_DATA, which is not set;"):
        stand_ins.load_usps(quiet)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"digits/usps_16x16.npz must be in the folder .*, it is not; put it there\."):
        stand_ins.load_usps(quiet)


def test_another_file_is_refused_before_it_is_opened(put: Put) -> None:
    path = small_usps(put)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(
        DataError, match=r"usps_16x16.npz must have the sha256 \w{64}, found \w{64}; get the file again"
    ):
        stand_ins.load_usps(quiet)


def test_a_file_of_other_things_than_arrays_is_refused(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_usps(put, train_image=np.array([object()]))
    with pytest.raises(DataError, match="must hold plain arrays, it does not"):
        stand_ins.load_usps(quiet)
    path.write_bytes(b"no archive")
    monkeypatch.setitem(stand_ins.SHA256, stand_ins.USPS, hashlib.sha256(b"no archive").hexdigest())
    with pytest.raises(DataError, match="must hold plain arrays, it does not"):
        stand_ins.load_usps(quiet)


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        (
            "usps",
            [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
            [359, 264, 198, 166, 200, 160, 170, 147, 166, 177],
        ),
        (
            "meter-digits",
            [988, 804, 952, 778, 797, 948, 815, 672, 844, 688],
            [248, 201, 239, 195, 200, 238, 204, 169, 211, 172],
        ),
        ("meter-digits-rgb", None, None),
        ("chars74k", [124, 102, 94, 58, 59, 65, 67, 48, 34, 57], [31, 26, 24, 14, 14, 16, 17, 13, 8, 14]),
    ],
)
def test_the_real_files(name: str, train: list[int] | None, test: list[int] | None) -> None:
    """Uses the user's own cache and folder."""
    if datasets.state(name) == ABSENT:
        pytest.skip(f"{name} not available here")
    found = datasets.load(name)
    assert found.train_x.shape[1] == found.test_x.shape[1] == (3072 if name.endswith("rgb") else 784)
    assert found.train_x.dtype == np.uint8 and found.train_x.max() > 250 and found.train_x.min() < 5
    if train is not None:
        assert np.bincount(found.train_y).tolist() == train and np.bincount(found.test_y).tolist() == test
