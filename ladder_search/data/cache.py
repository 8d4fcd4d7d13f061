"""The cache: one Arrow file per data set, verified on every read and memory-mapped by all processes of a node.

A file has two record batches, the training and the test part, with columns ``x`` (fixed-shape tensor) and ``y`` (whole
numbers). Its schema metadata contain the data set's name, the layout version, the content digest, and a description for
data that have one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify, content_digest
from ladder_search.disk.files import remove_leftovers, write_atomically
from ladder_search.disk.lock import Lock
from ladder_search.errors import DataError, SettingError
from ladder_search.paths import expanded

if TYPE_CHECKING:  # imported on use, because uncached data need no PyArrow
    import pyarrow as pa

CACHE_VARIABLE = "LADDER_SEARCH_CACHE"
LAYOUT_VERSION = 1
"""Version of the layout, part of the files' names, so that old and new programs use different files."""

_DESCRIPTION = b"description"


class _DamagedError(Exception):
    """A cache file is damaged; the message states what was expected and what was found."""


def cache_folder() -> Path:
    """Return the folder from ``LADDER_SEARCH_CACHE``, or ``~/.cache/ladder-search``; it may not exist yet. Raise
    ``DataError`` if that home folder is unknown, ``SettingError`` if the variable refers to an unknown one or to an
    unset variable."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(expanded(folder, CACHE_VARIABLE)).absolute()
    try:
        return Path(expanded("~/.cache/ladder-search")).absolute()
    except SettingError as error:
        raise DataError(
            f"the cache needs a folder, and the home folder is unknown; set {CACHE_VARIABLE} to one."
        ) from error


def cache_file(name: str) -> Path:
    return cache_folder() / f"{name}.v{LAYOUT_VERSION}.arrow"


def is_cached(name: str, digest: str | None) -> bool:
    """Return whether a cache file declares this content; the content itself is not read."""
    import pyarrow as pa

    try:
        with _mapped(cache_file(name)) as file:
            _check_metadata(pa.ipc.open_file(file).schema, name, digest)
    except (OSError, pa.ArrowException, _DamagedError):
        return False
    return True


def load_or_build(name: str, digest: str | None, build: Callable[[], Arrays], notify: Notify) -> tuple[Arrays, str]:
    """Return the arrays of ``name``, read-only views of the memory-mapped cache file, and their digest; if they are
    missing or damaged, build and cache them first. Concurrent processes wait for the one that builds.

    Args:
        digest: expected sha256 (``content_digest``); None: the digest of the result of ``build`` is recorded in the
            file and verified by later loads.
        build: finds or fetches the arrays; called at most once, under the lock.
        notify: called with lines of progress, and when a damaged file is rebuilt.

    Raise ``DataError`` if ``build`` failed or returned other content, or the cache folder cannot be used.
    """
    arrays, digest, _ = _load(name, digest, lambda: (build(), b""), notify)
    return arrays, digest


def load_or_build_described(
    name: str, build: Callable[[], tuple[Arrays, bytes]], notify: Notify
) -> tuple[Arrays, str, bytes]:
    """Return arrays, digest and a description of ``name`` as ``load_or_build`` does; ``build`` returns arrays and
    description."""
    return _load(name, None, build, notify)


def _load(
    name: str, digest: str | None, build: Callable[[], tuple[Arrays, bytes]], notify: Notify
) -> tuple[Arrays, str, bytes]:
    path = cache_file(name)
    with suppress(_DamagedError):
        if (cached := _read(path, name, digest)) is not None:
            return cached
    with _locked(path, notify):
        damage = ""
        try:
            if (cached := _read(path, name, digest)) is not None:  # another process has built it meanwhile
                return cached
        except _DamagedError as error:
            damage = f"the cache file {path} is damaged ({error})"
            notify(f"{damage}; it is built again.")
        try:
            built, description = build()
        except DataError as error:
            if not damage:
                raise
            raise DataError(f"{damage} and cannot be built again: {error}") from error
        built_digest = content_digest(built)
        if built_digest != (digest or built_digest):
            raise DataError(
                f"data set {name!r} must have the content sha256 {digest}, what was loaded has {built_digest}; "
                "get the official files again."
            )
        _write(path, name, built_digest, built, description)
        try:
            cached = _read(path, name, built_digest)
        except _DamagedError as error:
            raise DataError(
                f"the cache file {path} must read back as written, it does not ({error}); "
                f"check the disk, or set {CACHE_VARIABLE} to a folder on another one."
            ) from error
        assert cached is not None, path
        return cached


def _read(path: Path, name: str, digest: str | None) -> tuple[Arrays, str, bytes] | None:
    """Return the verified arrays, their digest and their description, or None if there is no file."""
    import pyarrow as pa

    try:
        with _mapped(path) as file:
            reader = pa.ipc.open_file(file)
            digest = _check_metadata(reader.schema, name, digest)
            description: bytes = (reader.schema.metadata or {}).get(_DESCRIPTION, b"")
            if reader.num_record_batches != 2:
                raise _DamagedError(f"expected 2 record batches, found {reader.num_record_batches}")
            arrays = Arrays(*_arrays(reader.get_batch(0)), *_arrays(reader.get_batch(1)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise DataError(
            f"the cache file {path} must be readable, it is not ({error.strerror}); "
            f"change its permissions or set {CACHE_VARIABLE} to another folder."
        ) from error
    except (OSError, ValueError, LookupError, AttributeError, TypeError, pa.ArrowException) as error:
        # Altered schema bytes can give a column any type, hence the attribute and type errors.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _DamagedError(f"expected an Arrow file of two parts, found: {reason.rstrip('.')}") from error
    actual = content_digest(arrays)
    if actual != digest:
        raise _DamagedError(f"expected content sha256 {digest}, found {actual}")
    return arrays, digest, description


def _mapped(path: Path) -> Any:
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise _DamagedError("expected a file, found something else")
    import pyarrow as pa

    return pa.memory_map(str(path))


def _check_metadata(schema: pa.Schema, name: str, digest: str | None) -> str:
    """Return the digest declared by the file; it equals ``digest`` unless that is None."""
    metadata = schema.metadata or {}
    recorded: str = metadata.get(b"digest", b"none").decode(errors="replace")
    expected = _metadata(name, digest or recorded)
    for key, value in expected.items():
        if metadata.get(key) != value:
            text = metadata.get(key, b"none").decode(errors="replace")
            raise _DamagedError(f"expected {key.decode()} {value.decode()}, found {text}")
    return recorded


def _metadata(name: str, digest: str) -> dict[bytes, bytes]:
    return {b"name": name.encode(), b"version": str(LAYOUT_VERSION).encode(), b"digest": digest.encode()}


def _arrays(part: pa.RecordBatch) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return views of the mapped file: examples [n, *shape] and classes [n]."""
    part.validate()
    return part.column("x").to_numpy_ndarray(), part.column("y").to_numpy(zero_copy_only=True)


