"""Conversion of photographs to rows of grey levels: JPEG decoding, luminance, bilinear resizing.

Luminance and sizes are computed in integers below 2**53, which float64 represents exactly, so that the result does not
depend on the machine's order of summation.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LUMINANCE = (2989, 5870, 1140)
"""Weights of red, green and blue in 1/10,000 (ITU-R BT.601 to four digits); white becomes 254.97."""
LUMINANCE_UNIT = 10_000

SIDE = 28
"""Height and width of all grey images, those of MNIST, so that one network can process all of them."""

CHUNK = 4096
"""Images per chunk, about 30 MB of float64 for each step."""


View = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Conversion of colour images to rows, ``grey_rows`` or ``channels_first``: uint8 [n, h, w, 3] -> [n, d]."""


def grey_rows(images: NDArray[np.unsignedinteger], unit: int = 1) -> NDArray[np.uint8]:
    """Return grey rows of 28 x 28 pixels, uint8 [n, 784], of integer images [n, height, width] or [n, height, width,
    3]; ``unit`` is the size of one of 255 grey levels in ``images``."""
    rows = np.empty((len(images), SIDE * SIDE), np.uint8)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK].astype(np.float64)
        if part.ndim == 4:
            part, scale = part @ np.array(LUMINANCE, np.float64), unit * LUMINANCE_UNIT
        else:
            scale = unit
        rows[start : start + CHUNK] = resized(part, SIDE, SIDE, scale).reshape(len(part), -1)
    return rows


def resized(images: NDArray[np.float64], height: int, width: int, unit: int = 1) -> NDArray[np.uint8]:
    """Resize images to uint8 [n, height, width] by bilinear interpolation between pixel centres, rounding halves up.

    The outermost half pixel repeats the edge. There is no smoothing, so shrink by less than half only. ``images`` are
    integers [n, h, w] from 0 to 255 * unit.
    """
    down, across = _weights(images.shape[1], height), _weights(images.shape[2], width)
    scale = unit * 2 * height * 2 * width
    levels: NDArray[np.float64] = np.floor((down @ images @ across.T + scale // 2) / scale)
    return levels.astype(np.uint8)


def channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images [n, height, width, 3] as rows of colour planes: uint8 [n, 3 * height * width]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def decoded(jpeg: NDArray[np.uint8], offset: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode concatenated JPEG files of equal size to uint8 [n, height, width, 3].

    Image i is ``jpeg[offset[i] : offset[i + 1]]``; releases of Pillow may differ by a grey level or two.
    """
    from PIL import Image  # needed only for photographs

    images = []
    for start, end in itertools.pairwise(offset):
        with Image.open(io.BytesIO(jpeg[start:end].tobytes()), formats=("JPEG",)) as image:
            images.append(np.asarray(image.convert("RGB")))
    return np.stack(images)


def _weights(n: int, m: int) -> NDArray[np.float64]:
    """Return the weights of ``n`` pixels in ``m`` new ones, in units of 1 / (2 m): integers [m, n]."""
    # The centre of new pixel i lies at (i + 1/2) n/m - 1/2 old pixels, an integer when multiplied by 2 m.
    place = np.clip((2 * np.arange(m) + 1) * n - m, 0, 2 * m * (n - 1))
    low, part = np.divmod(place, 2 * m)
    weights = np.zeros((m, n))
    weights[np.arange(m), low] = 2 * m - part
    weights[np.arange(m), np.minimum(low + 1, n - 1)] += part
    return weights
