"""Textures for images of textured digits: sinusoids, and photographs of Brodatz's album.

The sinusoids are those of Tagger's authors (Greff et al. 2016): 20 plane waves on 38 x 38 pixels, with the authors'
frequencies and phases. The photographs are not part of this package; they are read from the user's folder.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.sources import DATA_VARIABLE, data_folder, read_verified
from ladder_search.errors import DataError

SIDE = 38
"""Side of a sinusoid texture; all frequencies are whole numbers of waves in it."""
DEPTH = 65_535
"""Brightest value of a sinusoid texture."""

_WAVES = (4, 10, 21, 32, 37)
"""Waves down."""
_ACROSS = (0, 4, 8, 12)
"""Waves across, to which the place of the waves down in ``_WAVES`` is added."""
_PHASES = 546298
"""The authors' seed of the phases."""

PHOTOGRAPH = 255
"""Brightest value of a photograph."""
FOLDER = "brodatz"
_EDGE, _STRIDE, _WHOLE = 16, 4, 640
"""Pixels cut off at each side, where some scans are uneven, and those averaged into one in each direction."""
HEIGHT = (_WHOLE - 2 * _EDGE) // _STRIDE
WIDTH = HEIGHT // 2
"""Size of a half of a photograph: left halves are for training, right ones for tests."""

BRODATZ = {
    "D4.gif": "d5259894de647d0f6a68abb25bd4ba993b02b7c8d1bdc9453f3e997c606a4c87",
    "D6.gif": "67abcbcd62e72678b1d4ae92facaf8a5bb41c6e65dc7d08bc8a6de70e9844c72",
    "D9.gif": "28fdc145937cc04dadb7bbea2bafc2bfd128964246e463edf967adc00003291d",
    "D16.gif": "e50ddc58419f6c1376011bff6cbd5778ccdd8dec8305ab7adc86b3a1455c5d8a",
    "D20.gif": "f9baee1972ce081f47e04a75c45d06629020f630f5d8427f0267f02490302dd9",
    "D21.gif": "d8f0890db61854730900c009e5eab2bc6ada9245a54f85fbbc50ae6cb326b153",
    "D24.gif": "feaafc9e70e6fc8b745c7e10164b9c0dc50b3ac8e982cc68525dedeb58b4e1c0",
    "D29.gif": "8a317ae948b350a3d0215b307d5d9f41e66f89adca00b9518bcf4897507101c4",
    "D37.gif": "d52a352d46e7cc3444d4cd2058558e35fba106a766c5e34c69fbba1882cbb473",
    "D49.gif": "335639d78b8d00dbd79ea0df8b4fd2b85516d1389d77211cf97ff23ce9f43eb7",
    "D52.gif": "d186b1903d6be904b9af6192f23e63bdc24b383d215243259ccab0a9e7c041af",
    "D53.gif": "63002f8d46beabe2b1df92b82a795d989f15e854cdd7eb469ba830e954ab9dfd",
    "D57.gif": "278149dac452753430b7dab88d0f1e00f1c941c39a3e0e4291c8157fa764e3be",
    "D65.gif": "da83d46baa049e1ddec8ab0136c1d36c4a7db372b33590151ff3c79293529a8e",
    "D68.gif": "c6cae1ba3a34bd5df6d34e25b18d1d7ff4f8b09b1c22c68d4220f60dd448274e",
    "D77.gif": "c0abf970a282157ad5f935c9b7bb98e3d41420a032704ed8ab58a99b8453b197",
    "D84.gif": "72c1054317b79be50a99410ba4fa7b1f57bea582f98ea8aba4ea34727aa043f4",
    "D92.gif": "b2b6e58f0d57de9f60d0fc2e5f63bb26658be98be5a56295c5eafd2763751a20",
    "D103.gif": "4d6d815872f0b54604b9b3580e8d3d1f3cb2417fe4b74cf0c3b891fa3311a79e",
    "D112.gif": "13e79f97bdc8e9f8491e317d914307b2546b3b53196d9b109b78779a13f69291",
}
"""File of a photograph, named by its plate, and its sha256. Our choice of even ones; the paper does not name its 20."""


def waves() -> list[tuple[int, int]]:
    """Return the waves down and across of each sinusoid texture."""
    return [(down, across + place) for place, down in enumerate(_WAVES) for across in _ACROSS]


def sinusoids() -> NDArray[np.int64]:
    """Return the sinusoid textures, [20, 38, 38], each from 0 to ``DEPTH``."""
    phases = np.random.RandomState(_PHASES)  # NumPy guarantees its numbers
    place = np.arange(SIDE)
    textures = []
    for down, across in waves():
        turns = (down * place[:, None] + across * place) % SIDE / SIDE + phases.rand()
        texture = np.cos(2 * np.pi * turns)
        low, high = texture.min(), texture.max()
        textures.append(np.rint(DEPTH * (texture - low) / (high - low)))
    return np.stack(textures).astype(np.int64)


def has_photographs() -> bool:
    """Return whether the user's folder has all photographs (not verified); raise ``DataError`` as ``data_folder``."""
    folder = data_folder()
    return folder is not None and all((folder / FOLDER / name).is_file() for name in BRODATZ)


def photographs() -> NDArray[np.int64]:
    """Return the halves of Brodatz's photographs, [2, 20, HEIGHT, WIDTH], each from 0 to ``PHOTOGRAPH``.

    A photograph is cut, averaged over squares of 4 pixels, and stretched so that the 1st and the 99th percentile become
    black and white. Raise ``DataError`` if the folder or a file is missing, or a file has other content.
    """
    folder = data_folder()
    if folder is None:
        raise DataError(
            f"Brodatz's textures are read from the folder {FOLDER} in {DATA_VARIABLE}, which is not set; set it to the "
            "folder that has them."
        )
    return _photographs(str(folder))


@lru_cache(maxsize=1)
def _photographs(folder: str) -> NDArray[np.int64]:
    from PIL import Image  # needed only for photographs

    halves = []
    for name, sha256 in BRODATZ.items():
        path = Path(folder) / FOLDER / name
        if not path.is_file():
            raise DataError(f"Brodatz's textures need the file {path}, it is not there; put it there.")
        with Image.open(io.BytesIO(read_verified(path, sha256=sha256)), formats=("GIF",)) as image:
            pixels = np.asarray(image.convert("L"), np.int64)
        cut = pixels[_EDGE : _WHOLE - _EDGE, _EDGE : _WHOLE - _EDGE]
        sums = cut.reshape(HEIGHT, _STRIDE, 2 * WIDTH, _STRIDE).sum((1, 3))
        ordered = np.sort(sums, axis=None)
        low, high = ordered[len(ordered) // 100], ordered[len(ordered) - 1 - len(ordered) // 100]
        stretched = np.clip((sums - low) * PHOTOGRAPH // (high - low), 0, PHOTOGRAPH)
        halves.append([stretched[:, :WIDTH], stretched[:, WIDTH:]])
    return np.array(halves).transpose(1, 0, 2, 3).copy()
