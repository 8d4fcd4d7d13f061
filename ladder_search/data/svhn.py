"""SVHN, format 2: crops of house numbers, 32 x 32 in colour, by Netzer et al. 2011. For non-commercial use only.

Three files contain 73,257 training images, 26,032 test images and 531,131 easier "extra" images. In a file the array X
is [32, 32, 3, n] (row, column, colour, image) and y is [n, 1], 1..10, where 10 means the digit 0.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.images import View, grey_rows
from ladder_search.data.sources import data_folder, fetch_verified, find_file, read_verified

OFFICIAL = "http://ufldl.stanford.edu/housenumbers"
"""Address of the authors. Plain http, so content is verified by its sha256 before it is opened."""

TRAIN, TEST, EXTRA = "train_32x32.mat", "test_32x32.mat", "extra_32x32.mat"
FILES = {
    # file: (bytes, sha256)
    TRAIN: (182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    TEST: (64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
    EXTRA: (1_329_278_602, "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3"),
}
FOLDERS = ("", "svhn", "SVHN", "svhn_cropped", "digits")
"""Folders below the user's folder."""


def load(notify: Notify, *, view: View = grey_rows, train: Sequence[str] = (TRAIN,)) -> Arrays:
    """Return SVHN, [73257, d] and [26032, d], with ``train`` files as training images; raise ``DataError`` if a file is
    not available, or has other content. Reading the extra file takes about 5 GB of memory."""
    rows, labels = [], []
    for file in (*train, TEST):
        images, y = _part(file, notify)
        rows.append(view(images))
        labels.append(y)
    return Arrays(np.concatenate(rows[:-1]), np.concatenate(labels[:-1]), rows[-1], labels[-1])


def is_local(*files: str) -> bool:
    """Return whether the user's folder has all ``files``; contents are not verified. Raise ``DataError`` if
    ``LADDER_SEARCH_DATA`` does not name a folder."""
    folder = data_folder()
    return folder is not None and all(find_file(folder, FOLDERS, file) for file in files)


def read_mat(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images uint8 [n, 32, 32, 3] and the digits uint8 [n], 0..9, of a verified file."""
    from scipy.io import loadmat  # takes a quarter of a second, so it is imported on use

    variables = loadmat(io.BytesIO(content), variable_names=("X", "y"))
    return variables["X"].transpose(3, 0, 1, 2), (variables["y"].ravel() % 10).astype(np.uint8)


def _part(file: str, notify: Notify) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images and digits of one of the ``FILES``, from the user's folder or the official address."""
    size, sha256 = FILES[file]
    folder = data_folder()
    path = None if folder is None else find_file(folder, FOLDERS, file)
    if path is not None:
        return read_mat(read_verified(path, sha256=sha256))
    url = f"{OFFICIAL}/{file}"
    below = ", ".join(filter(None, FOLDERS))
    put = f"the file into a folder, or into one named {below} in it,"
    content = fetch_verified(url, size=size, sha256=sha256, needed=f"SVHN needs {file}", put=put, notify=notify)
    return read_mat(content)
