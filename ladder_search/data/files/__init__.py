"""Data from files: formats recognised by content, columns and classes, and the schema that raw rows are encoded by."""

from ladder_search.data.files.formats import open_rows
from ladder_search.data.files.profile import schema_of
from ladder_search.data.files.rows import Rows
from ladder_search.data.files.schema import RowSchema

__all__ = ["RowSchema", "Rows", "open_rows", "schema_of"]