def _write(path: Path, name: str, digest: str, arrays: Arrays, description: bytes) -> None:
    import pyarrow as pa

    parts = [(arrays.train_x, arrays.train_y), (arrays.test_x, arrays.test_y)]
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(arrays.train_x)).type
    columns = [[_tensors(x, tensor), pa.array(y)] for x, y in parts]
    fields = [pa.field(name, column.type, nullable=False) for name, column in zip("xy", columns[0], strict=True)]
    described = {_DESCRIPTION: description} if description else {}
    schema = pa.schema(fields, metadata=_metadata(name, digest) | described)

    def write(file: IO[bytes]) -> None:
        with pa.ipc.new_file(file, schema) as writer:
            for part in columns:
                writer.write_batch(pa.record_batch(part, schema=schema))

    try:
        remove_leftovers(path)
        write_atomically(path, write)
    except OSError as error:
        raise _unusable(error, sum(array.nbytes for array in arrays)) from error


def _tensors(x: NDArray[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if not len(x):  # from_numpy_ndarray refuses an empty part
        return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))


@contextmanager
def _locked(path: Path, notify: Notify) -> Iterator[None]:
    """Hold the lock of a cache file, so that no two processes fetch the same data set."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(path.parent / f"{path.name}.lock")
        if not lock.acquire():
            notify(f"another process is building {path}; waiting for it.")
            lock.acquire(timeout=None)
    except OSError as error:
        raise _unusable(error) from error
    try:
        if lock.note:
            notify(lock.note)
        yield
    finally:
        lock.release()


def _unusable(error: OSError, n_bytes: int = 0) -> DataError:
    room = f" and have {n_bytes / 1e6:.0f} MB free" if n_bytes else ""
    return DataError(
        f"the cache folder must be writable{room}, {cache_folder()} is not ({error.strerror or error}); "
        f"correct this or set {CACHE_VARIABLE} to another folder."
    )
