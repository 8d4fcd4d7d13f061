"""Formats of files: recognised by content, read as the same rows, refused in one sentence."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.files import open_rows
from ladder_search.data.sources import write_idx
from ladder_search.errors import DataError, UnknownNameError

N = 60
RNG = np.random.default_rng(7)
TABLE = pa.table(
    {
        "width": pa.array(np.round(RNG.normal(size=N), 4)),
        "colour": pa.array(RNG.choice(["red", "green"], N)),
        "species": pa.array([f"kind {i % 3}" for i in range(N)]),
    }
)


def load(path: Path, **settings: Any) -> Dataset:
    return datasets.load(DataConfig(file=str(path), **settings))


def table_file(path: Path, kind: str, table: pa.Table = TABLE) -> Path:
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=25)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, path)
    elif kind == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    elif kind in ("csv", "csv.gz"):
        content = io.BytesIO()
        pyarrow.csv.write_csv(table, content)
        path.write_bytes(gzip.compress(content.getvalue()) if kind == "csv.gz" else content.getvalue())
    else:
        options = pyarrow.csv.WriteOptions(delimiter={"tsv": "\t", "semicolons": ";"}[kind])
        pyarrow.csv.write_csv(table, path, options)
    return path


@pytest.mark.parametrize("kind", ["parquet", "feather", "stream", "csv", "csv.gz", "tsv", "semicolons"])
def test_every_format_of_a_table_gives_the_same_data_whatever_its_name_ends_with(tmp_path: Path, kind: str) -> None:
    data = load(table_file(tmp_path / "table.data", kind), target="species")
    assert data.classes == ("kind 0", "kind 1", "kind 2")
    assert data.train_y.tolist() == [i % 3 for i in range(N)]
    assert data.schema is not None and data.schema.input_names == ["width", "colour=green", "colour=red"]
    np.testing.assert_array_equal(data.train_x[:, 0], TABLE["width"].to_numpy().astype(np.float32))
    np.testing.assert_array_equal(data.train_x[:, 2], [value == "red" for value in TABLE["colour"].to_pylist()])
    assert data.train_x.dtype == np.float32 and not data.train_x.flags.writeable
    expected = load(table_file(tmp_path / "expected", "parquet"), target="species")
    assert data.digest == expected.digest  # the content is the same


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(3):
        table_file(folder / f"part-{i}.parquet", "parquet", TABLE.slice(20 * i, 20))
    assert load(folder, target="species").digest == load(table_file(tmp_path / "one", "csv"), target="species").digest


X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3


def test_arrays_of_npz_are_found_by_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", inputs=X, kind=Y)
    for data in (load(tmp_path / "a.npz"), load(tmp_path / "b.npz", target="kind")):
        np.testing.assert_array_equal(data.train_x, X)
        assert data.classes == (0, 1, 2) and data.train_y.tolist() == Y.tolist()


def test_test_arrays_of_npz_are_the_test_part(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X[:40], y_train=Y[:40], x_test=X[40:], y_test=Y[40:])
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.test_x, X[40:])
    assert data.test_y.tolist() == Y[40:].tolist() and len(data.train_x) == 40


def test_labels_lie_in_the_file_beside_an_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x_all.npy", X.astype(">f8"))
    np.save(tmp_path / "y_all.npy", np.array(["a", "b", "c"])[Y])
    data = load(tmp_path / "x_all.npy")
    np.testing.assert_allclose(data.train_x, X, rtol=1e-6)
    assert data.classes == ("a", "b", "c")
    np.save(tmp_path / "other.npy", Y)
    assert load(tmp_path / "x_all.npy", target="other.npy").classes == (0, 1, 2)
    with pytest.raises(DataError, match="'absent.npy' is not beside"):
        load(tmp_path / "x_all.npy", target="absent.npy")


@pytest.mark.parametrize("packed", [False, True])
def test_idx_images_have_their_labels_beside_them(tmp_path: Path, packed: bool) -> None:
    images = RNG.integers(0, 256, (N, 5, 6), dtype=np.uint8)
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", Y.astype(np.uint8))):
        content = write_idx(array)
        path = tmp_path / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    data = load(next(tmp_path.glob("train-images*")))
    assert data.full_scale == 255.0 and data.train_x.dtype == np.uint8 and data.scaled is None
    np.testing.assert_array_equal(data.train_x, images.reshape(N, -1))
    assert data.train_y.tolist() == Y.tolist()


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


COLOURS = RNG.integers(0, 256, (N, 5, 6, 3), dtype=np.uint8)


def test_images_in_parquet_as_hubs_write_them_have_class_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog", "cow"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table(
        {"image": [{"bytes": png(one), "path": f"{i}.png"} for i, one in enumerate(COLOURS)], "label": Y}
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "images.parquet")
    data = load(tmp_path / "images.parquet", target="label")
    assert data.classes == ("cat", "dog", "cow") and data.train_y.tolist() == Y.tolist()
    np.testing.assert_array_equal(data.train_x, COLOURS.transpose(0, 3, 1, 2).reshape(N, -1))


def image_folder(root: Path, images: np.ndarray[Any, Any] = COLOURS) -> Path:
    for i, one in enumerate(images):
        folder = root / ("unlabelled" if i >= 50 else f"kind {i % 3}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03}.png").write_bytes(png(one))
    (root / "kind 0" / ".DS_Store").write_bytes(b"x")
    return root


def test_a_folder_of_images_has_a_class_per_sub_folder_and_unlabelled_ones(tmp_path: Path) -> None:
    data = load(image_folder(tmp_path / "pictures"))
    assert data.classes == ("kind 0", "kind 1", "kind 2")
    assert np.bincount(data.train_y + 1).tolist() == [10, 17, 17, 16]
    first = [i for i in range(50) if i % 3 == 0]
    np.testing.assert_array_equal(data.train_x[:17], COLOURS[first].transpose(0, 3, 1, 2).reshape(17, -1))


def test_images_are_resized_where_it_is_set(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pictures")
    (folder / "kind 0" / "large.png").write_bytes(png(np.full((40, 40, 3), 200, np.uint8)))
    with pytest.raises(DataError, match=r"one size, .*png has 6 x 5 pixels and .*large.png has 40 x 40; set"):
        load(folder)
    data = load(folder, image_size=8)
    assert data.train_x.shape == (N + 1, 3 * 8 * 8)
    assert (data.train_x == 200).all(1).sum() == 1


def test_grey_images_among_colour_images_are_read_as_colour_images(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pictures")
    grey = np.full((5, 6), 77, np.uint8)
    (folder / "kind 0" / "grey.png").write_bytes(png(grey))
    notes: list[str] = []
    data = datasets.load(DataConfig(file=str(folder)), notify=notes.append)
    assert (data.train_x == 77).all(1).sum() == 1
    assert any("grey are read as colour" in note and "grey.png" in note for note in notes)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pictures")
    whole = (folder / "kind 1" / "001.png").read_bytes()
    (folder / "kind 1" / "001.png").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(DataError, match=r"images must be whole, .*kind 1/001.png is not .*; replace or remove it"):
        load(folder)
    (folder / "kind 1" / "001.png").write_text("no image")
    with pytest.raises(DataError, match=r"001.png is not \(no image that Pillow can read\)"):
        load(folder)


def test_images_of_16_bits_are_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pictures", COLOURS[:40])
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(folder / "kind 0" / "deep.png")
    with pytest.raises(DataError, match="8 bits per colour, .*deep.png has the mode I;16"):
        load(folder)


def _npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,species\n", "data need rows"),
        (b"1,2\n3,4\n", "starts with a line of column names"),
        (b"a,species\n1,x\n2\n3,y\n", r"one value for each of the 2 columns, .* has 1; correct it"),
        (b"a,a,species\n1,2,x\n", "'a' twice; rename one"),
        ("a,species\n1,ä\n2,b\n".encode("latin-1"), "must be in UTF-8"),
        ("a,species\n1,x\n".encode("utf-16"), "is in UTF-16; save it in UTF-8"),
        (b"%PDF-1.4\0\1\2", "none of them; convert it"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is an image; name the folder"),
        (b"PAR1 and no more", "must be whole and .* is not"),
        (b"ARROW1\0\0 and no more", "must be whole and .* is not"),
        (b"PK\x03\x04 and no more", "must be whole and .* is not"),
        (b"\x1f\x8b\x08 and no more", "must be whole and .* is not|must be a table"),
        (_npz(x=X, y=Y)[:-40], "must be whole and .* is not"),
        (_npz(a=X, b=X, y=Y), "in the array x, or in the only one beside the targets, .* has a, b, y"),
        (_npz(x=X, y=Y[:-1]), "one number or text for each example"),
        (_npz(x=np.array(["a"] * N), y=Y), "arrays of numbers"),
        (write_idx(np.zeros((4, 3, 3), np.uint8))[:-1], "must be whole and .* is not"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    target = None if content[:2] in (b"PK", b"\0\0") else "species"
    with pytest.raises(DataError, match=message) as caught:
        load(path, target=target)
    assert "table.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_objects_in_numpy_files_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}, 1], object))
    with pytest.raises(DataError, match="an array of numbers or text"):
        load(tmp_path / "x.npy")


def test_ten_million_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_bytes(b",".join(b"%d" % i for i in range(10_000_000)) + b"\n")
    with pytest.raises(DataError, match=r"at most 200,000 columns, the first line of .*wide.csv has more"):
        load(path, target="1")
    np.save(tmp_path / "wide.npy", np.zeros((2, 10_000_000), np.uint8))
    with pytest.raises(DataError, match=r"at most 200,000 columns, .*wide.npy has 10,000,000"):
        load(tmp_path / "wide.npy")


def test_a_missing_file_is_refused_with_its_machine(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.file must exist on the machine that reads it.* On a cluster, use"):
        load(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="data.test_file must exist"):
        load(table_file(tmp_path / "t", "csv"), target="species", test_file=str(tmp_path / "absent"))
    assert datasets.state(DataConfig(file=str(tmp_path / "absent.csv"))) == "not available here"


def test_folders_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no files"):
        load(tmp_path / "empty")
    image_folder(tmp_path / "deep" / "train")
    image_folder(tmp_path / "deep" / "test")
    with pytest.raises(DataError, match="set data.file to its folder train, and data.test_file to its folder test"):
        load(tmp_path / "deep")
    loose = image_folder(tmp_path / "loose")
    (loose / "stray.png").write_bytes(png(COLOURS[0]))
    with pytest.raises(DataError, match=r"stray.png lies in .*loose itself; move it, into unlabelled/"):
        load(loose)


def test_rows_of_a_file_can_be_read_in_batches_without_settings(tmp_path: Path) -> None:
    rows = open_rows(str(table_file(tmp_path / "t", "csv")), "FILE")
    assert rows.columns == ["width", "colour", "species"]
    assert sum(len(batch) for batch in rows.batches(["width"])) == N
    with pytest.raises(DataError, match="FILE must exist"):
        open_rows(str(tmp_path / "absent"), "FILE")


def test_an_unknown_array_suggests_the_nearest(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, labels=Y)
    with pytest.raises(UnknownNameError, match="did you mean 'labels'"):
        load(tmp_path / "a.npz", target="label")


def test_the_type_of_a_text_column_is_that_of_all_rows(tmp_path: Path) -> None:
    # More rows than are parsed at once: a type that suits the first ones is corrected.
    n = 1_200_000
    late = {"whole": ["1"] * (n - 1) + ["2.5"], "empty": [""] * (n - 1) + ["7"], "word": ["3"] * (n - 1) + ["many"]}
    lines = (",".join((*row, str(i % 2))) for i, row in enumerate(zip(*late.values(), strict=True)))
    path = tmp_path / "late.csv"
    path.write_text("\n".join([",".join((*late, "y")), *lines]) + "\n")
    rows = open_rows(str(path))
    assert [str(kind) for kind in rows.schema.types] == ["double", "double", "string", "double"]
    *_, last = rows.batches()
    assert last.slice(len(last) - 1).to_pylist() == [{"whole": 2.5, "empty": 7.0, "word": "many", "y": 1.0}]


@pytest.mark.parametrize("shape", [(N, 8, 6), (N, 8, 6, 3), (N, 3, 8, 6)])
def test_images_of_arrays_are_resized_too(tmp_path: Path, shape: tuple[int, ...]) -> None:
    levels = np.arange(N, dtype=np.uint8).reshape(N, *[1] * (len(shape) - 1))
    np.savez(tmp_path / "a.npz", x=np.broadcast_to(levels, shape), y=Y)
    data = load(tmp_path / "a.npz", image_size=4)
    assert data.train_x.shape == (N, (3 if len(shape) == 4 else 1) * 4 * 4)
    np.testing.assert_array_equal(data.train_x, np.broadcast_to(levels.reshape(N, 1), data.train_x.shape))
