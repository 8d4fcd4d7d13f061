"""Predictions as a file: a column of classes and one of probabilities for each class, in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.errors import SettingError

SUFFIXES = (".parquet", ".arrow", ".feather", ".csv")


def check_output(path: Path) -> None:
    """Raise ``SettingError`` unless the name of a file of predictions states its format."""
    if path.suffix.lower() not in SUFFIXES:
        raise SettingError(
            f"predictions are written as Parquet, Arrow or CSV, got {path.name!r}; end the name with "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}."
        )


def write_predictions(
    path: Path, columns: Sequence[str], classes: Sequence[str | int], parts: Iterable[NDArray[np.float32]]
) -> int:
    """Write probabilities, [n, classes] in parts, and the likeliest classes; return the number of rows.

    The file is written atomically, part by part. Args: ``columns`` names the class and each probability. Raises
    ``StudyFolderError`` if it cannot be written.
    """
    values = pa.array(list(classes))
    kinds = [values.type, *[pa.float32()] * len(classes)]
    schema = pa.schema(list(zip(columns, kinds, strict=True)))
    rows = 0

    def write(file: IO[bytes]) -> None:
        nonlocal rows
        with _writer(path, file, schema) as writer:
            for part in parts:
                best = values.take(pa.array(part.argmax(axis=1)))
                batch = [best, *(pa.array(np.ascontiguousarray(part[:, i])) for i in range(len(classes)))]
                writer.write_batch(pa.record_batch(batch, schema=schema))
                rows += len(part)

    try:
        write_atomically(path, write)
    except OSError as error:
        raise unwritable(path, error) from error
    return rows


def _writer(path: Path, file: IO[bytes], schema: Any) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pq.ParquetWriter(file, schema)
    return pacsv.CSVWriter(file, schema) if suffix == ".csv" else pa.ipc.new_file(file, schema)
