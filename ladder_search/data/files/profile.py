"""Find the schema of rows: one pass over the training rows, which decides what each column is.

A column that cannot help is left out with a reason: constant, without values, equal to another one, or an index. A
column that would mislead is refused: dates, free text, numbers mixed with text, infinities.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladder_search.data.files.images import Survey
from ladder_search.data.files.place import first_line
from ladder_search.data.files.rows import MOST_INPUTS, expanded, is_encoded_image, tensor_shape
from ladder_search.data.files.schema import Column, RowSchema, suggested, table_of
from ladder_search.data.files.values import (
    check_finite,
    is_date,
    is_number,
    is_text,
    numbers,
    plain,
    reads_as_number,
    texts,
)
from ladder_search.errors import DataError

MOST_CATEGORIES = 100
"""Values of a column of text; more are free text, unless ``data.categories`` names the column."""
FEW_CATEGORIES = 10
"""Values of a column of text that are categories in any number of rows; more may be at most half of the rows."""
_NAMED_CATEGORIES = 10_000
INDEX_ROWS = 10
"""Rows from which on a column is checked for being an index."""
_INDEX_NAME = re.compile(r"^(unnamed: ?\d+|__index_level_\d+__|index|(.*[_ .-])?id|)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    schema: RowSchema
    notes: tuple[str, ...]
    """Sentences about columns that are left out, and about images."""


def profile(
    parts: Iterable[Iterable[Any]],
    *,
    target: str | None = None,
    leave_out: Sequence[str] = (),
    categories: Sequence[str] = (),
    image_size: int | None = None,
) -> Profile:
    """Return the schema of training rows, without classes.

    Args:
        parts: record batches of all training rows, for each file.
        target: column of the classes, which is no input.
        leave_out: columns that are not read.
        categories: columns that are read as categories, whatever their type and number of values.
        image_size: side to which images are resized; None: they have one size.

    Raise ``DataError`` if a column cannot be read, or nothing is left.
    """
    columns: dict[str, _Seen] = {}
    vectors: dict[str, tuple[str, ...]] = {}
    rows = 0
    for new_file, raw in ((i == 0, batch) for part in parts for i, batch in enumerate(part)):
        batch = expanded(raw)
        if not columns:
            for name in (*leave_out, *categories):
                if name not in raw.schema.names and name not in batch.schema.names:
                    raise DataError(
                        f"data.leave_out and data.categories name columns, {name!r} is none; "
                        f"{suggested(name, raw.schema.names)}"
                    )
            vectors = _vectors(raw.schema.names, batch.schema.names)
            ignored = {target, *leave_out, *(part for name in leave_out for part in vectors.get(name, ()))}
            for name, kind in zip(batch.schema.names, batch.schema.types, strict=True):
                if name not in ignored:
                    columns[name] = _seen(name, kind, name in categories, image_size)
        for name, seen in columns.items():
            if name not in batch.schema.names:
                raise DataError(f"rows need the same columns, from row {rows + 1} on {name!r} is missing; correct it.")
            if new_file:
                seen.restart()
            try:
                seen.add(plain(batch.column(name)), rows)
            except (pa.ArrowException, TypeError) as error:
                raise DataError(
                    f"a column has the same type in all files, {name!r} has {batch.column(name).type} after "
                    f"another one ({first_line(error)}); convert it."
                ) from error
        rows += len(batch)
    if rows == 0:
        raise DataError("data need rows, there is none; name a file that has some.")
    return _decided(columns, vectors, rows, target, leave_out)


def schema_of(
    rows: Any, *, target: str | None = None, leave_out: Sequence[str] = (), categories: Sequence[str] = ()
) -> RowSchema:
    """Return the schema of training rows in memory, see ``RowSchema.encode`` for what they may be, and ``profile``."""
    table = table_of(rows)
    batches = table.to_batches() if isinstance(table, pa.Table) else [table]
    return profile([batches], target=target, leave_out=leave_out, categories=categories).schema


class _Seen:
    """What was seen of one column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.missing = 0
        self.content = hashlib.blake2b(digest_size=16)
        self.survey: Survey | None = None

    def add(self, column: Any, start: int) -> None:
        raise NotImplementedError

    def restart(self) -> None:
        """Note that the following rows are from another file."""

    def reason(self, rows: int) -> str:
        """Return why the column is left out, or ""."""
        return "it has no values" if self.missing == rows else ""

    def column(self, rows: int) -> tuple[Column, list[str]]:
        """Return the column and notes; raise ``DataError`` if it is refused."""
        raise NotImplementedError


