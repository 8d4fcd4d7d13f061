"""The four arrays of a data set, and the digest of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Notify = Callable[[str], None]
"""Called with one line of progress or warning."""


class Arrays(NamedTuple):
    """Training and test part of a data set, in its canonical order."""

    train_x: NDArray[Any]  # [n_train, *shape]
    train_y: NDArray[np.integer]  # [n_train], classes 0..n_classes-1
    test_x: NDArray[Any]  # [n_test, *shape]
    test_y: NDArray[np.integer]  # [n_test]


def quiet(line: str) -> None:
    """Ignore a line of progress; the default ``notify``."""


def content_digest(arrays: Arrays) -> str:
    """Return the sha256 (hex) over name, type, shape and bytes of the four arrays, in the order of ``Arrays``. MNIST
    (55 MB) takes about 30 ms on a server core, so every load computes it."""
    sha = hashlib.sha256()
    for name, array in zip(Arrays._fields, arrays, strict=True):
        sha.update(f"{name} {array.dtype.str} {'x'.join(map(str, array.shape))}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
