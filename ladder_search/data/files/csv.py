"""CSV and TSV files by PyArrow: the separator and the columns' types are found from the content."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from ladder_search.data.files.place import Place, first_line
from ladder_search.data.files.rows import MOST_INPUTS, Rows, check_columns
from ladder_search.data.files.values import reads_as_number
from ladder_search.errors import DataError

SEPARATORS = ",\t;|"
_SAMPLE = 1 << 16
_LONGEST_LINE = 1 << 24
_BLOCK = 1 << 23
"""Bytes that are parsed at once; the types of columns are first guessed from the first block."""
_CONVERSION = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error")


def csv_rows(place: Place, compression: str | None) -> Rows:
    """Return a text file with a line of column names as rows; raise ``DataError`` if it is not such a file."""
    header = _first_line(place, compression)
    separator = _separator(header)
    names = next(csv.reader([header], delimiter=separator), [])
    check_columns(names, place)
    if all(reads_as_number(name) for name in names):
        raise DataError(
            f"a text file of data starts with a line of column names, {place} starts with {header[:60]!r}; add that "
            "line."
        )
    kinds = _Kinds(place, compression, separator, names)
    return Rows(name=place.path, schema=kinds.schema, read=kinds.read)


class _Kinds:
    """The types of the columns of one file: numbers, text, flags, or dates."""

    def __init__(self, place: Place, compression: str | None, separator: str, names: list[str]) -> None:
        self._place, self._compression, self._separator = place, compression, separator
        self._types: dict[str, Any] = {}
        self._uneven: Any = None
        try:
            guessed = self._open(names).schema
        except pa.ArrowException as error:
            raise self._refusal(error) from error
        for field in guessed:
            if pa.types.is_binary(field.type):  # text that is not UTF-8
                raise self._refusal(pa.ArrowInvalid("UTF8"))
            # A column of whole numbers or of missing values may have fractions below the first block.
            whole = pa.types.is_integer(field.type) or pa.types.is_null(field.type)
            self._types[field.name] = pa.float64() if whole else field.type
        while True:  # until the types suit all rows
            try:
                for _ in self.read(names, settled=False):
                    pass
                break
            except pa.ArrowException as error:
                match = _CONVERSION.search(str(error))
                name = names[int(match[1])] if match else ""
                if not name or self._types[name] == pa.string():
                    raise self._refusal(error) from error
                self._types[name] = pa.string()
        self.schema = pa.schema([pa.field(name, self._types[name]) for name in names])

    def read(self, columns: Sequence[str], *, settled: bool = True) -> Iterator[Any]:
        try:
            yield from self._open(columns)
        except pa.ArrowException as error:
            if not settled:
                raise
            raise self._refusal(error) from error

    def _open(self, columns: Sequence[str]) -> Any:
        def uneven(row: Any) -> str:
            self._uneven = row
            return "error"

        return pacsv.open_csv(
            pa.input_stream(self._place.stream(), compression=self._compression),
            read_options=pacsv.ReadOptions(block_size=_BLOCK),
            parse_options=pacsv.ParseOptions(
                delimiter=self._separator, newlines_in_values=True, invalid_row_handler=uneven
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=list(columns), column_types=self._types, strings_can_be_null=True
            ),
        )

    def _refusal(self, error: BaseException) -> DataError:
        if (row := self._uneven) is not None:
            where = f"row {row.number}" if row.number else f"the row {row.text[:60]!r}"
            return DataError(
                f"rows must have one value for each of the {row.expected_columns} columns, {where} of {self._place} "
                f"has {row.actual_columns}; correct it."
            )
        text = str(error)
        if "UTF8" in text or "UTF-8" in text:
            return DataError(f"text must be in UTF-8, {self._place} is not; save it in that encoding.")
        if "Empty CSV file" in text:
            return DataError(f"data need rows, {self._place} has none; write it again.")
        return DataError(f"{self._place} must be a table of text, it is not ({first_line(error)}); correct it.")


def _first_line(place: Place, compression: str | None) -> str:
    content = b""
    with pa.input_stream(place.stream(), compression=compression) as file:
        while b"\n" not in content and len(content) < _LONGEST_LINE:
            chunk = file.read(_SAMPLE)
            if not chunk:
                break
            content += chunk
    line, newline, _ = content.partition(b"\n")
    if not newline and len(content) >= _LONGEST_LINE:
        raise DataError(
            f"data have at most {MOST_INPUTS:,} columns, the first line of {place} has more than "
            f"{_LONGEST_LINE >> 20} MB; reduce them, for example by a projection."
        )
    try:
        return line.decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"text must be in UTF-8, {place} is not; save it in that encoding.") from error


def _separator(header: str) -> str:
    counts = {one: len(next(csv.reader([header], delimiter=one), [])) for one in SEPARATORS}
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] > 1 else ","
