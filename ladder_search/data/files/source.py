"""Data from files: read once in batches, cached as Arrow by the digest of content and settings, then memory-mapped."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.cache import load_or_build_described
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import ABSENT, PRESENT, Dataset
from ladder_search.data.files.formats import open_place
from ladder_search.data.files.images import FULL_SCALE
from ladder_search.data.files.place import Place, unchanged
from ladder_search.data.files.profile import profile
from ladder_search.data.files.rows import Rows
from ladder_search.data.files.schema import RowSchema, suggested
from ladder_search.data.files.targets import UNLABELLED, places_of, read_targets, target_of, test_rows
from ladder_search.errors import DataError, LadderSearchError, SettingError

EDITION = 1
"""Increased when the same files are read differently, which invalidates old caches."""
_MOST_NOTES = 12


@dataclass(frozen=True, slots=True)
class FileSource:
    """The files of ``DataConfig``."""

    config: DataConfig

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def description(self) -> str:
        return f"the file {self.config.name}"

    @property
    def sources(self) -> tuple[str, ...]:
        return (str(self.config.file),)

    @property
    def identity(self) -> str:
        """sha256 of the files' contents and the settings that reading them depends on."""
        return _key(self.config, self._places())

    @property
    def examples(self) -> str:
        return self.identity

    def state(self) -> str:
        with suppress(LadderSearchError):
            self._places()
            return PRESENT
        return ABSENT

    def load(self, notify: Notify) -> Dataset:
        """Return the data, from the cache if the files were read before; raise ``DataError`` or ``SettingError`` if
        they cannot be read, change meanwhile, or do not suit the settings."""
        places = self._places()

        def read() -> tuple[Arrays, bytes]:
            notify(f"reading {self.config.file}")
            return _read(self.config, places)

        with unchanged(list(places.values())):
            key = _key(self.config, places)
            arrays, digest, described = load_or_build_described(f"files-{key[:32]}", read, notify)
        about = json.loads(described)
        schema = RowSchema.from_json(about["schema"])
        _check_labels(self.config, schema)
        notes = about["notes"]
        for note in notes[:_MOST_NOTES]:
            notify(f"note: {note}")
        if len(notes) > _MOST_NOTES:
            notify(f"note: {len(notes) - _MOST_NOTES} more columns are left out")
        pixels = arrays.train_x.dtype == np.uint8
        return Dataset(
            name=self.name,
            **arrays._asdict(),
            full_scale=FULL_SCALE if pixels else 1.0,
            n_classes=len(schema.classes),
            digest=hashlib.sha256(json.dumps([digest, about["schema"]], sort_keys=True).encode()).hexdigest(),
            classes=schema.classes,
            schema=schema,
            scaled=None if pixels else schema.scaled,
            stratified=True,
        )

    def _places(self) -> dict[str, Place]:
        """Return the files by setting; raise ``DataError`` if one does not exist."""
        paths = {name: getattr(self.config, name) for name in ("file", "test_file", "unlabelled_file")}
        return {name: Place.find(path, f"data.{name}") for name, path in paths.items() if path is not None}


