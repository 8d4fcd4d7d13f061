"""A CSV file of one's own: a proposed study, a search, a bundle, a final training, predictions, a registered model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import ROOT, environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]

SERVED = """
import sys
import mlflow, pandas
mlflow.set_tracking_uri("sqlite:///results/mlflow.db")
model = mlflow.pyfunc.load_model("models:/shapes/1")
rows = pandas.read_csv("new.csv")
whole, one = model.predict(rows), model.predict(rows.head(1))
assert list(one.iloc[0]) == list(whole.iloc[0]) or abs(one.iloc[0, 1] - whole.iloc[0, 1]) < 1e-6, (one, whole)
whole.to_csv("served.csv", index=False)
print(model.metadata.signature)
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    """Two classes that the size tells apart, but for the colour, which turns them round; with holes and an index."""
    rng = np.random.default_rng(seed)
    size, colour = rng.normal(0.0, 1.0, rows), rng.choice(["red", "green", "blue"], rows)
    kind = np.where((size > 0) ^ (colour == "red"), "round", "square").astype(object)
    size[rng.random(rows) < 0.05] = np.nan
    return pd.DataFrame({"id": range(rows), "size": size, "colour": colour, "maker": "us", "kind": kind})


@pytest.fixture(scope="module")
def journey(
    start: Callable[..., Any], command: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of the whole journey, and what each command printed."""
    folder = tmp_path_factory.mktemp("journey")
    rows = table(400, 1)
    rows.loc[rows.index >= 300, "kind"] = None
    rows.to_csv(folder / "shapes.csv", index=False)
    fresh = table(50, 2)
    fresh.drop(columns=["kind", "maker"]).to_csv(folder / "new.csv", index=False)
    (folder / "final").mkdir()
    done: dict[str, Any] = {}

    def ran(name: str, *words: str) -> None:
        done[name] = command(*words, folder=folder)
        assert done[name].returncode == 0, f"{name}: {done[name].stdout}{done[name].stderr}"

    ran("new", "new", "shapes", "--data", "shapes.csv", "--target", "kind")
    options = ("--trials", "3", "--epochs", "20", "--max-concurrent", "1", "--slots", "1", "--compile", "off")
    search = start("shapes.yaml", *options, folder=folder).ended()
    assert search.code == 0, str(search)
    done["search"] = search
    (folder / "shapes.yaml").rename(folder / "elsewhere.txt")  # from here on the study folder is enough
    ran("export", "export", "shapes", "-o", "configs")
    (bundle,) = (folder / "configs").iterdir()
    ran("train", "train", str(bundle), "--seeds", "2", "-o", "final/shapes")
    ran("reproduce", "reproduce", "shapes", "--seeds", "2", "--contenders", "1", "--epochs", "2")
    ran("predict", "predict", "final/shapes/seed-1001", "new.csv", "-o", "predictions.parquet")
    return folder, done


def test_new_says_what_it_saw(journey: tuple[Path, dict[str, Any]]) -> None:
    shown = journey[1]["new"].stdout
    assert "left out: it numbers the rows" in shown and "left out: it is 'us' in all rows" in shown
    assert "3 categories: blue, green, red" in shown and "missing values have an input" in shown
    assert "100 of them unlabelled" in shown and "wrote shapes.yaml" in shown


def test_the_study_is_found_by_name_without_its_file(journey: tuple[Path, dict[str, Any]]) -> None:
    folder, done = journey
    assert "(proposed)" in done["search"].out
    assert "proposed" in done["reproduce"].stdout and "re-run" not in done["reproduce"].stdout
    assert (folder / "configs").is_dir() and "over 2 seeds" in done["train"].stdout


def test_raw_rows_are_classified(journey: tuple[Path, dict[str, Any]]) -> None:
    folder, done = journey
    found = pq.read_table(folder / "predictions.parquet").to_pandas()
    assert list(found.columns) == ["class", "probability_round", "probability_square"] and len(found) == 50
    np.testing.assert_allclose(found.iloc[:, 1] + found.iloc[:, 2], 1.0, atol=1e-5)
    right = np.mean(found["class"] == table(50, 2)["kind"])
    assert right > 0.8, f"{right} of the new rows: chance is a half\n{done['train'].stdout}"


def test_the_registered_model_takes_raw_rows(journey: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = journey
    ran = subprocess.run(
        [sys.executable, "-c", SERVED], cwd=folder, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert "'size'" in ran.stdout and "'colour'" in ran.stdout and "'id'" not in ran.stdout
    found, served = pq.read_table(folder / "predictions.parquet").to_pandas(), pd.read_csv(folder / "served.csv")
    assert list(found["class"]) == list(served["class"])
    np.testing.assert_allclose(found.iloc[:, 1:], served.iloc[:, 1:], atol=1e-5)
    stored = [
        path
        for path in (folder / "results" / "mlartifacts").rglob("*")
        if path.suffix in (".pkl", ".pickle", ".pth", ".pt")
    ]
    assert not stored, "nothing of the model is a pickle"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="size"), "rows need the column 'size', which they lack"),
        (lambda rows: rows.assign(colour="mauve"), "the column 'colour' has 'mauve' in row 1"),
        (lambda rows: rows.assign(size="large"), "the column 'size' must have numbers"),
    ],
)
def test_rows_that_do_not_suit_are_one_sentence(
    journey: tuple[Path, dict[str, Any]], command: Callable[..., Any], tmp_path: Path, change: Any, message: str
) -> None:
    folder, _ = journey
    change(pd.read_csv(folder / "new.csv")).to_csv(tmp_path / "bad.csv", index=False)
    output = tmp_path / "out.parquet"
    done = command("predict", "final/shapes/seed-1001", str(tmp_path / "bad.csv"), "-o", str(output), folder=folder)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not output.exists() and not list(tmp_path.glob(".*"))


def test_new_overwrites_nothing(
    journey: tuple[Path, dict[str, Any]], command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("my notes")
    done = command("new", "mine", "--data", str(journey[0] / "shapes.csv"), "--target", "kind", folder=tmp_path)
    assert done.returncode == 2 and "mine.yaml exists" in done.stderr
    assert (tmp_path / "mine.yaml").read_text() == "my notes"
    for words, message in (
        (("new", "digits-100", "--data", "x"), "that of a built-in study"),
        (("new", "other", "--data", str(journey[0] / "shapes.csv")), "--target must name the column"),
        (("new", "other", "--data", str(journey[0] / "shapes.csv"), "--target", "kin"), "did you mean 'kind'?"),
    ):
        done = command(*words, folder=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert ROOT not in tmp_path.parents
