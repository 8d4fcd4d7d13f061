"""Other digits, each in one file of arrays in the user's folder: meter digits, Chars74K, USPS.

Meter digits and Chars74K are colour photographs with parts of neighbouring digits. They replace SVHN as the target of a
transfer from MNIST; results on them are not results on SVHN.
"""

from __future__ import annotations

import numpy as np

from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.images import View, decoded, grey_rows
from ladder_search.data.sources import read_arrays

METER_DIGITS = "digits/meter_digits_20x32.npz"
CHARS74K = "digits/chars74k_digits_32x32.npz"
USPS = "digits/usps_16x16.npz"
"""Paths below the folder ``LADDER_SEARCH_DATA``."""

SHA256 = {
    METER_DIGITS: "bc2fcbca0b4da8be5f6c7f32acd2fac1a0ed724f37dedfdb7a3596e2aa2344cc",
    CHARS74K: "f0556e72bdef89cd846135432cc6505581ea2c5fe52a08fba23dd2d46343d899",
    USPS: "c00451d081028e2d6a1c9302aaf7898e576e8a35802ef35c86d6915d9b6c3f86",
}


def load_meter_digits(notify: Notify, *, view: View = grey_rows) -> Arrays:
    """Return the meter digits, [8286, d] and [2077, d], in the split of the file; raise ``DataError`` if the file is
    missing or has other content.

    The pictures are 32 high and 20 wide; the edge columns are repeated six times on each side. This keeps the
    proportions of digits as in MNIST and SVHN, without an edge; stretched digits would be 1.6 times as broad.
    """
    content = read_arrays(METER_DIGITS, SHA256[METER_DIGITS])
    narrow = decoded(content["jpeg"], content["offset"])
    x = view(np.pad(narrow, ((0, 0), (0, 0), (6, 6), (0, 0)), mode="edge"))
    y, train = content["label"], content["split"] == 0
    return Arrays(x[train], y[train], x[~train], y[~train])


def load_chars74k(notify: Notify) -> Arrays:
    """Return the digits of Chars74K in grey: uint8 [708, 784] and [177, 784], in the split of the file; raise
    ``DataError`` if the file is missing or has other content."""
    content = read_arrays(CHARS74K, SHA256[CHARS74K])
    x, y, train = grey_rows(content["image"]), content["label"], content["split"] == 0
    return Arrays(x[train], y[train], x[~train], y[~train])


def load_usps(notify: Notify) -> Arrays:
    """Return USPS, enlarged: uint8 [7291, 784] and [2007, 784], the official split.

    Like MNIST, the file has bright strokes on black over the range 0..255, so grey levels are unchanged. Its digits
    fill all 16 x 16 pixels, so that at 28 x 28 they are larger than MNIST's, which have a margin of four; this is usual
    for transfers between the two. Raise ``DataError`` if the file is missing or has other content.
    """
    content = read_arrays(USPS, SHA256[USPS])
    train_x, test_x = (grey_rows(content[f"{part}_image"]) for part in ("train", "test"))
    return Arrays(train_x, content["train_label"], test_x, content["test_label"])
