"""Columns of Arrow as NumPy: numbers with NaN for missing ones, and text with None."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ladder_search.errors import DataError

LARGEST = float(np.finfo(np.float32).max)


def plain(column: Any) -> Any:
    """Return a column as one Arrow array, without dictionary encoding."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def is_number(kind: Any) -> bool:
    kinds = pa.types
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind))


def is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_date(kind: Any) -> bool:
    return bool(pa.types.is_temporal(kind))


def numbers(column: Any) -> NDArray[np.float64]:
    """Return a column of numbers as float64 [n], NaN for missing ones."""
    column = plain(column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def texts(column: Any) -> Any:
    """Return a column as Arrow text, null for missing and blank values; whole numbers have no decimal point."""
    column = plain(column)
    if pa.types.is_boolean(column.type):
        return column.cast(pa.string())
    if is_number(column.type):
        values = numbers(column)
        known = ~np.isnan(values)
        if np.all(np.abs(values[known]) < 2**53) and np.all(values[known] == np.floor(values[known])):
            whole = np.where(known, values, 0).astype(np.int64)
            return pa.array(whole, pa.int64(), mask=~known).cast(pa.string())
        return pa.array(values, pa.float64(), mask=~known).cast(pa.string())
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not is_text(column.type):
        raise DataError(f"text is expected, got {column.type}; convert the column to text.")
    column = column.cast(pa.string())
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


def check_finite(values: NDArray[np.float64], name: str, start: int = 0) -> None:
    """Raise ``DataError`` if a number is infinite, or too large for single precision."""
    with np.errstate(invalid="ignore"):
        wrong = np.abs(values) > LARGEST
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"numbers must be finite in single precision, the column {name!r} has {values[row]:g} in row "
            f"{start + row + 1}; correct it, or leave the value empty."
        )


def reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
