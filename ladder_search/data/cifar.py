"""CIFAR-10: 50,000 + 10,000 photographs, 32 x 32 in colour, by Krizhevsky 2009.

Classes 0..9: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck. A row has planes of 1,024 bytes of
red, green and blue, as in the official files.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ladder_search.data import sources
from ladder_search.data.arrays import Arrays, Notify
from ladder_search.data.images import channels_first, decoded
from ladder_search.errors import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
"""The binary version, which is fetched; the others are pickles and MATLAB files of the same bytes."""

OFFICIAL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
SIZE = 170_052_171
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDERS = ("", "cifar10", "CIFAR10", "cifar-10")
"""Folders below the user's folder."""

PYTHON_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-python.tar")
"""The Python version, as fetched by torchvision and Keras; browsers may decompress the .gz."""
PYTHON_FOLDER = "cifar-10-batches-py"
"""Folder in the Python version."""
PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""md5 sums of torchvision. For the binary version, only that of the archive is published."""
_BATCH_LIMIT = 40_000_000  # bytes; each has 31,035,320 to 31,035,999

RECOGNISED = f"{ARCHIVE}, {' or '.join(PYTHON_ARCHIVES)}, or the unpacked folder {PYTHON_FOLDER}"
"""Description of the accepted files."""

MEMBERS = tuple(
    f"cifar-10-batches-bin/{part}.bin" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
ROW = 1 + 3 * 32 * 32
"""Bytes of an image: its class, then its pixels."""

JPEG75 = "cifar10/cifar10_jpeg75.npz"
JPEG75_SHA256 = "0cf37e1ca7276942ee968b04b80b2abafe60324fa66c4542234e13d13fdae11a"


def load(notify: Notify) -> Arrays:
    """Return CIFAR-10: uint8 [50000, 3072] and [10000, 3072]; raise ``DataError`` if the archive is not available, or
    has other content."""
    folder = sources.data_folder()
    arrays = None if folder is None else from_folder(folder)
    if arrays is not None:
        return arrays
    needed, put = f"CIFAR-10 needs {ARCHIVE}", f"{RECOGNISED} into a folder"
    content = sources.fetch_verified(OFFICIAL, size=SIZE, sha256=SHA256, needed=needed, put=put, notify=notify)
    return from_archive(content)


def from_folder(folder: Path) -> Arrays | None:
    """Return CIFAR-10 from an archive or the unpacked Python version in ``folder``; None if it has neither. Raise
    ``DataError`` if a file is missing or has other content."""
    binary, python, batches = _place(folder)
    if binary is not None:
        return from_archive(sources.read_verified(binary, sha256=SHA256))
    if python is not None:
        return from_python_archive(python)
    if batches is None:
        return None
    missing = [name for name in PYTHON_MD5 if not (batches / name).is_file()]
    if missing:
        raise DataError(f"{batches} must hold {', '.join(PYTHON_MD5)}, it lacks {', '.join(missing)}; put them there.")
    return from_batches({name: (str(batches / name), sources.read(batches / name)) for name in PYTHON_MD5})


def load_jpeg75(notify: Notify) -> Arrays:
    """Return CIFAR-10 after JPEG of quality 75, in the official order: uint8 [50000, 3072] and [10000, 3072].

    The median signal-to-noise ratio to the official pixels is 30.5 dB, so errors differ from those on CIFAR-10. Raise
    ``DataError`` if the file is missing or has other content.
    """
    content = sources.read_arrays(JPEG75, JPEG75_SHA256)
    train_x, test_x = (
        channels_first(decoded(content[f"{part}_jpeg"], content[f"{part}_offset"])) for part in ("train", "test")
    )
    return Arrays(train_x, content["train_label"], test_x, content["test_label"])


def is_local() -> bool:
    """Return whether the user's folder has CIFAR-10; contents are not verified. Raise ``DataError`` if
    ``LADDER_SEARCH_DATA`` does not name a folder."""
    folder = sources.data_folder()
    return folder is not None and any(_place(folder))


def from_archive(content: bytes) -> Arrays:
    """Read the verified archive of the binary version without unpacking it to disk."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        batches = [np.frombuffer(_member(archive, name), np.uint8).reshape(-1, ROW) for name in MEMBERS]
    train, test = np.concatenate(batches[:-1]), batches[-1]
    return Arrays(train[:, 1:].copy(), train[:, 0].copy(), test[:, 1:].copy(), test[:, 0].copy())


def from_python_archive(path: Path) -> Arrays:
    """Read the archive of the Python version, compressed or not, without unpacking it to disk; raise ``DataError`` if
    it is not CIFAR-10's Python version."""
    try:
        with tarfile.open(path) as archive:
            contents = {name: _member(archive, f"{PYTHON_FOLDER}/{name}") for name in PYTHON_MD5}
    except (tarfile.TarError, KeyError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} must hold {', '.join(PYTHON_MD5)} in {PYTHON_FOLDER} ({error}); get the file again."
        ) from error
    return from_batches({name: (f"{name} in {path}", content) for name, content in contents.items()})


def from_batches(batches: Mapping[str, tuple[str, bytes]]) -> Arrays:
    """Return CIFAR-10 from the files of the Python version: name -> (path for messages, content); raise ``DataError``
    if a content is not the official one."""
    parts = []
    for name, md5 in PYTHON_MD5.items():
        what, content = batches[name]
        sources.check_md5(what, content, md5)
        batch = sources.unpickle_arrays(what, content)
        parts.append((np.asarray(batch["data"], np.uint8), np.asarray(batch["labels"], np.uint8)))
    (*train, test) = parts
    return Arrays(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), *test)


def _place(folder: Path) -> tuple[Path | None, Path | None, Path | None]:
    """Return the paths of the binary archive, the Python archive and its unpacked folder; None for missing ones."""
    batches = (folder / below / PYTHON_FOLDER for below in FOLDERS)
    return (
        sources.find_file(folder, FOLDERS, ARCHIVE),
        sources.find_any(folder, FOLDERS, PYTHON_ARCHIVES),
        next((path for path in batches if path.is_dir()), None),
    )


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    file = archive.extractfile(member) if member.size <= _BATCH_LIMIT else None
    if file is None:
        raise ValueError(f"{name} is no file of at most {_BATCH_LIMIT} bytes")
    return file.read()
