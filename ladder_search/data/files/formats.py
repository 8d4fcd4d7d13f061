"""Formats of files, recognised by content: Parquet, Arrow, text, NumPy, idx and folders of images.

No content is executed: NumPy refuses pickled objects by default.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ladder_search.data import sources
from ladder_search.data.files.csv import csv_rows
from ladder_search.data.files.place import Place, first_line
from ladder_search.data.files.rows import (
    IMAGE,
    IMAGES_AT_ONCE,
    TARGET,
    Rows,
    check_columns,
    of_arrays,
    rows_at_once,
    unreadable,
)
from ladder_search.errors import DataError, UnknownNameError

KNOWN = "Parquet, Arrow or Feather, CSV or TSV, NPZ, NPY, idx, or a folder of images with one sub-folder per class"
UNLABELLED = "unlabelled"
"""Sub-folder of images without a class."""
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_PARTS = ("train", "test")


def open_rows(path: str, what: str = "data.file", *, target: str | None = None) -> Rows:
    """Return a file or a folder as rows.

    Args:
        path: local path, or address of a bucket.
        what: setting or argument of the path, for messages.
        target: column of the targets; for NPZ the name of the array, for NPY that of a file beside.

    Raise ``DataError`` if it does not exist, is damaged, or has another format.
    """
    return open_place(Place.find(path, what), target)


def open_place(place: Place, target: str | None = None) -> Rows:
    """Return a file or a folder as rows, see ``open_rows``."""
    if place.is_folder:
        return _folder(place, target)
    start = place.read(1024)
    try:
        if start.startswith(b"\x1f\x8b"):
            return _compressed(place, target)
        if start.startswith(b"PAR1"):
            return _parquet(place)
        if start.startswith(b"ARROW1"):
            return _arrow(place, pa.ipc.open_file, _batches_of_file)
        if start.startswith(b"\xff\xff\xff\xff"):
            return _arrow(place, pa.ipc.open_stream, iter)
        if start.startswith(b"PK\x03\x04"):
            return _npz(place, target)
        if start.startswith(b"\x93NUMPY"):
            return _npy(place, target)
        if _is_idx(start):
            return _idx(place, place.read())
    except (pa.ArrowException, OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        if isinstance(error, (DataError, UnknownNameError)):
            raise
        raise unreadable(place, error) from error
    if not start:
        raise DataError(f"data need rows, {place} is empty; write it again.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"text must be in UTF-8, {place} is in UTF-16; save it in UTF-8.")
    if start.startswith(_PICTURES):
        raise DataError(f"images lie in a folder with one sub-folder per class, {place} is an image; name the folder.")
    if b"\0" in start:
        raise DataError(f"data are {KNOWN}, {place} is none of them; convert it to one of these.")
    return csv_rows(place, None)


def _compressed(place: Place, target: str | None) -> Rows:
    with pa.input_stream(place.stream(), compression="gzip") as file:
        start = file.read(1024)
    if _is_idx(start) or start.startswith(b"\x93NUMPY"):
        content = sources.gunzip(place.path, place.read())
        return _idx(place, content) if _is_idx(start) else _npy(place, target, content)
    if b"\0" in start:
        raise DataError(f"compressed data are text, NPY or idx, {place} is none of them; decompress it.")
    return csv_rows(place, "gzip")


def _parquet(place: Place) -> Rows:
    schema = pq.read_schema(place.stream())
    check_columns(schema.names, place)

    def read(columns: Sequence[str]) -> Iterator[Any]:
        with pq.ParquetFile(place.stream(), pre_buffer=False) as file:
            kept = pa.schema([schema.field(name) for name in columns])
            for batch in file.iter_batches(batch_size=rows_at_once(kept), columns=list(columns)):
                yield batch.select(list(columns))

    return Rows(name=place.path, schema=_with_class_names(schema), read=read)


def _arrow(place: Place, opened: Callable[[Any], Any], batches: Callable[[Any], Iterable[Any]]) -> Rows:
    """Return an Arrow file or stream: ``opened`` is PyArrow's reader, ``batches`` returns what it has."""
    with opened(place.stream()) as file:
        schema = file.schema
    check_columns(schema.names, place)

    def read(columns: Sequence[str]) -> Iterator[Any]:
        with opened(place.stream()) as file:
            for batch in batches(file):
                yield from _sliced(batch.select(list(columns)))

    return Rows(name=place.path, schema=_with_class_names(schema), read=read)


