"""DataConfig: data of the table or of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ladder_search.config import as_mapping, build
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.errors import SettingError, UnknownNameError


def test_settings_of_a_data_set_of_the_table_are_written_as_before_files_were_read() -> None:
    config = DataConfig(dataset="digits", labels=100, validation=297)
    assert as_mapping(config) == {"dataset": "digits", "labels": 100, "validation": 297, "preprocessing": "none"}
    assert list(as_mapping(config)) == ["dataset", "labels", "validation", "preprocessing"]
    assert build(DataConfig, as_mapping(config)) == config


def test_settings_of_files_are_read_and_written_with_whole_paths(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWERS", "flowers")
    config = DataConfig(file="$FLOWERS/train.csv", test_file="test.csv", target="species", validation=0.2)
    assert config.file == str(tmp_path / "flowers" / "train.csv")
    assert build(DataConfig, as_mapping(config)) == config
    assert "dataset" not in as_mapping(config)
    assert DataConfig(file="s3://bucket/train.parquet").file == "s3://bucket/train.parquet"


def test_the_name_of_data_tells_what_is_read_and_not_how_it_is_split() -> None:
    assert DataConfig(dataset="digits", labels=100).name == "digits"
    config = DataConfig(file="/data/flowers.csv", target="species", test=0.2)
    assert config.name == "/data/flowers.csv (target=species, test=0.2)"
    assert DataConfig(file="/data/flowers.csv", target="species", test=0.2, labels=10, folds=5).name == config.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "data need data.dataset or data.file, got neither"),
        ({"dataset": "digits", "file": "/x.csv"}, "leave one out"),
        ({"dataset": "digits", "target": "species"}, "data.target is a setting of data.file"),
        ({"dataset": "digits", "test": 0.2}, "data.test is a setting of data.file"),
        ({"file": "/x.csv", "test_file": "/y.csv", "test": 0.2}, "leave one out"),
        ({"file": "/x.csv", "test": 1.0}, r"data.test must lie in \[0, 0.9\]"),
        ({"file": "/x.csv", "validation": 1.5}, "whole number of rows or a share below 1"),
        ({"file": "/x.csv", "folds": 1}, "data.folds must be 0 or at least 2"),
        ({"file": "/x.csv", "image_size": 0}, "data.image_size must lie in"),
        ({"file": "$NO_SUCH_VARIABLE/x.csv"}, "data.file may use only variables that are set"),
    ],
)
def test_mistakes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build(DataConfig, settings)


def test_a_whole_number_of_validation_rows_may_be_written_as_a_float() -> None:
    assert type(build(DataConfig, {"dataset": "digits", "validation": 1e2}).validation) is int


def test_an_unknown_row_of_the_table_is_refused_by_settings_and_by_the_door() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        DataConfig(dataset="digit")
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        datasets.source_of("digit")


def test_the_door_takes_settings_and_names() -> None:
    by_name, by_settings = datasets.load("digits"), datasets.load(DataConfig(dataset="digits"))
    assert by_name.digest == by_settings.digest and by_name.name == by_settings.name == "digits"
    assert datasets.source_of("digits") is datasets.source_of(DataConfig(dataset="digits"))
