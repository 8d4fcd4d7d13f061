"""The door to all data: ``load`` and ``state`` of rows of the table and of files, by the settings of the data."""

from __future__ import annotations

from ladder_search.data.arrays import Notify, quiet
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset, Source
from ladder_search.data.table import DATASETS, DatasetSource
from ladder_search.errors import UnknownNameError

__all__ = ["DATASETS", "DatasetSource", "load", "source_of", "state"]


def load(data: DataConfig | str, *, notify: Notify = quiet) -> Dataset:
    """Return a data set, by its settings or its name in the table, from the cache, or from the first available source;
    raise ``DataError`` if no source has it, a source has other content, or the cache folder cannot be used.

    The cache takes precedence, because it is verified against the digest of the sources, or the one recorded from them.
    Data from a source are cached. ``notify`` is called with lines of progress and warnings.
    """
    return source_of(data).load(notify)


def state(data: DataConfig | str) -> str:
    """Return ``PRESENT``, ``FETCHABLE`` or ``ABSENT``; nothing is fetched, read in full or written. Raise ``DataError``
    if ``LADDER_SEARCH_DATA`` does not name a folder."""
    return source_of(data).state()


def source_of(data: DataConfig | str) -> Source:
    """Return where a data set comes from, by its settings or its name in the table."""
    if not isinstance(data, str):
        if data.file is not None:
            from ladder_search.data.files.source import FileSource  # it needs PyArrow, which rows of the table do not

            return FileSource(data)
        data = data.dataset
    if data not in DATASETS:
        raise UnknownNameError("data set", data, DATASETS)
    return DATASETS[data]
