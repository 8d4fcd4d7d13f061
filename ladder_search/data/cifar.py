"""CIFAR-10: 50,000 + 10,000 photographs, 32 x 32 in colour, by Krizhevsky 2009.

Classes 0..9: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck. Rows are as the official files have
them: 1,024 bytes of red, then green, then blue, each row by row of the picture.
"""

from __future__ import annotations

import io
import tarfile
import zlib

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.images import channels_first, decoded
from ladder_search.data.sources import (
    DATA_VARIABLE,
    check_sha256,
    data_folder,
    fetch,
    find_file,
    read_arrays,
    read_verified,
)
from ladder_search.errors import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
"""The binary version; the other official ones are pickles and MATLAB files of the same bytes."""

OFFICIAL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
SIZE = 170_052_171
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDERS = ("", "cifar10", "CIFAR10")
"""Below the user's folder."""

MEMBERS = tuple(
    f"cifar-10-batches-bin/{part}.bin" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
ROW = 1 + 3 * 32 * 32
"""Bytes of an image: its class, then its pixels."""

JPEG75 = "cifar10/cifar10_jpeg75.npz"
JPEG75_SHA256 = "0cf37e1ca7276942ee968b04b80b2abafe60324fa66c4542234e13d13fdae11a"


def load(notify: Notify) -> Arrays:
    """Return CIFAR-10: uint8 [50000, 3072] and [10000, 3072].

    Raises:
        DataError: the archive is neither in the user's folder nor can be fetched, or it is another one.
    """
    folder = data_folder()
    path = None if folder is None else find_file(folder, FOLDERS, ARCHIVE)
    if path is not None:
        return from_archive(str(path), read_verified(path, sha256=SHA256))
    notify(f"fetching {OFFICIAL} ({SIZE / 1e6:.0f} MB)")
    try:
        content = fetch(OFFICIAL, at_most=SIZE)
    except DataError as error:
        raise DataError(
            f"CIFAR-10 needs {ARCHIVE}: {error}; restore the network, or put the file into a folder and set "
            f"{DATA_VARIABLE} to it."
        ) from error
    check_sha256(OFFICIAL, content, SHA256)
    return from_archive(OFFICIAL, content)


def load_jpeg75(notify: Notify) -> Arrays:
    """Return CIFAR-10 after JPEG of quality 75, in the official order: uint8 [50000, 3072] and [10000, 3072].

    The median signal-to-noise ratio against the official pixels is 30.5 dB, so errors are not those of CIFAR-10.

    Raises:
        DataError: the file is absent or another one, or Pillow is not installed.
    """
    content = read_arrays(JPEG75, JPEG75_SHA256)
    train_x, test_x = (
        channels_first(decoded(JPEG75, content[f"{part}_jpeg"], content[f"{part}_offset"]))
        for part in ("train", "test")
    )
    return Arrays(train_x, content["train_label"], test_x, content["test_label"])


def is_local() -> bool:
    """Tell whether the user's folder has the archive; its content is not verified.

    Raises:
        DataError: ``LADDER_SEARCH_DATA`` names no folder.
    """
    folder = data_folder()
    return folder is not None and find_file(folder, FOLDERS, ARCHIVE) is not None


def from_archive(what: str, content: bytes) -> Arrays:
    """Read the archive without unpacking it onto the disk.

    Raises:
        DataError: it is not CIFAR-10's binary version.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            batches = [_batch(archive, member) for member in MEMBERS]
    except (tarfile.TarError, KeyError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{what} must hold {', '.join(MEMBERS)} ({error}); get the file again.") from error
    train, test = np.concatenate(batches[:-1]), batches[-1]
    return Arrays(train[:, 1:].copy(), train[:, 0].copy(), test[:, 1:].copy(), test[:, 0].copy())


def _batch(archive: tarfile.TarFile, member: str) -> NDArray[np.uint8]:
    """Return one file of the archive: uint8 [n, 3073]."""
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member} is no file")
    return np.frombuffer(file.read(), np.uint8).reshape(-1, ROW)
