"""CIFAR-10 from an archive of the official form, and from the file of JPEG images."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.data import cifar, datasets, sources
from ladder_search.data.arrays import Arrays, quiet
from ladder_search.data.dataset import ABSENT
from ladder_search.errors import DataError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (18, 3072), np.uint8)
LABELS = RANDOM.integers(0, 10, 18, np.uint8)


def archive() -> bytes:
    """Three images in each of the six files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for i, member in enumerate(cifar.MEMBERS):
            part = slice(3 * i, 3 * i + 3)
            content = b"".join(bytes([y]) + bytes(x) for y, x in zip(LABELS[part], PIXELS[part], strict=True))
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


CONTENT = archive()


@pytest.fixture(autouse=True)
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(cifar, "SIZE", len(CONTENT))
    monkeypatch.setattr(cifar, "OFFICIAL", "http://127.0.0.1:9/cifar")  # nobody listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    return tmp_path


def assert_is_cifar(found: Arrays) -> None:
    expected = Arrays(PIXELS[:15], LABELS[:15], PIXELS[15:], LABELS[15:])
    for name, array in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array, strict=True)


@pytest.mark.parametrize("below", cifar.FOLDERS)
def test_the_archive_in_the_users_folder(folder: Path, below: str) -> None:
    assert not cifar.is_local()
    (folder / below).mkdir(exist_ok=True)
    (folder / below / cifar.ARCHIVE).write_bytes(CONTENT)
    assert cifar.is_local()
    assert_is_cifar(cifar.load(quiet))


def test_the_official_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {("http://127.0.0.1:9/cifar", len(CONTENT)): CONTENT}
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: answers[url, at_most])
    assert_is_cifar(cifar.load(quiet))


def test_a_wrong_archive_is_refused_before_it_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "from_archive", lambda *a: pytest.fail("must not be opened"))
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"9/cifar must have the sha256 \w{64}, found \w{64}; get the file again"):
        cifar.load(quiet)
    (folder / cifar.ARCHIVE).write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"binary.tar.gz must have the sha256 \w{64}, found \w{64}; get the file again"):
        cifar.load(quiet)


def test_when_nothing_has_it_the_remedy_is_told(folder: Path) -> None:
    with pytest.raises(DataError) as raised:
        cifar.load(quiet)
    text = str(raised.value)
    assert text.startswith("CIFAR-10 needs cifar-10-binary.tar.gz: http://127.0.0.1:9/cifar cannot be fetched (")
    assert text.endswith(f"or put {cifar.RECOGNISED} into a folder and set LADDER_SEARCH_DATA to it.")
    assert "cifar-10-python.tar.gz" in text and "cifar-10-batches-py" in text and "\n" not in text


def python_2(name: str, labels: np.ndarray, data: np.ndarray) -> bytes:
    """A batch as Python 2 pickled it: text and bytes alike are strings of its time, which Python 3 cannot write."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    kind = (
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN" + 2 * number(-1) + b"K\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    raw = b"T" + data.size.to_bytes(4, "little") + data.tobytes()
    array = empty + b"(K\x01" + number(len(data)) + number(3072) + b"\x86" + kind + b"\x89" + raw + b"tb"
    classes = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    items = text(b"batch_label") + text(name.encode()) + text(b"labels") + classes + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def batches() -> dict[str, bytes]:
    """Three images in each of the six files."""
    parts = {name: slice(3 * place, 3 * place + 3) for place, name in enumerate(cifar.PYTHON_MD5)}
    return {name: python_2(name, LABELS[part], PIXELS[part]) for name, part in parts.items()}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    files = batches()
    monkeypatch.setattr(cifar, "PYTHON_MD5", {name: hashlib.md5(own).hexdigest() for name, own in files.items()})
    return files


@pytest.mark.parametrize("below", cifar.FOLDERS)
def test_the_unpacked_python_version(folder: Path, below: str, small_batches: dict[str, bytes]) -> None:
    place = folder / below / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name, content in small_batches.items():
        (place / name).write_bytes(content)
    assert cifar.is_local()
    assert_is_cifar(cifar.load(quiet))
    (place / "data_batch_3").unlink()
    with pytest.raises(DataError, match="it lacks data_batch_3; put them there"):
        cifar.load(quiet)
    (place / "data_batch_3").write_bytes(small_batches["data_batch_2"])
    with pytest.raises(DataError, match="data_batch_3 must have the md5"):
        cifar.load(quiet)


@pytest.mark.parametrize("name", cifar.PYTHON_ARCHIVES)
def test_the_archive_of_the_python_version_packed_and_not(
    folder: Path, name: str, small_batches: dict[str, bytes]
) -> None:
    with tarfile.open(folder / name, "w:gz" if name.endswith(".gz") else "w") as tar:
        for member, content in small_batches.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{member}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert cifar.is_local()
    assert_is_cifar(cifar.load(quiet))
    (folder / name).write_bytes((folder / name).read_bytes()[:700])
    with pytest.raises(DataError, match=r"must hold data_batch_1, .* in cifar-10-batches-py \(.*; get the file again"):
        cifar.load(quiet)


def test_a_batch_that_names_what_would_run_is_refused(small_batches: dict[str, bytes]) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("it ran",)

    for content in (pickle.dumps(Runs()), b"no pickle"):
        named = {name: ("here", content) for name in small_batches}
        with pytest.raises(DataError, match="here must have the md5"):
            cifar.from_batches(named)


def test_jpeg_images_become_one_plane_after_the_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    colours = np.array([[250, 10, 120], [0, 255, 0], [90, 90, 90]], np.uint8)
    files = []
    for colour in colours:
        file = io.BytesIO()
        image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(file, "JPEG", quality=100, subsampling=0)
        files.append(file.getvalue())
    arrays: dict[str, Any] = {
        "train_jpeg": np.frombuffer(b"".join(files[:2]), np.uint8),
        "train_offset": np.cumsum([0, *map(len, files[:2])]),
        "train_label": np.array([4, 1], np.uint8),
        "test_jpeg": np.frombuffer(files[2], np.uint8),
        "test_offset": np.array([0, len(files[2])]),
        "test_label": np.array([9], np.uint8),
    }
    path = folder / cifar.JPEG75
    path.parent.mkdir()
    np.savez(path, **arrays)
    monkeypatch.setattr(cifar, "JPEG75_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    found = cifar.load_jpeg75(quiet)
    planes = found.train_x.reshape(2, 3, 1024).astype(int)
    assert np.abs(planes - colours[:2, :, None]).max() <= 2
    assert np.abs(found.test_x.astype(int) - 90).max() <= 2 and found.test_x.shape == (1, 3072)
    assert found.train_y.tolist() == [4, 1] and found.test_y.tolist() == [9]


def test_the_real_jpeg_images() -> None:
    """Uses the user's own cache and folder."""
    if datasets.state("cifar10-jpeg75") == ABSENT:
        pytest.skip("cifar10-jpeg75 not available here")
    found = datasets.load("cifar10-jpeg75")
    assert np.bincount(found.train_y).tolist() == [5000] * 10 and np.bincount(found.test_y).tolist() == [1000] * 10
    # Means and deviations of the colours that are published for CIFAR-10, which JPEG hardly changes.
    planes = found.train_x[::7].reshape(-1, 3, 1024) / 255
    assert planes.mean(axis=(0, 2)) == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.004)
    assert planes.std(axis=(0, 2)) == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.006)
