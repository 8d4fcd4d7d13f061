"""The table of data sets, loading through the cache, and the real data sets themselves."""

from __future__ import annotations

import builtins
import hashlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.data import datasets, digits, mnist
from ladder_search.data.arrays import Arrays, content_digest
from ladder_search.data.dataset import Dataset
from ladder_search.errors import UnknownNameError


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)
    return tmp_path / "cache"


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    for ask in (datasets.load, datasets.state):
        with pytest.raises(
            UnknownNameError, match=r"unknown data set 'mnits': did you mean 'mnist'\? Known: .*digits, .*mnist, "
        ):
            ask("mnits")


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_every_row_of_the_table_is_complete(name: str) -> None:
    row = datasets.DATASETS[name]
    assert row.name == name
    assert row.sources and row.description and row.identity
    if not isinstance(row, datasets.DatasetSource):  # made of another, or of files with a digest of their own
        return
    if row.digest is None:
        assert row.cache_name == f"{name}@{row.edition}"
    else:
        assert len(bytes.fromhex(row.digest)) == 32 and row.cache_name == name
    assert row.full_scale > 0 and row.n_classes > 1


def test_the_digest_covers_names_types_shapes_and_bytes_as_written_down() -> None:
    x = np.arange(6, dtype=np.uint8).reshape(3, 2)
    y = np.array([0, 1, 2], np.uint8)
    arrays = Arrays(x, y, x[:1], y[:1])
    by_hand = b"train_x |u1 3x2\n\0\1\2\3\4\5train_y |u1 3\n\0\1\2test_x |u1 1x2\n\0\1test_y |u1 1\n\0"
    assert content_digest(arrays) == hashlib.sha256(by_hand).hexdigest()
    strided = Arrays(np.asfortranarray(x), y, x[:1], y[:1])
    assert content_digest(strided) == content_digest(arrays)


def test_digits_are_scikit_learns_images_each_once(empty_cache: Path) -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load("digits")
    assert found.train_x.shape == (1297, 64) and found.test_x.shape == (500, 64)
    assert found.train_x.dtype == np.uint8 and found.train_y.dtype == np.uint8
    assert (found.train_x.min(), found.train_x.max(), found.full_scale) == (0, 16, 16.0)
    images, labels = sklearn_datasets.load_digits(return_X_y=True)
    rows = np.concatenate([np.c_[found.train_x, found.train_y], np.c_[found.test_x, found.test_y]])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, np.c_[images, labels].astype(np.uint8)))
    shares = np.bincount(labels) * 500 / 1797
    assert np.abs(np.bincount(found.test_y) - shares).max() < 1


def test_the_split_of_the_digits_follows_its_written_rule() -> None:
    labels = np.repeat(np.arange(10), 100)
    train, test = digits.split_rows(labels)
    assert len(test) == 500 and len(train) == 500
    order = sorted(range(1000), key=lambda row: hashlib.sha256(f"digits {row}".encode()).hexdigest())
    expected = sorted(row for c in range(10) for row in [r for r in order if r // 100 == c][:50])
    assert test.tolist() == expected
    assert sorted([*train, *test]) == list(range(1000))


def test_the_enlarged_digits_are_the_same_digits(empty_cache: Path) -> None:
    torch_functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    small, large = datasets.load("digits"), datasets.load("digits-28")
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(large, f"{part}_y"), getattr(small, f"{part}_y"))
        images = torch.tensor(getattr(small, f"{part}_x").reshape(-1, 1, 8, 8), dtype=torch.float64) * 255 / 16
        expected = torch_functional.interpolate(images, size=(28, 28), mode="bilinear").flatten(1)
        found = getattr(large, f"{part}_x")
        assert np.abs(found - expected.numpy()).max() <= 0.5 + 1e-6
        assert (found.min(), found.max()) == (0, 255) and large.full_scale == 255.0


def test_a_row_without_a_digest_tells_what_was_recorded(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.arange(12, dtype=np.uint8).reshape(4, 3), np.array([0, 1, 0, 1], np.uint8)
    made = Arrays(x, y, x[:2], y[:2])
    row = datasets.DatasetSource(
        name="toy",
        description="a toy",
        sources=("here",),
        digest=None,
        edition=3,
        full_scale=255.0,
        n_classes=2,
        loader=lambda notify: made,
        is_local=lambda: False,
        fetchable=False,
    )
    monkeypatch.setattr(datasets, "DATASETS", {"toy": row})
    assert datasets.state("toy") == "not available here"
    assert datasets.load("toy").digest == content_digest(made)
    assert datasets.state("toy") == "present"
    assert (empty_cache / "toy@3.v1.arrow").is_file()
    again = datasets.load("toy")
    assert again.name == "toy" and again.digest == content_digest(made)


def test_loaded_arrays_are_read_only_and_survive_pickling(empty_cache: Path) -> None:
    pytest.importorskip("sklearn")
    found = datasets.load("digits")
    for name in Arrays._fields:
        with pytest.raises(ValueError, match="read-only"):
            getattr(found, name)[0] = 0
    sent: Dataset = pickle.loads(pickle.dumps(found))
    assert sent.name == "digits" and sent.digest == found.digest
    assert content_digest(Arrays(sent.train_x, sent.train_y, sent.test_x, sent.test_y)) == found.digest


def test_a_second_load_reads_the_cache_alone(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    first = datasets.load("digits")
    real_import = builtins.__import__

    def no_sklearn(name: str, *rest: Any) -> Any:
        assert not name.startswith("sklearn"), "the second load must not import scikit-learn"
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_sklearn)
    again = datasets.load("digits")
    np.testing.assert_array_equal(first.train_x, again.train_x)


def test_state_says_what_can_be_had(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    assert datasets.state("digits") == "present"
    assert datasets.state("mnist") == "can be fetched"
    assert not empty_cache.exists(), "asking for the state must write nothing"
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").touch()
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert datasets.state("mnist") == "present"


def test_a_cached_data_set_is_present_even_when_its_source_is_gone(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    datasets.load("digits")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert datasets.state("digits") == "present"
    assert datasets.load("digits").n_classes == 10


def test_real_mnist() -> None:
    """The files of LADDER_SEARCH_DATA: a test fetches nothing."""
    if datasets.state("mnist") != "present":
        pytest.skip("LADDER_SEARCH_DATA has no MNIST")
    found = datasets.load("mnist")
    assert found.train_x.shape == (60000, 784) and found.test_x.shape == (10000, 784)
    assert found.train_y[:5].tolist() == [5, 0, 4, 1, 9]
    assert found.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(found.train_y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert found.train_x.mean() == pytest.approx(33.318, abs=5e-4)
    assert found.train_x.max() == found.full_scale == 255
    # The published md5 of the unpacked training images.
    content = b"\0\0\x08\3" + b"".join(n.to_bytes(4, "big") for n in (60000, 28, 28)) + found.train_x.tobytes()
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert mnist.FILES["train-images-idx3-ubyte"][1] == "6bbc9ace898e44ae57da46a324031adb"