def _key(config: DataConfig, places: dict[str, Place]) -> str:
    names = ("target", "test", "image_size", "leave_out", "categories")
    content = {name: _digest(place, tuple(place.version())) for name, place in places.items()}
    settings = {name: getattr(config, name) for name in names}
    return hashlib.sha256(json.dumps([EDITION, content, settings], sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=32)
def _digest(place: Place, version: tuple[Any, ...]) -> str:
    return place.digest()


def _read(config: DataConfig, places: dict[str, Place]) -> tuple[Arrays, bytes]:
    """Return the arrays, and as JSON the schema and notes."""
    rows = open_place(places["file"], config.target)
    target = target_of(rows, config.target)
    targets = read_targets(rows, target)
    apart = test_rows(targets.y, config.test)
    features = [name for name in rows.columns if name not in (target, *config.leave_out)]
    if not features:
        raise DataError(f"data need columns beside the target {target!r}, {rows.name} has none; name another target.")
    further = open_place(places["unlabelled_file"]) if "unlabelled_file" in places else None
    parts = [_without(rows.batches(features), apart)]
    n_further = 0
    if further is not None:
        _check_columns(further, features, "unlabelled rows")
        n_further = sum(map(len, further.batches(features[:1])))
        parts.append(further.batches(features))
    _check_named(config, rows)
    found = profile(parts, target=target, categories=config.categories, image_size=config.image_size)
    left_out = dict.fromkeys(config.leave_out, "data.leave_out names it") | dict(found.schema.left_out)
    schema = replace(found.schema, classes=targets.classes, left_out=left_out)
    notes = [*rows.notes, *found.notes]
    x = _empty(schema, len(apart) - int(apart.sum()) + n_further)
    y = np.concatenate([targets.y[~apart], np.full(n_further, UNLABELLED, np.int32)])
    test_x, test_y = _empty(schema, int(apart.sum())), targets.y[apart]
    _fill(schema, rows, x[: len(x) - n_further], ~apart, test_x)
    if further is not None:
        _fill(schema, further, x[len(x) - n_further :], np.ones(n_further, bool), test_x[:0])
    tests = open_place(places["test_file"], config.target) if "test_file" in places else rows.test
    if tests is not None and not config.test:
        test_x, test_y, skipped = _test_part(schema, tests, target)
        if skipped:
            notes.append(f"{skipped:,} rows of {tests.name} have no target and are not used for testing")
    about = {"schema": schema.as_json(), "notes": notes}
    return Arrays(x, y, test_x, test_y), json.dumps(about).encode()


def _test_part(schema: RowSchema, rows: Rows, target: str) -> tuple[NDArray[Any], NDArray[np.int32], int]:
    """Return the labelled rows of a test file, and the number of the others."""
    name = target if target in rows.columns else rows.target
    if name is None:
        raise DataError(f"test rows need the target, {rows.name} has no column {target!r}; add it.")
    _check_columns(rows, schema.names, "test rows")
    y = places_of(rows, name, schema.classes)
    labelled = y != UNLABELLED
    if not labelled.any():
        raise DataError(f"test rows need targets, {name!r} is missing in all rows of {rows.name}; fill them in.")
    x = _empty(schema, int(labelled.sum()))
    _fill(schema, rows, x, labelled, _empty(schema, len(y) - len(x)))
    return x, y[labelled], len(y) - len(x)


def _without(batches: Iterator[Any], apart: NDArray[np.bool_]) -> Iterator[Any]:
    """Yield the rows that are not ``apart``."""
    start = 0
    for batch in batches:
        mask = apart[start : start + len(batch)]
        yield batch.filter(pa.array(~mask)) if mask.any() else batch
        start += len(batch)


def _empty(schema: RowSchema, rows: int) -> NDArray[Any]:
    return np.empty((rows, schema.inputs), np.float32 if schema.image is None else np.uint8)


def _fill(schema: RowSchema, rows: Rows, x: NDArray[Any], mask: NDArray[np.bool_], others: NDArray[Any]) -> None:
    """Encode all rows of a file: those of ``mask`` into ``x``, the rest into ``others``. Numbers are float32, images
    uint8."""
    start = at = other = 0
    for batch in rows.batches(list(schema.names)):
        inside = mask[start : start + len(batch)]
        n = int(inside.sum())
        if schema.image is not None:
            encoded: NDArray[Any] = schema.encode_pixels(batch, start=start)
        elif n == len(batch):
            schema.encode_into(batch, x[at : at + n], start=start, unseen="missing")
            encoded = x[at : at + n]
        else:
            # The vocabulary is that of the training rows; further values of test rows are read as missing.
            encoded = schema.encode(batch, start=start, unseen="missing")
        if encoded.base is not x:
            x[at : at + n] = encoded[inside]
            others[other : other + len(batch) - n] = encoded[~inside]
        start, at, other = start + len(batch), at + n, other + len(batch) - n


def _check_named(config: DataConfig, rows: Rows) -> None:
    """Raise ``DataError`` if settings name columns that do not exist."""
    for setting in ("leave_out", "categories"):
        for name in getattr(config, setting):
            if name not in rows.columns:
                raise DataError(
                    f"data.{setting} names columns of {rows.name}, {name!r} is none; {suggested(name, rows.columns)}"
                )


def _check_columns(rows: Rows, needed: Sequence[str], what: str) -> None:
    missing = [name for name in needed if name not in rows.columns]
    if missing:
        raise DataError(
            f"{what} have the columns of the training rows, {rows.name} lacks {missing[0]!r}; "
            f"{suggested(missing[0], rows.columns)}"
        )


def _check_labels(config: DataConfig, schema: RowSchema) -> None:
    if config.labels is not None and config.labels < len(schema.classes):
        raise SettingError(
            f"data.labels must be at least the number of classes, {len(schema.classes)} in {config.name}, got "
            f"{config.labels}; set it to {len(schema.classes)} or more."
        )
