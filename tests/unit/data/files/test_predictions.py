"""Predictions as files: three formats, part by part, complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from ladder_search.data.files.predictions import check_output, write_predictions
from ladder_search.errors import DataError, SettingError, StudyFolderError

COLUMNS = ("class", "probability_a", "probability_b")
PARTS = (np.float32([[0.75, 0.25], [0.125, 0.875]]), np.float32([[0.5, 0.5]]))


def read(path: Path) -> Any:
    if path.suffix == ".csv":
        return pacsv.read_csv(path)
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".csv"])
def test_each_format_holds_classes_and_probabilities_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    check_output(path)
    assert write_predictions(path, COLUMNS, ("a", "b"), iter(PARTS)) == 3
    assert read(path).to_pydict() == {
        "class": ["a", "b", "a"],
        "probability_a": [0.75, 0.125, 0.5],
        "probability_b": [0.25, 0.875, 0.5],
    }


def test_classes_that_are_numbers_stay_numbers(tmp_path: Path) -> None:
    write_predictions(tmp_path / "out.parquet", COLUMNS, (3, 7), iter(PARTS))
    assert read(tmp_path / "out.parquet")["class"].to_pylist() == [3, 7, 3]


def test_a_failure_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def parts() -> Iterator[Any]:
        yield PARTS[0]
        raise DataError("row 3")

    with pytest.raises(DataError, match="row 3"):
        write_predictions(tmp_path / "out.parquet", COLUMNS, ("a", "b"), parts())
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_and_unwritable_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"got 'out\.txt'; end the name with \.parquet, \.arrow, \.feather or \.csv"):
        check_output(tmp_path / "out.txt")
    (tmp_path / "file").touch()
    with pytest.raises(StudyFolderError, match="must be writable"):
        write_predictions(tmp_path / "file" / "out.csv", COLUMNS, ("a", "b"), iter(PARTS))
