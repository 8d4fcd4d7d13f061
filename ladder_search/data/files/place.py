"""Files on local disks and in buckets: their content, its digest, and changes while they are read."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import fs

from ladder_search.errors import DataError

_CHUNK = 1 << 22
_IGNORED = ("thumbs.db", "desktop.ini")
"""Files that file managers add to folders, beside those whose name begins with a dot."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or a folder."""

    path: str
    """Path or address as in the settings."""
    system: Any = field(compare=False)
    """File system of PyArrow."""
    inner: str
    """Path on ``system``."""
    what: str
    """Setting or argument of the path, for messages."""

    @classmethod
    def find(cls, path: str, what: str = "data.file") -> Place:
        """Return the place of a local path, or an address such as ``s3://bucket/train.parquet``; raise ``DataError`` if
        nothing is there, or the file system cannot be reached."""
        try:
            system, inner = fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)
            found = system.get_file_info(inner).type
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{what} must be a file or a folder, {path!r} cannot be reached ({first_line(error)}); correct the "
                "path, or give access to it."
            ) from error
        if found == fs.FileType.NotFound:
            raise DataError(
                f"{what} must exist on the machine that reads it, and {path!r} does not exist on "
                f"{platform.node() or 'this machine'}; correct the path. On a cluster, use a path that the head node "
                "sees, or an address of a bucket."
            )
        return cls(path, system, inner, what)

    @property
    def is_folder(self) -> bool:
        return bool(self.system.get_file_info(self.inner).type == fs.FileType.Directory)

    def __str__(self) -> str:
        return self.path

    def below(self, name: str) -> Place:
        """Return a file of this folder."""
        return Place(f"{self.path.rstrip('/')}/{name}", self.system, f"{self.inner.rstrip('/')}/{name}", self.what)

    def beside(self, name: str) -> Place | None:
        """Return the file ``name`` in the same folder; None if it does not exist."""
        path, inner = (f"{text.rpartition('/')[0]}/{name}" for text in (self.path, self.inner))
        exists = self.system.get_file_info(inner).type == fs.FileType.File
        return Place(path, self.system, inner, self.what) if exists else None

    @property
    def name(self) -> str:
        return self.inner.rstrip("/").rpartition("/")[2]

    def files(self) -> list[str]:
        """Return the files below this folder, relative and sorted, without hidden ones."""
        root = self.inner.rstrip("/") + "/"
        entries = self.system.get_file_info(fs.FileSelector(self.inner, recursive=True))
        names = (entry.path.removeprefix(root) for entry in entries if entry.type == fs.FileType.File)
        return sorted(name for name in names if not _is_ignored(name))

    def stream(self) -> Any:
        """Return the open file, to be closed by the caller; local files are memory-mapped."""
        try:
            if isinstance(self.system, fs.LocalFileSystem):
                return pa.memory_map(self.inner) if self.size() else pa.BufferReader(b"")
            return self.system.open_input_file(self.inner)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.what} must be readable, {self.path} is not ({first_line(error)}); change its permissions."
            ) from error

    def size(self) -> int:
        return int(self.system.get_file_info(self.inner).size)

    def read(self, most: int | None = None) -> bytes:
        """Return the content, or its first ``most`` bytes."""
        with self.stream() as file:
            content: bytes = file.read() if most is None else file.read(most)
            return content

    def digest(self) -> str:
        """Return the sha256 of the content; of a folder, that of the names and the contents of its files."""
        sha = hashlib.sha256()
        if not self.is_folder:
            with self.stream() as file:
                while chunk := file.read(_CHUNK):
                    sha.update(chunk)
            return sha.hexdigest()
        for name in self.files():
            sha.update(f"{name}\n{self.below(name).digest()}\n".encode())
        return sha.hexdigest()

    def version(self) -> list[tuple[str, int | None, int | None]]:
        """Return names, sizes and times of change of the file or of the files of the folder."""
        if not self.is_folder:
            infos = [self.system.get_file_info(self.inner)]
        else:
            infos = self.system.get_file_info(fs.FileSelector(self.inner, recursive=True))
        return sorted((info.path, info.size, info.mtime_ns) for info in infos)


@contextmanager
def unchanged(places: list[Place]) -> Iterator[None]:
    """Raise ``DataError`` at the end if one of the files has changed since the beginning."""
    before = [place.version() for place in places]
    yield
    for place, version in zip(places, before, strict=True):
        if place.version() != version:
            raise DataError(
                f"{place.what} must stay as it is while it is read, and {place} has changed; wait until it is "
                "complete, and start again."
            )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a final period."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__).rstrip(".")[:300]


def _is_ignored(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or parts[-1].lower() in _IGNORED