class _Numbers(_Seen):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.low, self.high = np.inf, -np.inf
        self.counts = True
        """Whether the values are whole and ascend in every file."""
        self.gaps = 0.0
        """Number of whole numbers between the values."""
        self.last: float | None = None

    def restart(self) -> None:
        self.last = None

    def add(self, column: Any, start: int) -> None:
        values = numbers(column)
        check_finite(values, self.name, start)
        missing = np.isnan(values)
        self.missing += int(missing.sum())
        known = values[~missing]
        self.content.update((values + 0.0).tobytes())
        if not len(known):
            return
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        if self.counts:
            steps = np.diff(known, prepend=known[0] - 1 if self.last is None else self.last)
            self.counts = bool((known == np.floor(known)).all() and (steps > 0).all())
            self.gaps += float(steps.sum()) - len(steps)
            self.last = float(known[-1])

    def reason(self, rows: int) -> str:
        if self.missing == rows:
            return "it has no values"
        if self.low == self.high and not self.missing:
            return f"it is {self.low:g} in all rows"
        if self.counts and not self.missing and rows >= INDEX_ROWS:
            if self.gaps < rows:
                return "it numbers the rows"
            if _INDEX_NAME.match(self.name):
                return "it looks like an index of the rows"
        return ""

    def column(self, rows: int) -> tuple[Column, list[str]]:
        return Column(name=self.name, kind="number", missing=bool(self.missing)), []


