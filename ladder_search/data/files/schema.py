"""The schema of rows: what each column is, and how raw rows become the numbers that a network reads.

It is found on training rows (``profile``), stored as JSON beside a trained network, and needs neither the training data
nor pickle. Statistics of numbers (median, mean, deviation) are not part of it: they are fitted for each split and are
buffers of the network.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ladder_search.config import as_mapping, build
from ladder_search.data.files.images import FULL_SCALE, ImageFormat, pixels
from ladder_search.data.files.place import first_line
from ladder_search.data.files.rows import expanded, is_encoded_image
from ladder_search.data.files.values import check_finite, is_date, is_number, is_text, numbers, plain, texts
from ladder_search.errors import DataError, nearest

FORMAT = "ladder-search rows 1"
Unseen = Literal["refuse", "missing"]
_LISTED = 10
"""Values of a category in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column that a network reads."""

    name: str
    kind: Literal["number", "category", "image"]
    vocabulary: tuple[str, ...] = ()
    """Values of a category in the training rows, sorted; each is one input, 0 or 1."""
    missing: bool = False
    """Whether training rows lack the value: then one more input is 1 for missing values."""
    image: ImageFormat | None = None
    """Format of an image; its pixels are inputs in 0..1."""
    resize: bool = False
    """Whether images of other sizes are resized."""

    @property
    def inputs(self) -> int:
        values = {"number": 1, "category": len(self.vocabulary), "image": self.image.inputs if self.image else 0}
        return values[self.kind] + self.missing


@dataclass(frozen=True, kw_only=True)
class RowSchema:
    """Columns of raw rows in the order of a network's inputs, and the classes.

    A number is one input, NaN if it is missing; a category is one input of 0 or 1 for each of its values; both have a
    further input of 1 for missing values if training rows lack any. An image is its pixels in 0..1, colour planes one
    after the other.
    """

    columns: tuple[Column, ...]
    target: str | None = None
    """Column of the classes, if there is one."""
    classes: tuple[str | int, ...] = ()
    """Class i of a network is ``classes[i]`` in the data."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Column that is not read -> reason."""
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column of vectors -> columns of their numbers."""

    @property
    def inputs(self) -> int:
        return sum(column.inputs for column in self.columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Columns that raw rows need."""
        of_vectors = {name: vector for vector, names in self.vectors.items() for name in names}
        return tuple(dict.fromkeys(of_vectors.get(column.name, column.name) for column in self.columns))

    @property
    def scaled(self) -> NDArray[np.bool_]:
        """Inputs that are numbers, which the network standardises and imputes: [inputs]."""
        flags: list[bool] = []
        for column in self.columns:
            number = column.kind == "number"
            flags += [number] + [False] * column.missing if number else [False] * column.inputs
        return np.array(flags, bool)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs: ``age``, ``age is missing``, ``colour=red``, and ``image`` for each pixel."""
        names: list[str] = []
        for column in self.columns:
            values = [f"{column.name}={value}" for value in column.vocabulary]
            if column.kind == "number":
                values = [column.name]
            elif column.image is not None:
                values = [column.name] * column.image.inputs
            names += values + [f"{column.name} is missing"] * column.missing
        return names

    @property
    def image(self) -> ImageFormat | None:
        """Format of the image, if the rows are one image each."""
        (first, *more) = self.columns
        return None if more else first.image

    def encode(self, rows: Any, *, start: int = 0, unseen: Unseen = "refuse") -> NDArray[np.float32]:
        """Return raw rows as inputs of a network, float32 [n, inputs].

        Args:
            rows: an Arrow table or record batch, a pandas data frame, a mapping of names to columns, or an array
                [n, d], whose columns are called ``x0`` to ``x{d-1}``. Further columns are ignored.
            start: number of rows before these, for messages.
            unseen: whether a value of a category that training rows do not have is refused, or read as missing.

        Raise ``DataError`` if a column is missing, or a value has the wrong type, is infinite, or unseen.
        """
        table = table_of(rows)
        out = np.empty((len(table), self.inputs), np.float32)
        self.encode_into(table, out, start=start, unseen=unseen)
        return out

    def encode_into(self, table: Any, out: NDArray[np.float32], *, start: int = 0, unseen: Unseen = "refuse") -> None:
        """Write the inputs of an Arrow table into ``out``, float32 [n, inputs]; see ``encode``."""
        raw, table = table.schema.names, expanded(table)
        names = table.schema.names
        at = 0
        for column in self.columns:
            if column.name not in names:
                raise self._lacks(column.name, raw)
            values = table.column(column.name)
            self._write(column, values, out[:, at : at + column.inputs], start, unseen)
            at += column.inputs

    def encode_pixels(self, table: Any, *, start: int = 0) -> NDArray[np.uint8]:
        """Return the pixels of rows that are one image each, uint8 [n, inputs]."""
        (column,) = self.columns
        assert column.image is not None, column
        if column.name not in table.schema.names:
            raise self._lacks(column.name, table.schema.names)
        return pixels(plain(table.column(column.name)), column.image, start, resize=column.resize)

    def as_json(self) -> dict[str, Any]:
        """Return plain values for ``from_json``."""
        return {"format": FORMAT, **as_mapping(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RowSchema:
        """Return the schema of ``as_json``; raise ``DataError`` if the content is another one."""
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise DataError(
                f"a schema of rows has the format {FORMAT!r}, got {str(content)[:80]}; use the version that wrote it."
            )
        return build(cls, {name: value for name, value in content.items() if name != "format"})

    def _write(self, column: Column, values: Any, out: NDArray[np.float32], start: int, unseen: Unseen) -> None:
        if column.image is not None:
            np.divide(pixels(plain(values), column.image, start, resize=column.resize), FULL_SCALE, out=out)
            return
        if column.kind == "number":
            found = _numbers(column.name, values, start)
            out[:, 0] = found
            if column.missing:
                out[:, 1] = np.isnan(found)
            return
        codes = self._codes(column, values, start, unseen)
        width = len(column.vocabulary)
        out[:] = 0
        known = codes >= 0
        out[np.flatnonzero(known), codes[known]] = 1
        if column.missing:
            out[:, width] = ~known

    def _codes(self, column: Column, values: Any, start: int, unseen: Unseen) -> NDArray[np.int64]:
        """Return places in the vocabulary, -1 for missing values."""
        if is_date(plain(values).type):
            raise DataError(f"the column {column.name!r} must be text or numbers, got {values.type}; convert it.")
        text = texts(values)
        index = pc.index_in(text, value_set=pa.array(column.vocabulary, pa.string()))
        codes = np.asarray(pc.fill_null(index, -1).to_numpy(zero_copy_only=False), np.int64)
        strange = (codes < 0) & np.asarray(pc.is_valid(text).to_numpy(zero_copy_only=False))
        if unseen == "refuse" and strange.any():
            row = int(np.argmax(strange))
            value, listed = text[row].as_py(), ", ".join(column.vocabulary[:_LISTED])
            more = f" and {len(column.vocabulary) - _LISTED} more" if len(column.vocabulary) > _LISTED else ""
            raise DataError(
                f"categories must occur in the training rows, the column {column.name!r} has {value!r:.80} in row "
                f"{start + row + 1} and they have {listed}{more}; correct it, or leave the value empty."
            )
        return codes

    def _lacks(self, name: str, names: Sequence[str]) -> DataError:
        vector = next((vector for vector, parts in self.vectors.items() if name in parts), None)
        if vector in names:
            return DataError(
                f"vectors of the column {vector!r} must have {len(self.vectors[str(vector)])} numbers, they have "
                "another length; correct them."
            )
        near = nearest(name, [other for other in names if other not in self.names])
        hint = f"rename {near!r}, or add it" if near else f"add it; the rows have {', '.join(names[:_LISTED])}"
        return DataError(f"rows need the column {vector or name!r}, which they lack; {hint}.")


def table_of(rows: Any) -> Any:
    """Return rows as an Arrow table or record batch; see ``RowSchema.encode`` for what they may be."""
    if isinstance(rows, (pa.Table, pa.RecordBatch)):
        return rows
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2 or rows.dtype.kind not in "biuf":
            raise DataError(
                f"rows as an array are numbers of two dimensions, got {rows.dtype} of shape {rows.shape}; reshape "
                "them, or give a table."
            )
        return pa.table({f"x{i}": pa.array(np.ascontiguousarray(rows[:, i])) for i in range(rows.shape[1])})
    try:
        if isinstance(rows, Mapping):
            return pa.table(dict(rows))
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"columns have one type each, these have not ({first_line(error)}); convert them.") from error


def suggested(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about a column that does not exist: the nearest one, or those that exist."""
    near = difflib.get_close_matches(name.casefold(), [n.casefold() for n in names], n=1, cutoff=0.5)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    listed = f"{', '.join(names[:_LISTED])}{more}."
    if near:
        return f"did you mean {next(n for n in names if n.casefold() == near[0])!r}? Columns are {listed}"
    return f"choose one of {listed}"


def _numbers(name: str, values: Any, start: int) -> NDArray[np.float64]:
    column = plain(values)
    if is_text(column.type):
        column = texts(column)
        try:
            column = pc.cast(column, pa.float64())
        except pa.ArrowException as error:
            raise DataError(
                f"the column {name!r} must have numbers, it has text ({first_line(error)}); correct it."
            ) from error
    elif pa.types.is_null(column.type):
        column = column.cast(pa.float64())
    if not is_number(column.type) or is_encoded_image(column.type):
        raise DataError(f"the column {name!r} must have numbers, it has {column.type}; convert it.")
    found = numbers(column)
    check_finite(found, name, start)
    return found
