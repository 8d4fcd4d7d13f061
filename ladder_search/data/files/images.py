"""Images of files as rows of pixels: decoding by Pillow, one size, grey or colour, channels first."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ladder_search.data.files.place import first_line
from ladder_search.data.files.rows import tensor_shape
from ladder_search.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image  # imported on use, because data without images need no Pillow

GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("RGB", "RGBA", "P", "CMYK", "YCbCr", "PA", "HSV", "LAB")
FULL_SCALE = 255.0
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
"""Orientations of EXIF that exchange width and height."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """Size and number of colours of all images of a column."""

    channels: int
    height: int
    width: int

    @property
    def inputs(self) -> int:
        return self.channels * self.height * self.width


class Survey:
    """Finds the format of images from their headers: ``add`` is called with every batch, ``result`` at the end."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._first: tuple[int, int] | None = None
        self._first_name = ""
        self._grey = self._colour = ""
        self.rows = 0

    def add(self, column: Any) -> None:
        """Note the images of a column; raise ``DataError`` if one is damaged, missing, or has another size."""
        shape = tensor_shape(column.type)
        if shape is not None:
            channels, height, width = _planes(shape)
            self._note((width, height), "RGB" if channels == 3 else "L", f"image {self.rows + 1}")
            self.rows += len(column)
            return
        for content, name in _files(column, self.rows):
            with _opened(content, name) as image:
                size = image.size
                if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
                    size = size[1], size[0]
                self._note(size, image.mode, name)
        self.rows += len(column)

    def _note(self, size: tuple[int, int], mode: str, name: str) -> None:
        if mode in GREY_MODES:
            self._grey = self._grey or name
        elif mode in COLOUR_MODES:
            self._colour = self._colour or name
        else:
            raise DataError(f"images have 8 bits per colour, {name} has the mode {mode}; convert it to grey or RGB.")
        if self._first is None:
            self._first, self._first_name = size, name
        elif size != self._first and self._size is None:
            raise DataError(
                f"images must have one size, {self._first_name} has {self._first[0]} x {self._first[1]} pixels and "
                f"{name} has {size[0]} x {size[1]}; set data.image_size to the side to which all are resized."
            )

    def result(self) -> tuple[ImageFormat, list[str]]:
        """Return the common format and notes; grey images become colour images if there are any of these."""
        assert self._first is not None, "there are rows"
        channels = 3 if self._colour else 1
        width, height = self._first if self._size is None else (self._size, self._size)
        notes = []
        if self._colour and self._grey:
            notes.append(
                f"images in grey are read as colour images, because there are both: {self._grey} and {self._colour}"
            )
        return ImageFormat(channels, height, width), notes


def pixels(column: Any, format_: ImageFormat, start: int = 0, *, resize: bool = False) -> NDArray[np.uint8]:
    """Return rows of pixels, uint8 [n, channels * height * width], colour planes one after the other.

    Args:
        column: Arrow array of files of images, or of unsigned bytes [height, width], with channels first or last.
        format_: format of the result.
        start: number of the first row, for messages.
        resize: resize images of other sizes.

    Raise ``DataError`` if an image is damaged, missing, or has another size.
    """
    shape = tensor_shape(column.type)
    if shape is not None:
        return _of_tensor(column, shape, format_, resize)
    from PIL import ImageOps

    rows = np.empty((len(column), format_.channels, format_.height, format_.width), np.uint8)
    target = (format_.width, format_.height)
    for row, (content, name) in zip(rows, _files(column, start), strict=True):
        with _opened(content, name) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise DataError(f"images have 8 bits per colour, {name} has the mode {image.mode}; convert it.")
            row[:] = _planes_of(image, format_.channels, target, name, resize)
    return rows.reshape(len(rows), -1)


def _planes_of(image: Image, channels: int, size: tuple[int, int], name: str, resize: bool) -> NDArray[np.uint8]:
    from PIL.Image import Resampling

    image = image.convert("RGB" if channels == 3 else "L")
    if image.size != size:
        if not resize:
            raise DataError(
                f"images must have {size[0]} x {size[1]} pixels, {name} has {image.size[0]} x {image.size[1]}; resize "
                "it."
            )
        image = image.resize(size, Resampling.BILINEAR)
    values = np.asarray(image)
    return values.transpose(2, 0, 1) if channels == 3 else values[None]


def _of_tensor(column: Any, shape: tuple[int, ...], format_: ImageFormat, resize: bool) -> NDArray[np.uint8]:
    values = column.to_numpy_ndarray() if len(column) else np.empty((0, *shape), np.uint8)
    channels, height, width = _planes(shape)
    if len(shape) == 3 and shape[2] in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    values = values.reshape(len(values), channels, height, width)
    if (height, width) != (format_.height, format_.width) or channels > format_.channels:
        if not resize:
            raise DataError(
                f"images must have {format_.channels} x {format_.height} x {format_.width} numbers, got "
                f"{channels} x {height} x {width}; resize them."
            )
        from PIL.Image import fromarray

        size = (format_.width, format_.height)
        resized = [
            _planes_of(fromarray(one[0] if channels == 1 else one.transpose(1, 2, 0)), format_.channels, size, "", True)
            for one in values
        ]
        values = np.stack(resized)
    elif channels < format_.channels:
        values = np.broadcast_to(values, (len(values), format_.channels, height, width))
    return np.ascontiguousarray(values).reshape(len(values), -1)


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width of images of unsigned bytes."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[2], shape[0], shape[1]
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape[0], shape[1], shape[2]
    raise DataError(
        f"images are arrays of height x width, with 1 or 3 colours first or last, got {' x '.join(map(str, shape))}; "
        "write them so."
    )


def _files(column: Any, start: int) -> Iterator[tuple[bytes, str]]:
    """Yield content and name of the images of a column of files."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    for number, value in enumerate(column, start + 1):
        item = value.as_py()
        content, path = (item.get("bytes"), item.get("path")) if isinstance(item, dict) else (item, None)
        name = path or f"image {number}"
        if not content:
            raise DataError(f"rows have an image each, {name} has no bytes; store images in the file.")
        yield content, name


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[Image]:
    """Yield an open image; raise ``DataError`` with its name if it is damaged, also on decoding."""
    from PIL.Image import DecompressionBombError
    from PIL.Image import open as open_image

    try:
        with open_image(io.BytesIO(content)) as image:
            yield image
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, DecompressionBombError) as error:
        reason = "no image that Pillow can read" if "cannot identify" in str(error) else first_line(error)
        raise DataError(f"images must be whole, {name} is not ({reason}); replace or remove it.") from error