def _batches_of_file(file: Any) -> Iterator[Any]:
    return map(file.get_batch, range(file.num_record_batches))


def _sliced(batch: Any) -> Iterator[Any]:
    step = rows_at_once(batch.schema)
    for start in range(0, len(batch), step):
        yield batch.slice(start, step)


def _with_class_names(schema: Any) -> Any:
    """Return the schema with the names of classes as metadata of their column, if a dataset hub has written them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return schema
    for i, column in enumerate(schema.names):
        if isinstance(names.get(column), list):
            schema = schema.set(i, schema.field(i).with_metadata({"classes": json.dumps(names[column])}))
    return schema


def _npz(place: Place, target: str | None) -> Rows:
    content = place.stream()
    with zipfile.ZipFile(content) as archive:
        members = archive.namelist()
    if not members or not all(name.endswith(".npy") for name in members):
        hint = "save a spreadsheet as CSV" if "[Content_Types].xml" in members else "unpack it"
        raise DataError(f"a zip file of data is an NPZ file of arrays, {place} is another one; {hint}.")
    with np.load(place.stream()) as arrays:
        names = list(arrays.files)
        by_name = {name.casefold(): name for name in names}
        x, y = _array_names(place, by_name, target, "train")
        rows = of_arrays(place.path, arrays[x], None if y is None else arrays[y], target=y or TARGET)
        if x.casefold() in ("x_train", "train_x", "train_images"):
            test_x, test_y = _array_names(place, by_name, None, "test")
            if test_y is not None and y is not None:
                rows = replace(rows, test=of_arrays(place.path, arrays[test_x], arrays[test_y], target=y))
    return rows


def _array_names(place: Place, names: Mapping[str, str], target: str | None, part: str) -> tuple[str, str | None]:
    """Return the names of the arrays of examples and of targets; None if there are no targets."""
    bare = () if part == "test" else ("x", "data", "images", "features")
    of_x = (f"x_{part}", f"{part}_x", f"{part}_images", *bare)
    of_y = (f"y_{part}", f"{part}_y", f"{part}_labels", *(() if part == "test" else ("y", "target", "targets")))
    y = target or next((names[n] for n in (*of_y, "labels", "label") if n in names), None)
    if target is not None and target not in names.values():
        raise UnknownNameError(f"array of {place}", target, names.values())
    rest = [name for name in names.values() if name != y]
    x = next((names[n] for n in of_x if n in names and names[n] != y), rest[0] if len(rest) == 1 else None)
    if x is None:
        raise DataError(
            f"an NPZ file has its examples in the array x, or in the only one beside the targets, {place} has "
            f"{', '.join(sorted(names.values())[:12])}; rename it, and name the targets by data.target."
        )
    return x, y


def _npy(place: Place, target: str | None, content: bytes | None = None) -> Rows:
    x = _array(place, content)
    if x.dtype.names:
        return _structured(place, x)
    labels = place.beside(target) if target else _pair(place, {"x": "y", "X": "y"} | _IDX_PAIRS)
    if target and labels is None:
        raise DataError(
            f"the targets of an NPY file are the file beside it that data.target names, {target!r} is not beside "
            f"{place}; correct the name."
        )
    y = None if labels is None else _array(labels)
    return of_arrays(place.path, x, y, target=target or TARGET)


def _array(place: Place, content: bytes | None = None) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(place.stream() if content is None else io.BytesIO(content))
    except ValueError as error:
        raise DataError(
            f"an NPY file has an array of numbers or text, {place} has other content ({first_line(error)}); write it "
            "again."
        ) from error
    return array


def _structured(place: Place, x: NDArray[Any]) -> Rows:
    table = pa.table({name: pa.array(np.ascontiguousarray(x[name])) for name in x.dtype.names or ()})

    def read(columns: Sequence[str]) -> Iterator[Any]:
        chosen = table.select(list(columns))
        yield from chosen.to_batches(max_chunksize=rows_at_once(chosen.schema))

    return Rows(name=place.path, schema=table.schema, read=read)


_IDX_PAIRS = {"images": "labels", "idx3": "idx1"}


def _pair(place: Place, words: Mapping[str, str]) -> Place | None:
    """Return the file of labels beside a file of examples, whose name has ``labels`` for ``images``."""
    name = place.name
    for word, other in words.items():
        name = name.replace(word, other) if len(word) > 1 or name.startswith(word) else name
    bare = name.removesuffix(".gz")
    if bare == place.name.removesuffix(".gz"):
        return None
    return place.beside(bare) or place.beside(f"{bare}.gz")


def _is_idx(start: bytes) -> bool:
    return len(start) >= 8 and start[:2] == b"\0\0" and start[2] in sources.IDX_TYPES and 1 <= start[3] <= 4


def _idx(place: Place, content: bytes) -> Rows:
    labels = _pair(place, _IDX_PAIRS)
    x = _idx_array(place, content)
    return of_arrays(place.path, x, None if labels is None else _idx_array(labels, labels.read()))


def _idx_array(place: Place, content: bytes) -> NDArray[Any]:
    content = sources.unpacked(place.path, content)
    if not _is_idx(content):
        raise DataError(f"labels beside idx images are an idx file, {place} is none; get it again.")
    try:
        return sources.read_idx(content)
    except ValueError as error:
        raise unreadable(place, error) from error


def _folder(place: Place, target: str | None) -> Rows:
    names = place.files()
    if not names:
        raise DataError(f"data need rows, the folder {place} has no files; name another one.")
    loose = [name for name in names if "/" not in name]
    if len(loose) == len(names):
        return _parts(place, names, target)
    if loose:
        raise DataError(
            f"images lie in one sub-folder per class, {loose[0]} lies in {place} itself; move it, into {UNLABELLED}/ "
            "if it has no class."
        )
    tops = sorted({name.partition("/")[0] for name in names})
    deep = all(name.count("/") > 1 for name in names)
    if deep and "train" in tops and set(tops) <= {*_PARTS, "val", "valid", "validation", UNLABELLED}:
        raise DataError(
            f"a folder of images has one sub-folder per class, {place} has {', '.join(tops)}; set data.file to "
            "its folder train, and data.test_file to its folder test."
        )
    schema = pa.schema([(IMAGE, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), (TARGET, pa.string())])

    def read(columns: Sequence[str]) -> Iterator[Any]:
        for start in range(0, len(names), IMAGES_AT_ONCE):
            part = names[start : start + IMAGES_AT_ONCE]
            values: dict[str, Any] = {TARGET: [None if _top(name) == UNLABELLED else _top(name) for name in part]}
            if IMAGE in columns:
                values[IMAGE] = [{"bytes": place.below(name).read(), "path": f"{place}/{name}"} for name in part]
            kept = pa.schema([schema.field(name) for name in columns])
            yield pa.record_batch([pa.array(values[n], kept.field(n).type) for n in columns], schema=kept)

    return Rows(name=place.path, schema=schema, read=read, target=TARGET)


def _top(name: str) -> str:
    return name.partition("/")[0]


def _parts(place: Place, names: Sequence[str], target: str | None) -> Rows:
    """Return the files of a folder as one table; they must have the same columns."""
    if place.below(names[0]).read(8).startswith(_PICTURES):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

        def images(columns: Sequence[str]) -> Iterator[Any]:
            for start in range(0, len(names), IMAGES_AT_ONCE):
                part = names[start : start + IMAGES_AT_ONCE]
                values = [{"bytes": place.below(name).read(), "path": f"{place}/{name}"} for name in part]
                yield pa.record_batch([pa.array(values, kind)], names=[IMAGE])

        return Rows(name=place.path, schema=pa.schema([(IMAGE, kind)]), read=images)  # images without classes
    files = [open_place(place.below(name), target) for name in names]
    first = files[0]
    for one in files[1:]:
        if one.columns != first.columns:
            raise DataError(
                f"the files of a folder are parts of one table, {one.name} has other columns than {first.name}; name "
                "a single file, or a folder of equal parts."
            )

    def read(columns: Sequence[str]) -> Iterator[Any]:
        for one in files:
            yield from one.batches(columns)

    return replace(first, name=place.path, read=read, test=None)
