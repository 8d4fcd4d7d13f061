"""Data from files as data sets: targets, parts, the cache, changes, and refusals before anything is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.files import formats, source
from ladder_search.errors import DataError, LadderSearchError, SettingError

N = 100
RNG = np.random.default_rng(5)


def frame(n: int = N, **columns: Any) -> pa.Table:
    x = np.random.default_rng(n).normal(size=n)
    return pa.table({"x": x, "colour": ["red", "green"] * (n // 2), "y": [f"c{i % 4}" for i in range(n)], **columns})


def write(path: Path, table: pa.Table) -> str:
    pq.write_table(table, path)
    return str(path)


def load(path: str, **settings: Any) -> Dataset:
    return datasets.load(DataConfig(file=path, **{"target": "y", **settings}))


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([None, "b", "a", "", " ", "b", "a", "-1"], ("a", "b")),
        ([None, 7, 3, -1, float("nan"), 7, 3, None], (3, 7)),
        ([-1, 7.0, 3.0, -1.0, -1, 7, 3, -1], (3, 7)),
        ([None, True, False, None, None, True, False, None], ("false", "true")),
    ],
)
def test_missing_targets_are_unlabelled_rows(tmp_path: Path, y: list[Any], classes: tuple[Any, ...]) -> None:
    data = load(write(tmp_path / "t", pa.table({"x": RNG.normal(size=8), "y": pa.array(y, from_pandas=False)})))
    assert data.classes == classes and data.n_classes == 2
    assert data.train_y.tolist() == [-1, 1, 0, -1, -1, 1, 0, -1]


def test_a_dictionary_column_is_a_target(tmp_path: Path) -> None:
    table = pa.table({"x": RNG.normal(size=6), "y": pa.array(["b", "a", None] * 2).dictionary_encode()})
    assert load(write(tmp_path / "t", table)).train_y.tolist() == [1, 0, -1] * 2


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        ({"target": "Y"}, {}, "data.target must be a column of .*, 'Y' is none; did you mean 'y'"),
        ({"target": None}, {}, "data.target is not set; set it to one of x, colour, y"),
        ({}, {"y": ["same"] * N}, "two classes or more, 'y' of .* has only 'same'"),
        ({}, {"y": [str(i) for i in range(N)]}, "has 100 classes in 100 labelled rows"),
        ({}, {"y": pa.nulls(N, pa.string())}, "'y' of .* is missing in all 100 rows; fill in some"),
        ({}, {"y": pa.nulls(N)}, "'y' of .* is missing in all 100 rows"),
        ({}, {"y": np.linspace(0, 1, N)}, "classes are text or whole numbers, .* has 0.01"),
        ({}, {"y": pa.array(range(N), pa.date32())}, "text or whole numbers, the column 'y' of .* has date32"),
        ({"labels": 3}, {}, "data.labels must be at least the number of classes, 4 in .*, got 3; set it to 4 or more"),
        ({"leave_out": ("color",)}, {}, "data.leave_out names columns of .*, 'color' is none; did you mean 'colour'"),
        ({"leave_out": ("x", "colour")}, {}, "columns beside the target 'y', .* has none"),
        ({}, {"x": [float("inf")] * N}, "'x' has inf in row 1"),
    ],
)
def test_targets_and_columns_that_cannot_be_used_are_refused(
    tmp_path: Path, settings: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    table = frame()
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    with pytest.raises(LadderSearchError, match=message) as caught:
        load(write(tmp_path / "t", table), **settings)
    assert isinstance(caught.value, (DataError, SettingError)) and "\n" not in str(caught.value)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data need rows, .* has none"):
        load(write(tmp_path / "t", frame().slice(0, 0)))


def test_a_share_for_testing_is_stratified_and_fixed(tmp_path: Path) -> None:
    y = ["a"] * 60 + ["b"] * 30 + ["c"] * 8 + [None] * 2
    path = write(tmp_path / "t", frame(number=np.arange(N) * 1.5, y=y).drop(["y"]).append_column("y", [y]))
    data = load(path, test=0.25)
    assert np.bincount(data.test_y).tolist() == [15, 8, 2] and (data.train_y == -1).sum() == 2
    numbers = np.concatenate([data.train_x, data.test_x])[:, -1]
    np.testing.assert_array_equal(np.sort(numbers), np.arange(N, dtype=np.float32) * 1.5)
    again = load(path, test=0.25, labels=20, validation=0.2)
    np.testing.assert_array_equal(again.test_x, data.test_x)


def test_the_vocabulary_is_that_of_the_training_rows(tmp_path: Path) -> None:
    training = frame()
    test = frame(20).set_column(1, "colour", pa.array(["blue", "red"] * 10))
    data = load(write(tmp_path / "a", training), test_file=write(tmp_path / "b", test))
    assert data.schema is not None and data.schema.input_names == ["x", "colour=green", "colour=red"]
    np.testing.assert_array_equal(data.test_x[:, 1:], [[0, 0], [0, 1]] * 10)


def test_a_test_file_has_the_columns_and_classes_of_the_training_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a", frame())

    def tested(table: pa.Table) -> Dataset:
        return load(path, test_file=write(tmp_path / "b", table))

    shuffled = frame(20).select(["y", "colour", "x"])
    assert len(tested(shuffled).test_y) == 20
    with pytest.raises(DataError, match="test rows have the columns of the training rows, .* lacks 'colour'"):
        tested(frame(20).drop(["colour"]))
    with pytest.raises(DataError, match="test rows need the target, .* has no column 'y'"):
        tested(frame(20).drop(["y"]))
    with pytest.raises(DataError, match="has 'other' in 'y' and these are 'c0', 'c1', 'c2', 'c3'"):
        tested(frame(20).set_column(2, "y", pa.array(["other"] * 20)))
    with pytest.raises(DataError, match="test rows need targets, 'y' is missing in all rows"):
        tested(frame(20).set_column(2, "y", pa.nulls(20, pa.string())))
    with pytest.raises(DataError, match="the column 'x' must have numbers, it has text"):
        tested(frame(20).set_column(0, "x", pa.array(["many"] * 20)))


def test_unlabelled_rows_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    more = frame(40).drop(["y"]).set_column(1, "colour", pa.array(["blue"] * 40))
    data = load(write(tmp_path / "a", frame()), unlabelled_file=write(tmp_path / "b", more))
    assert data.train_x.shape == (140, 4) and (data.train_y == -1).sum() == 40
    np.testing.assert_array_equal(data.train_x[100:, 0], more["x"].to_numpy().astype(np.float32))
    with pytest.raises(DataError, match="unlabelled rows have the columns of the training rows, .* lacks 'x'"):
        load(write(tmp_path / "a", frame()), unlabelled_file=write(tmp_path / "b", more.drop(["x"])))
    strange = more.set_column(0, "x", pa.array(["many"] * 40))
    with pytest.raises(DataError, match="same type in all files, 'x' has string after another one"):
        load(write(tmp_path / "a", frame()), unlabelled_file=write(tmp_path / "b", strange))


def test_an_index_that_starts_again_in_each_file_is_left_out(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, frame(60, row=range(60))) for name in "ab"]
    data = load(paths[0], unlabelled_file=paths[1], test=0.2)
    assert data.schema is not None and dict(data.schema.left_out) == {"row": "it numbers the rows"}


def test_files_are_read_once_and_again_when_content_or_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    opened = formats.open_place
    monkeypatch.setattr(source, "open_place", lambda place, *a: (reads.append(place.path), opened(place, *a))[1])
    path = write(tmp_path / "t", frame())
    first = load(path)
    second = load(path, labels=8, validation=0.2)  # the split does not depend on the files
    assert len(reads) == 1 and second.digest == first.digest
    assert isinstance(second.train_x.base, object) and not second.train_x.flags.owndata  # memory-mapped
    assert load(path, categories=("x",)).digest != first.digest and len(reads) == 2
    changed = frame().set_column(2, "y", pa.array([f"d{i % 4}" for i in range(N)]))
    assert load(write(tmp_path / "t", changed)).digest != first.digest  # only the names of the classes differ
    os.replace(write(tmp_path / "u", frame()), path)
    assert load(path).digest == first.digest and len(reads) == 3


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t", frame())
    opened = formats.open_place

    def growing(place: Any, *more: Any) -> Any:
        rows = opened(place, *more)
        write(tmp_path / "t", frame(120))
        return rows

    monkeypatch.setattr(source, "open_place", growing)
    with pytest.raises(DataError, match=r"data.file must stay as it is while it is read, and .* has changed"):
        load(path)


def test_the_state_and_the_identity_of_files_are_known_before_they_are_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "t", frame())
    config = DataConfig(file=path, target="y")
    assert datasets.state(config) == "present"
    before = datasets.source_of(config).identity
    assert datasets.source_of(DataConfig(file=path, target="y", labels=8)).identity == before
    write(tmp_path / "t", frame(120))
    assert datasets.source_of(config).identity != before


def test_a_data_set_of_files_can_be_split_for_training(tmp_path: Path) -> None:
    data = load(write(tmp_path / "t", frame()))
    split = data.split(n_labelled=20, validation=0.2, seed=1)
    assert len(split.labelled) and not set(split.labelled) & set(split.validation)
    assert data.stratified and data.full_scale == 1.0
    assert data.scaled is not None and data.scaled.tolist() == [True, False, False]


def test_files_may_be_named_by_an_address(tmp_path: Path) -> None:
    path = write(tmp_path / "t", frame())
    by_address = load(f"file://{path}")
    assert by_address.digest == load(path).digest and by_address.name.startswith("file://")
    with pytest.raises(DataError, match="cannot be reached"):
        load("nowhere://bucket/train.parquet")