class _Categories(_Seen):
    def __init__(self, name: str, named: bool) -> None:
        super().__init__(name)
        self.named = named
        self.values: set[str] = set()
        self.crowded = 0
        """Row at which the values became too many."""

    def add(self, column: Any, start: int) -> None:
        text = texts(column)
        self.missing += int(text.null_count)
        coded = text.dictionary_encode()
        self.content.update(pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).tobytes())
        self.content.update(repr(coded.dictionary.to_pylist()).encode())
        if not self.crowded:
            self.values.update(value for value in text.unique().to_pylist() if value is not None)
            if len(self.values) > (_NAMED_CATEGORIES if self.named else 10 * MOST_CATEGORIES):
                self.crowded = start + len(column)

    def reason(self, rows: int) -> str:
        if self.missing == rows:
            return "it has no values"
        return (
            f"it is {next(iter(self.values))!r:.60} in all rows" if len(self.values) == 1 and not self.missing else ""
        )

    def column(self, rows: int) -> tuple[Column, list[str]]:
        most = _NAMED_CATEGORIES if self.named else max(FEW_CATEGORIES, min(MOST_CATEGORIES, rows // 2))
        numeric = [value for value in self.values if reads_as_number(value)]
        if not self.named and 2 * len(numeric) > len(self.values):
            other = sorted(self.values - set(numeric))
            if not other:  # text that is numbers throughout
                return Column(name=self.name, kind="number", missing=bool(self.missing)), []
            raise DataError(
                f"a column has numbers or text, {self.name!r} has both, for example {numeric[0]!r:.40} and "
                f"{other[0]!r:.40}; correct or empty these values, or set data.categories={self.name}."
            )
        if len(self.values) > most:
            count = f"more than {len(self.values)}" if self.crowded else len(self.values)
            raise DataError(
                f"free text is not read, the column {self.name!r} has {count} different texts in {rows:,} rows, and "
                f"categories have at most {most}; set data.leave_out={self.name}, or data.categories={self.name} if "
                "they are categories."
            )
        return Column(
            name=self.name, kind="category", vocabulary=tuple(sorted(self.values)), missing=bool(self.missing)
        ), []


class _Empty(_Seen):
    """A column without a type, because it has no values so far."""

    def add(self, column: Any, start: int) -> None:
        self.missing += int(column.null_count)

    def reason(self, rows: int) -> str:
        return "it has no values" if self.missing == rows else "it has no values in the first file"


class _Images(_Seen):
    def __init__(self, name: str, size: int | None) -> None:
        super().__init__(name)
        self.survey = Survey(size)
        self.size = size

    def add(self, column: Any, start: int) -> None:
        assert self.survey is not None
        self.survey.add(column)

    def column(self, rows: int) -> tuple[Column, list[str]]:
        assert self.survey is not None
        format_, notes = self.survey.result()
        return Column(name=self.name, kind="image", image=format_, resize=self.size is not None), notes


def _seen(name: str, kind: Any, named: bool, image_size: int | None) -> _Seen:
    if is_encoded_image(kind) or tensor_shape(kind) is not None:
        return _Images(name, image_size)
    if is_date(kind):
        raise DataError(
            f"dates and times are not read, the column {name!r} has {kind}; set data.leave_out={name}, or replace it "
            "by numbers such as the day of the week."
        )
    if is_text(kind) or (named and is_number(kind)):
        return _Categories(name, named)
    if is_number(kind):
        return _Numbers(name)
    if pa.types.is_null(kind):
        return _Empty(name)
    raise DataError(
        f"columns are numbers, text, vectors of one length, or images, {name!r} has {kind}; set data.leave_out={name}."
    )


def _decided(
    columns: dict[str, _Seen], vectors: dict[str, tuple[str, ...]], rows: int, target: str | None, out: Sequence[str]
) -> Profile:
    left_out = dict.fromkeys(out, "data.leave_out names it")
    kept: list[Column] = []
    notes: list[str] = []
    images = [seen for seen in columns.values() if seen.survey is not None]
    if len(images) > 1:
        raise DataError(
            f"rows have one image, these have {', '.join(repr(one.name) for one in images)}; leave the others out with "
            "data.leave_out."
        )
    same: dict[bytes, str] = {}
    for name, seen in columns.items():
        if images and seen is not images[0]:
            left_out[name] = f"the rows are images, in the column {images[0].name!r}"
            continue
        reason = seen.reason(rows)
        if not reason and not images:
            twin = same.setdefault(seen.content.digest(), name)
            reason = "" if twin == name else f"it equals the column {twin!r}"
        if reason:
            left_out[name] = reason
            continue
        column, more = seen.column(rows)
        kept.append(column)
        notes += more
    used = {column.name for column in kept}
    schema = RowSchema(
        columns=tuple(kept),
        target=target,
        left_out=left_out,
        vectors={name: parts for name, parts in vectors.items() if used & set(parts)},
    )
    if not kept:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:3])
        raise DataError(f"data need a column that differs between rows, there is none ({reasons or 'no columns'}).")
    if schema.inputs > MOST_INPUTS:
        raise DataError(
            f"rows have at most {MOST_INPUTS:,} inputs, these have {schema.inputs:,}; leave columns out with "
            "data.leave_out, or set a smaller data.image_size."
        )
    notes += [f"the column {name!r} is left out: {reason}" for name, reason in left_out.items() if name not in out]
    return Profile(schema=schema, notes=tuple(notes))


def _vectors(raw: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns that ``expanded`` has replaced, with their parts."""
    found, at = {}, 0
    for name in raw:
        if at < len(names) and names[at] == name:
            at += 1
            continue
        parts: list[str] = []
        while at < len(names) and names[at] == f"{name}{len(parts)}":
            parts.append(names[at])
            at += 1
        found[name] = tuple(parts)
    return found
