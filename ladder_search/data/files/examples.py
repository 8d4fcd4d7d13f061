"""The first rows of a file as a data frame, as an example of what a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from ladder_search.data.files.formats import open_rows
from ladder_search.data.files.rows import is_encoded_image
from ladder_search.data.files.schema import RowSchema

if TYPE_CHECKING:  # pandas is only needed for registered models
    import pandas

    from ladder_search.data.config import DataConfig


def example_rows(data: DataConfig, schema: RowSchema, count: int = 4) -> pandas.DataFrame:
    """Return the first ``count`` rows of ``data.file`` in the columns of the schema; images are the bytes of files.

    Raise ``DataError`` if the file has no rows, or cannot be read.
    """
    assert data.file is not None
    batch = next(iter(open_rows(data.file, target=data.target).batches(list(schema.names)))).slice(0, count)
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        of_images = is_encoded_image(column.type) and pa.types.is_struct(column.type)
        columns[name] = column.field("bytes") if of_images else column
    return pa.table(columns).to_pandas()
