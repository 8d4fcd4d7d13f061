"""SVHN from files of its format: a generated one, and one made of 50 real crops."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ladder_search.data import datasets, sources, svhn
from ladder_search.data.arrays import quiet
from ladder_search.data.images import channels_first, grey_rows
from ladder_search.errors import DataError

scipy_io = pytest.importorskip("scipy.io")
REAL = "digits/svhn_sample50_32x32.npz"
SAMPLE = sources.find_file(Path(os.environ.get("LADDER_SEARCH_DATA", "/")), ("",), REAL)
RANDOM = np.random.default_rng(0)


def mat(x: np.ndarray, y: np.ndarray) -> bytes:
    """A file as the official ones are: MATLAB v5, compressed."""
    file = io.BytesIO()
    scipy_io.savemat(file, {"X": x, "y": y}, do_compression=True)
    return file.getvalue()


def some(n: int) -> tuple[np.ndarray, np.ndarray]:
    """X uint8 [32, 32, 3, n] and y uint8 [n, 1] with every label in turn."""
    return RANDOM.integers(0, 256, (32, 32, 3, n), np.uint8), (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]


PARTS = {svhn.TRAIN: some(23), svhn.TEST: some(11), svhn.EXTRA: some(12)}
CONTENTS = {file: mat(*arrays) for file, arrays in PARTS.items()}


@pytest.fixture(autouse=True)
def small_svhn(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in CONTENTS.items()}
    monkeypatch.setattr(svhn, "FILES", known)
    monkeypatch.setattr(svhn, "OFFICIAL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)


Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))

    def write(*files: str, below: str = "") -> Path:
        (tmp_path / below).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / below / file).write_bytes(CONTENTS[file])
        return tmp_path / below

    return write


def grey_by_hand(x: np.ndarray) -> np.ndarray:
    """The 784 grey levels of X, exact before they are rounded: float64 [n, 784]."""
    grey = np.einsum("hwcn,c->nhw", x.astype(np.float64), [0.2989, 0.5870, 0.1140])
    place = np.clip((np.arange(28) + 0.5) * 32 / 28 - 0.5, 0, 31)
    low = np.minimum(place.astype(int), 30)
    part = place - low
    rows = grey[:, low] * (1 - part)[:, None] + grey[:, low + 1] * part[:, None]
    both = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    return both.reshape(-1, 784)


def is_rounded(found: np.ndarray, exact: np.ndarray) -> bool:
    return found.dtype == np.uint8 and found.shape == exact.shape and bool(np.abs(found - exact).max() <= 0.5 + 1e-9)


@pytest.mark.parametrize("below", svhn.FOLDERS)
def test_grey_images_from_the_users_folder(put: Put, below: str) -> None:
    put(svhn.TRAIN, svhn.TEST, below=below)
    assert svhn.is_local(svhn.TRAIN, svhn.TEST) and not svhn.is_local(svhn.TRAIN, svhn.TEST, svhn.EXTRA)
    found = svhn.load(quiet)
    assert is_rounded(found.train_x, grey_by_hand(PARTS[svhn.TRAIN][0]))
    assert is_rounded(found.test_x, grey_by_hand(PARTS[svhn.TEST][0]))
    assert found.train_y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2 + [1, 2, 3]
    assert found.test_y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert found.test_y.dtype == np.uint8


def test_a_flat_colour_by_hand() -> None:
    x = np.empty((32, 32, 3, 2), np.uint8)
    x[..., 0] = [200, 100, 50]
    x[..., 1] = 255
    images, digits = svhn.read_mat(mat(x, np.array([[10], [7]], np.uint8)))
    assert digits.tolist() == [0, 7]
    assert images.shape == (2, 32, 32, 3) and images[0, 5, 9].tolist() == [200, 100, 50]
    # 0.2989 * 200 + 0.5870 * 100 + 0.1140 * 50 = 59.78 + 58.7 + 5.7 = 124.18
    assert [set(row) for row in grey_rows(images).tolist()] == [{124}, {255}]


def test_the_images_stand_upright(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((32, 32, 3, 1), np.uint8)
    x[:16, :, :, 0] = 255  # the upper half, first axis
    content = mat(x, np.array([[4]], np.uint8))
    monkeypatch.setitem(CONTENTS, svhn.TRAIN, content)
    monkeypatch.setitem(svhn.FILES, svhn.TRAIN, (len(content), hashlib.sha256(content).hexdigest()))
    put(svhn.TRAIN, svhn.TEST)
    picture = svhn.load(quiet).train_x.reshape(28, 28)
    assert (picture[:13] == 255).all() and (picture[15:] == 0).all()
    colours = svhn.load(quiet, view=channels_first).train_x.reshape(3, 32, 32)
    assert (colours[:, :16] == 255).all() and (colours[:, 16:] == 0).all()


def test_colours_are_one_plane_after_the_other(put: Put) -> None:
    put(svhn.TRAIN, svhn.TEST)
    found = svhn.load(quiet, view=channels_first)
    x = PARTS[svhn.TRAIN][0]
    expected = np.stack([np.concatenate([x[:, :, c, i].ravel() for c in range(3)]) for i in range(23)])
    np.testing.assert_array_equal(found.train_x, expected, strict=True)
    assert found.test_x.shape == (11, 3072)


def test_the_extra_images_come_behind_the_training_images(put: Put) -> None:
    put(svhn.TRAIN, svhn.TEST, svhn.EXTRA)
    assert svhn.is_local(svhn.TRAIN, svhn.TEST, svhn.EXTRA)
    found = svhn.load(quiet, train=(svhn.TRAIN, svhn.EXTRA))
    both = np.concatenate([grey_by_hand(PARTS[file][0]) for file in (svhn.TRAIN, svhn.EXTRA)])
    assert is_rounded(found.train_x, both) and is_rounded(found.test_x, grey_by_hand(PARTS[svhn.TEST][0]))
    assert len(found.train_y) == 35 and found.train_y[23:].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


def test_what_the_folder_lacks_is_fetched(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(svhn.TEST)
    asked: list[tuple[str, int]] = []

    def fetch(url: str, at_most: int) -> bytes:
        asked.append((url, at_most))
        return CONTENTS[svhn.TRAIN]

    monkeypatch.setattr(sources, "fetch", fetch)
    lines: list[str] = []
    assert len(svhn.load(lines.append).train_y) == 23
    assert asked == [("http://127.0.0.1:9/train_32x32.mat", len(CONTENTS[svhn.TRAIN]))]
    assert lines == ["fetching http://127.0.0.1:9/train_32x32.mat (0.1 MB)"]


def test_a_wrong_answer_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: b"<html>please log in</html>")
    monkeypatch.setattr(svhn, "read_mat", lambda *a: pytest.fail("must not be opened"))
    with pytest.raises(DataError, match=r"9/train_32x32.mat must have the sha256 \w{64}, found \w{64}; get the file"):
        svhn.load(quiet)


def test_a_wrong_file_is_refused_before_it_is_opened(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(svhn.TRAIN, svhn.TEST)
    (folder / svhn.TRAIN).write_bytes(CONTENTS[svhn.TEST])
    monkeypatch.setattr(svhn, "read_mat", lambda *a: pytest.fail("must not be opened"))
    with pytest.raises(DataError, match=r"train_32x32.mat must have the sha256 \w{64}, found \w{64}; get the file"):
        svhn.load(quiet)


def test_when_nothing_has_it_the_remedy_is_told() -> None:
    with pytest.raises(DataError) as raised:
        svhn.load(quiet)
    text = str(raised.value)
    assert text.startswith("SVHN needs train_32x32.mat: http://127.0.0.1:9/train_32x32.mat cannot be fetched (")
    assert text.endswith(
        "put the file into a folder, or into one named svhn, SVHN, svhn_cropped, digits in it, and set "
        "LADDER_SEARCH_DATA to it."
    )
    assert "\n" not in text


def test_a_file_that_may_not_be_read(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put(svhn.TRAIN, svhn.TEST)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"train_32x32.mat must be readable, it is not \(.*\); change its permissions"):
        svhn.load(quiet)


@pytest.mark.skipif(SAMPLE is None, reason=f"LADDER_SEARCH_DATA has no {REAL}")
def test_fifty_real_crops(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SAMPLE is not None
    with np.load(SAMPLE) as file:
        images, digits = file["image"], file["label"]
    x, y = images.transpose(1, 2, 3, 0), np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    content = mat(x, y)
    for file in (svhn.TRAIN, svhn.TEST):
        monkeypatch.setitem(CONTENTS, file, content)
        monkeypatch.setitem(svhn.FILES, file, (len(content), hashlib.sha256(content).hexdigest()))
    put(svhn.TRAIN, svhn.TEST)
    found = svhn.load(quiet)
    assert np.bincount(found.train_y).tolist() == [6, 4, 7, 4, 5, 6, 4, 4, 4, 6]
    assert found.train_y.tolist() == digits.tolist()
    assert is_rounded(found.train_x, grey_by_hand(x))
    colours = svhn.load(quiet, view=channels_first).test_x.reshape(50, 3, 32, 32)
    np.testing.assert_array_equal(colours.transpose(0, 2, 3, 1), images)


def test_the_state_of_every_row(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    assert [datasets.state(name) for name in ("svhn", "svhn-rgb", "svhn-extra")] == ["can be fetched"] * 3
    put(svhn.TRAIN, svhn.TEST)
    states = [datasets.state(name) for name in ("svhn", "svhn-rgb", "svhn-extra")]
    assert states == ["present", "present", "can be fetched"]


def test_a_load_is_cached_with_its_digest(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    put(svhn.TRAIN, svhn.TEST)
    first = datasets.load("svhn")
    monkeypatch.delenv("LADDER_SEARCH_DATA")
    again = datasets.load("svhn")
    assert again.digest == first.digest and is_rounded(again.train_x, grey_by_hand(PARTS[svhn.TRAIN][0]))
