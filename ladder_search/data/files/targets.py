"""Classes of rows: text or whole numbers, missing targets, and a fixed, stratified share for testing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ladder_search.data.files.rows import Rows
from ladder_search.data.files.schema import suggested
from ladder_search.data.files.values import is_number, is_text, numbers, plain, texts
from ladder_search.data.permutation import permutations
from ladder_search.errors import DataError

UNLABELLED = -1
_TEST_TAG = 0x7E57
"""Stream of the permutation that selects test rows."""
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Targets:
    y: NDArray[np.int32]
    """[n], places in ``classes``; -1: unlabelled."""
    classes: tuple[str | int, ...]
    """Sorted."""


def target_of(rows: Rows, target: str | None) -> str:
    """Return the column of the classes; raise ``DataError`` if it does not exist or is not named."""
    name = target or rows.target
    if name is None:
        raise DataError(f"data need the column of the classes, data.target is not set; {_choices(rows)}")
    if name not in rows.columns:
        raise DataError(
            f"data.target must be a column of {rows.name}, {name!r} is none; {suggested(name, rows.columns)}"
        )
    return name


def read_targets(rows: Rows, name: str) -> Targets:
    """Return the targets of all rows; raise ``DataError`` unless there are two classes or more, of a column of text or
    of whole numbers."""
    column = _column(rows, name)
    values = _values(column, name, rows.name)
    found = sorted({value for value in values.unique().to_pylist() if value is not None})
    named = _class_names(rows, name)
    classes = _checked(found, len(values), int(values.null_count), name, rows.name)
    y = _places(values, classes)
    return Targets(y, tuple(named[c] if named and isinstance(c, int) and 0 <= c < len(named) else c for c in classes))


def places_of(rows: Rows, name: str, classes: Sequence[str | int]) -> NDArray[np.int32]:
    """Return the targets of further rows as places in ``classes``; raise ``DataError`` for a class that is not among
    them."""
    values = _values(_column(rows, name), name, rows.name)
    named = _class_names(rows, name)
    if named:
        names = pa.array(named, pa.string())
        inside = pc.and_(pc.greater_equal(values, 0), pc.less(values, len(named)))
        values = names.take(pc.if_else(inside, values, None)) if is_number(values.type) else values
    known = [one for one in classes if isinstance(one, str) == is_text(values.type)]
    strange = sorted({value for value in values.unique().to_pylist() if value is not None} - set(known))
    if strange:
        raise DataError(
            f"test rows have the classes of the training rows, {rows.name} has {strange[0]!r} in {name!r} and these "
            f"are {_listed(classes)}; correct it, or add training rows of this class."
        )
    return _places(values, classes)


def test_rows(y: NDArray[np.int32], share: float) -> NDArray[np.bool_]:
    """Return which rows are for testing, [n]: of the labelled rows of each class the same share, rounded, by a fixed
    permutation; at least one row of a class is left for training."""
    chosen = np.zeros(len(y), bool)
    if share == 0.0 or not len(y):
        return chosen
    order = permutations(len(y), seed=0, tag=_TEST_TAG)[0]
    for c in range(int(y.max()) + 1):
        of_class = order[y[order] == c]
        chosen[of_class[: min(round(share * len(of_class)), len(of_class) - 1)]] = True
    return chosen


def _column(rows: Rows, name: str) -> Any:
    chunks = [plain(batch.column(name)) for batch in rows.batches([name])]
    kept = [chunk for chunk in chunks if not pa.types.is_null(chunk.type)]
    if not kept:
        return pa.nulls(sum(map(len, chunks)), pa.string())
    return plain(pa.chunked_array([chunk.cast(kept[0].type) for chunk in chunks]))


def _values(column: Any, name: str, where: str) -> Any:
    """Return targets as whole numbers or text, null for unlabelled rows."""
    if pa.types.is_boolean(column.type):
        return column.cast(pa.string())
    if is_number(column.type):
        values = numbers(column)
        unlabelled = np.isnan(values) | (values == UNLABELLED)
        known = values[~unlabelled]
        if not np.all(np.isfinite(known)) or np.any(known != np.floor(known)) or np.any(np.abs(known) >= 2**53):
            wrong = known[~np.isfinite(known) | (known != np.floor(known)) | (np.abs(known) >= 2**53)][0]
            raise DataError(
                f"classes are text or whole numbers, the column {name!r} of {where} has {wrong:g}; choose another "
                "data.target, or divide the numbers into classes."
            )
        return pa.array(np.where(unlabelled, 0, values).astype(np.int64), pa.int64(), mask=unlabelled)
    if not is_text(column.type):
        raise DataError(
            f"classes are text or whole numbers, the column {name!r} of {where} has {column.type}; choose another "
            "data.target."
        )
    text = texts(column)
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), str(UNLABELLED)), pa.scalar(None, pa.string()), text)


def _places(values: Any, classes: Sequence[str | int]) -> NDArray[np.int32]:
    index = pc.index_in(values, value_set=pa.array(list(classes), values.type))
    return np.asarray(pc.fill_null(index, UNLABELLED).to_numpy(zero_copy_only=False), np.int32)


def _checked(found: list[Any], rows: int, missing: int, name: str, where: str) -> list[Any]:
    if rows == 0:
        raise DataError(f"data need rows, {where} has none; name a file that has some.")
    if not found:
        raise DataError(
            f"a search needs labelled rows, the target {name!r} of {where} is missing in all {rows:,} rows; fill in "
            "some, or choose another data.target."
        )
    if len(found) == 1:
        raise DataError(
            f"a target has two classes or more, {name!r} of {where} has only {found[0]!r}; choose another data.target."
        )
    labelled = rows - missing
    if 2 * len(found) > labelled:
        raise DataError(
            f"a class needs two labelled rows on average, the target {name!r} of {where} has {len(found):,} classes in "
            f"{labelled:,} labelled rows; choose another data.target."
        )
    return found


def _class_names(rows: Rows, name: str) -> list[str] | None:
    """Return the names of classes that a dataset hub has stored beside their numbers."""
    metadata = rows.schema.field(name).metadata or {}
    return [str(one) for one in json.loads(metadata[b"classes"])] if b"classes" in metadata else None


def _listed(classes: Sequence[str | int]) -> str:
    more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
    return ", ".join(map(repr, classes[:_LISTED])) + more


def _choices(rows: Rows) -> str:
    more = f" and {len(rows.columns) - _LISTED} more" if len(rows.columns) > _LISTED else ""
    return f"set it to one of {', '.join(rows.columns[:_LISTED])}{more}."
