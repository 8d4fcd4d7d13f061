"""Rows of files as streams of Arrow record batches: what every format is read as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ladder_search.data.files.place import first_line
from ladder_search.data.files.values import plain
from ladder_search.errors import DataError

MOST_INPUTS = 200_000
"""Columns of a file and numbers of a row; a colour image of 256 x 256 pixels has 196,608."""
VALUES_AT_ONCE = 2_000_000
"""Values per batch, 16 MB in double precision."""
IMAGES_AT_ONCE = 256
IMAGE, TARGET = "image", "label"
"""Columns of data without names of columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A file or a folder as a table that can be read several times, batch by batch."""

    name: str
    """Path, for messages."""
    schema: Any
    """Arrow schema."""
    read: Callable[[Sequence[str]], Iterator[Any]]
    """Returns record batches of the columns with these names."""
    target: str | None = None
    """Column of the targets, for formats that define it."""
    test: Rows | None = None
    """Test rows, for formats that have them in the same file."""
    notes: tuple[str, ...] = field(default=())

    @property
    def columns(self) -> list[str]:
        return list(self.schema.names)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield record batches of ``columns``, all by default, in the order of the file; raise ``DataError`` if the
        file is damaged."""
        try:
            yield from self.read(self.columns if columns is None else columns)
        except (pa.ArrowException, OSError, ValueError, EOFError) as error:
            if isinstance(error, DataError):
                raise
            raise unreadable(self.name, error) from error


def unreadable(name: object, error: BaseException) -> DataError:
    return DataError(f"a file of data must be whole and {name} is not ({first_line(error)}); write or copy it again.")


def check_columns(names: Sequence[str], name: object) -> None:
    """Raise ``DataError`` unless there are columns, not too many, with different names."""
    if len(names) > MOST_INPUTS:
        raise DataError(
            f"data have at most {MOST_INPUTS:,} columns, {name} has {len(names):,}; reduce them, for example by "
            "a projection."
        )
    if not names:
        raise DataError(f"data need columns, {name} has none; write it again.")
    if len(set(names)) < len(names):
        double = next(one for one in names if list(names).count(one) > 1)
        raise DataError(f"columns need different names, {name} has {double!r} twice; rename one.")


def rows_at_once(schema: Any) -> int:
    """Return the number of rows per batch of a table of this schema."""
    if any(is_encoded_image(kind) for kind in schema.types):
        return IMAGES_AT_ONCE
    return max(1, min(16_384, VALUES_AT_ONCE // max(1, sum(_width(kind) for kind in schema.types))))


def is_encoded_image(kind: Any) -> bool:
    """Return whether a column has files of images: bytes, or ``{bytes, path}`` as dataset hubs write them."""
    if pa.types.is_struct(kind):
        return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def tensor_shape(kind: Any) -> tuple[int, ...] | None:
    """Return the shape of each value of a column of vectors, matrices or images; None for plain columns."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return tuple(kind.shape)
    if pa.types.is_fixed_size_list(kind):
        return (kind.list_size,)
    return None


def of_arrays(name: str, x: NDArray[Any], y: NDArray[Any] | None, *, target: str = TARGET) -> Rows:
    """Return arrays as rows.

    Args:
        x: examples, [n, ...]. Of two dimensions, each column becomes a column ``x0``, ``x1``, …; unsigned bytes of
            more become one column of images.
        y: targets, [n]; None: none.
    """
    fields, columns = _columns_of(name, x)
    if y is not None:
        if y.ndim != 1 or len(y) != len(x):
            raise DataError(
                f"targets are one number or text for each example, {name} has examples of shape {x.shape} and targets "
                f"of {y.shape}; write them again."
            )
        fields.append(pa.field(target, _arrow(name, y[:0]).type))
    schema = pa.schema(fields)

    def read(wanted: Sequence[str]) -> Iterator[Any]:
        step = rows_at_once(schema) if len(fields) > 2 else IMAGES_AT_ONCE
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            arrays = [_arrow(name, y[rows]) if n == target and y is not None else columns(n, rows) for n in wanted]
            yield pa.record_batch(arrays, schema=pa.schema([schema.field(n) for n in wanted]))

    return Rows(name=name, schema=schema, read=read, target=None if y is None else target)


def _columns_of(name: str, x: NDArray[Any]) -> tuple[list[Any], Callable[[str, slice], Any]]:
    if x.dtype.kind not in "biuf":
        raise DataError(f"examples are arrays of numbers, {name} has {x.dtype}; write them as numbers.")
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim > 2 and x.dtype == np.uint8:
        kind = pa.fixed_shape_tensor(pa.uint8(), x.shape[1:])

        def image(_: str, rows: slice) -> Any:
            part = np.ascontiguousarray(x[rows])
            return pa.FixedShapeTensorArray.from_numpy_ndarray(part) if len(part) else pa.array([], kind)

        return [pa.field(IMAGE, kind)], image
    flat = x.reshape(len(x), -1) if len(x) else x.reshape(0, int(np.prod(x.shape[1:])))
    if flat.shape[1] > MOST_INPUTS:
        check_columns(range(flat.shape[1]), name)  # type: ignore[arg-type]
    names = {f"x{i}": i for i in range(flat.shape[1])}
    native = flat.dtype.newbyteorder("=")
    kind = pa.bool_() if native.kind == "b" else pa.from_numpy_dtype(native)
    return [pa.field(n, kind) for n in names], lambda n, rows: pa.array(flat[rows, names[n]].astype(native), kind)


def _arrow(name: str, y: NDArray[Any]) -> Any:
    if y.dtype.kind not in "biufUS":
        raise DataError(f"targets are numbers or text, {name} has {y.dtype}; write them as one of these.")
    if y.dtype.kind in "US":
        return pa.array([t.decode() if isinstance(t, bytes) else t for t in y.tolist()], pa.string())
    return pa.array(y.astype(y.dtype.newbyteorder("=")))


def expanded(batch: Any) -> Any:
    """Return a record batch or table with each column of vectors as columns of numbers, ``name0``, ``name1``, …"""
    if not any(tensor_shape(kind) for kind in batch.schema.types) and not any(map(_is_list, batch.schema.types)):
        return batch
    arrays: list[Any] = []
    names: list[str] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        column = plain(column)
        shape = tensor_shape(column.type)
        if _is_list(column.type):
            values, width = _of_lists(name, column)
        elif shape and not (len(shape) > 1 and column.type.value_type == pa.uint8()):
            width = int(np.prod(shape))
            storage = column.storage if isinstance(column, pa.ExtensionArray) else column
            values = storage.flatten()
        else:
            arrays.append(column)
            names.append(name)
            continue
        if column.null_count:
            raise DataError(f"vectors have no missing values, the column {name!r} has; fill them in.")
        table = values.to_numpy(zero_copy_only=False).reshape(len(column), width)
        arrays += [pa.array(table[:, i]) for i in range(width)]
        names += [f"{name}{i}" for i in range(width)]
    return pa.record_batch(arrays, names=names)


def _is_list(kind: Any) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)))


def _of_lists(name: str, column: Any) -> tuple[Any, int]:
    lengths = column.value_lengths()
    widths = set(lengths.unique().to_pylist()) - {None}
    if len(widths) > 1:
        raise DataError(
            f"lists of the column {name!r} must have one length, found {min(widths)} and {max(widths)}; pad them, or "
            f"leave the column out with data.leave_out={name}."
        )
    return column.flatten(), widths.pop() if widths else 0


def _width(kind: Any) -> int:
    shape = tensor_shape(kind)
    return int(np.prod(shape)) if shape else 1
