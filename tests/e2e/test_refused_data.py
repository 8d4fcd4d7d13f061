"""Bad data in files at the command line: one sentence, exit code 2, before Ray starts, and nothing left behind."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.e2e.test_refusals import Refused, refused

__all__ = ["refused"]
pytestmark = pytest.mark.e2e

STUDY = """\
family: ladder
data: {{file: {file}, {settings}}}
model: {{widths: [2, 8, 2], noise_std: [0.3, 0.2, 0.2], lambda_: [10, 1, 0.1]}}
training: {{epochs: 2, labelled_batch: 20, unlabelled_batch: 20}}
stop: {{first_rung_steps: 10, failure_error: 1.0, failure_steps: 10}}
"""
N = 60


def frame(n: int = N, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    good = {"width": rng.normal(size=n), "height": rng.normal(size=n), "species": ["a", "b"] * (n // 2)}
    return pd.DataFrame({name: values for name, values in {**good, **columns}.items() if values is not None})


def csv(**columns: Any) -> Callable[[Path], None]:
    return lambda path: frame(**columns).to_csv(path, index=False)


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content) and None


BEFORE = "target: species, validation: 0.2"


@pytest.mark.parametrize(
    ("write", "settings", "says"),
    [
        (csv(), "target: specis, validation: 0.2", ["'specis' is none", "did you mean 'species'?"]),
        (csv(), "validation: 0.2", ["data.target is not set", "width, height, species"]),
        (csv(species=["a"] * N), BEFORE, ["two classes or more", "has only 'a'"]),
        (csv(species=[None] * N), BEFORE, ["is missing in all 60 rows"]),
        (csv(species=[f"s{i}" for i in range(N)]), BEFORE, ["60 classes in 60 labelled rows"]),
        (csv(), f"{BEFORE}, labels: 1", ["data.labels must be at least the number of classes, 2", "got 1"]),
        (csv(), f"{BEFORE}, leave_out: [heigth]", ["'heigth' is none", "did you mean 'height'?"]),
        (csv(width=None, height=None), BEFORE, ["need columns beside the target"]),
        (csv(width=[1.0] * N, height=[None] * N), BEFORE, ["a column that differs", "it is 1 in all rows"]),
        (csv(height=pd.date_range("2024-01-01", periods=N)), BEFORE, ["dates and times", "'height'"]),
        (csv(height=[f"a long text {i}" for i in range(N)]), BEFORE, ["free text is not read", "'height'"]),
        (csv(height=["many", *range(N - 1)]), BEFORE, ["'height' has both", "'many'"]),
        (csv(height=[np.inf] * N), BEFORE, ["must be finite", "'height' has inf in row 1"]),
        (text("width,species\n1,a\n2\n"), BEFORE, ["each of the 2 columns", "has 1"]),
        (text("width,width,species\n1,2,a\n"), BEFORE, ["'width' twice"]),
        (text("width,species\n"), BEFORE, ["data need rows"]),
        (text(b""), BEFORE, ["is empty"]),
        (text(gzip.compress(b"\0\1\2")), BEFORE, ["compressed data are text, NPY or idx"]),
        (text(b"\0\1\2"), BEFORE, ["Parquet, Arrow or Feather"]),
        (lambda path: None, BEFORE, ["does not exist on", "On a cluster"]),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_ray_starts(
    refused: Refused, tmp_path: Path, write: Callable[[Path], None], settings: str, says: list[str]
) -> None:
    write(tmp_path / "table.csv")
    (tmp_path / "mine.yaml").write_text(STUDY.format(file="table.csv", settings=settings))
    told = refused("mine.yaml", "--trials", "2")
    assert all(part in told for part in says), told


def test_a_test_file_with_other_columns_or_classes_is_refused(refused: Refused, tmp_path: Path) -> None:
    csv()(tmp_path / "table.csv")
    (tmp_path / "mine.yaml").write_text(STUDY.format(file="table.csv", settings=f"{BEFORE}, test_file: test.csv"))
    csv(height=None)(tmp_path / "test.csv")
    assert "lacks 'height'" in refused("mine.yaml")
    csv(species=["c"] * N)(tmp_path / "test.csv")
    assert "has 'c' in 'species' and these are 'a', 'b'" in refused("mine.yaml")


def test_a_local_path_that_only_another_machine_has_is_refused(refused: Refused, tmp_path: Path) -> None:
    settings = STUDY.format(file="/only/on/my/laptop.csv", settings=BEFORE)
    (tmp_path / "mine.yaml").write_text(settings)
    told = refused("mine.yaml")
    assert "'/only/on/my/laptop.csv' does not exist on" in told and "or an address of a bucket" in told
