"""Digits: the 1,797 images of scikit-learn, 8 x 8 pixels with 17 grey levels, plain or enlarged to MNIST's format."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.images import grey_rows

N_TEST = 500
BRIGHTEST = 16


def load(notify: Notify) -> Arrays:
    """Return the digits in a fixed split: images uint8 [1297, 64] and [500, 64] with values 0..16."""
    from sklearn.datasets import load_digits  # takes a second, so it is imported on use

    images, labels = load_digits(return_X_y=True)
    train, test = split_rows(labels)
    x, y = images.astype(np.uint8), labels.astype(np.uint8)
    return Arrays(x[train], y[train], x[test], y[test])


def load_28(notify: Notify) -> Arrays:
    """Return the digits in the same split, bilinearly enlarged to 28 x 28 pixels: uint8 [n, 784] with values 0..255.
    They replace MNIST as a source of networks of its width where MNIST is not available."""
    small = load(notify)
    train_x, test_x = (
        grey_rows(x.astype(np.uint16).reshape(-1, 8, 8) * 255, unit=BRIGHTEST) for x in (small.train_x, small.test_x)
    )
    return small._replace(train_x=train_x, test_x=test_x)


def split_rows(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the training part, int64 [1297], and of the test part, int64 [500], both ascending.

    The data set has no official split; this one is ours. Rows are ordered by the sha256 of the texts "digits 0",
    "digits 1", ... The first rows of each class in that order form the test part: the class's share of 500, rounded
    down, plus one for the classes with the largest remainders (the smaller class first when equal) until there are 500.
    """
    order = np.array(sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"digits {row}".encode()).digest()))
    shares, remainders = np.divmod(np.bincount(labels) * N_TEST, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: N_TEST - shares.sum()]] += 1
    rank = np.empty(len(labels), np.int64)  # rank within its class of each position of the order
    for c, of_class in ((c, labels[order] == c) for c in range(len(shares))):
        rank[of_class] = np.arange(of_class.sum()) - shares[c]
    return np.sort(order[rank >= 0]), np.sort(order[rank < 0])
