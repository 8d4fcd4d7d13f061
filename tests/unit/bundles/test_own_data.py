"""Bundles of data from files: raw rows are encoded by the bundle's schema, and changed data are refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ladder_search.bundles.bundle import BundleMetrics, read_bundle, write_bundle
from ladder_search.cli import main
from ladder_search.config import as_mapping
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.driver.resume import check_unchanged
from ladder_search.errors import CheckpointError, DataError, SettingError
from ladder_search.final.results import bundle_folder, write_result
from ladder_search.final.training import train_final
from ladder_search.models.ladder import LadderConfig
from ladder_search.provenance import collect
from ladder_search.record.folder import StudyFolder
from ladder_search.reproduction.contenders import check_searched_data
from ladder_search.studies import find_study
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec

STUDY = """\
family: ladder
data: {{file: {file}, target: species, test: 0.2, validation: 0.2}}
model: {{widths: [4, 8, 2], noise_std: [0.3, 0.2, 0.2], lambda_: [10, 1, 0.1]}}
training: {{epochs: 2, labelled_batch: 20, unlabelled_batch: 20}}
stop: {{first_rung_steps: 10, failure_error: 0.5, failure_steps: 10}}
"""


def frame(n: int = 100, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    species = np.where(np.arange(n) % 2, "a", "b")
    return pd.DataFrame(
        {
            "length": rng.normal(size=n) + (species == "a"),
            "colour": rng.choice(["red", "green", "blue"], n),
            "species": species,
        }
    )


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "flowers.csv"
    frame().to_csv(path)  # with pandas' index as a column without a name
    return path


@pytest.fixture
def own(file: Path) -> TrialSpec:
    return TrialSpec(
        family="ladder",
        data=DataConfig(file=str(file), target="species", test=0.2, validation=0.2),
        model=LadderConfig(widths=(4, 8, 2), noise_std=(0.3, 0.2, 0.2), lambda_=(10.0, 1.0, 0.1)),
        training=TrainingConfig(epochs=2, labelled_batch=20, unlabelled_batch=20),
    )


@pytest.fixture
def bundle(tmp_path: Path, own: TrialSpec) -> Path:
    data = datasets.load(own.data)
    folder = tmp_path / "bundle"
    write_bundle(
        folder,
        study="",
        spec=own,
        module=own.empty_module(),
        metrics=BundleMetrics(trial="t0000", state="COMPLETE"),
        provenance=collect(**data.facts),
        schema=data.schema,
    )
    return folder


def test_a_bundle_encodes_raw_rows_and_names_the_classes(bundle: Path, own: TrialSpec) -> None:
    own_data: Dataset = datasets.load(own.data)
    read = read_bundle(bundle)
    assert read.schema is not None and read.schema == own_data.schema and read.schema.classes == ("a", "b")
    rows = frame(5, seed=1).drop(columns="species")
    inputs = read.schema.encode(rows)
    probabilities = read.module()(torch.from_numpy(inputs))
    assert probabilities.shape == (5, 2)
    np.testing.assert_array_equal(read.schema.encode(rows.iloc[2:3]), inputs[2:3])


def test_a_trained_network_takes_raw_rows_with_missing_values(tmp_path: Path, file: Path, own: TrialSpec) -> None:
    table = frame()
    table.loc[::5, "length"] = np.nan
    table.loc[::7, "colour"] = None
    table.to_csv(file)
    model = replace(own.model, widths=(6, 8, 2))  # with two indicators of missing values
    spec = replace(own, model=model, data=replace(own.data, validation=0))
    data = datasets.load(spec.data)
    result = train_final(spec, data, seeds=[1001], study=None, device=torch.device("cpu"))
    write_result(tmp_path / "final", result)
    read = read_bundle(bundle_folder(tmp_path / "final", 1001))
    assert read.schema is not None
    probabilities = read.module()(torch.from_numpy(read.schema.encode(table)))
    assert torch.isfinite(probabilities).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(table)))


def test_the_provenance_has_digest_rows_and_columns(bundle: Path, own: TrialSpec) -> None:
    provenance = read_bundle(bundle).provenance
    assert provenance["data_digest"] == datasets.load(own.data).digest
    assert (provenance["data_rows"], provenance["data_columns"]) == (80, 2)
    assert provenance["data_name"].endswith("flowers.csv (target=species, test=0.2)")


def test_the_schema_is_covered_by_the_manifest(bundle: Path) -> None:
    path = bundle / "schema.json"
    path.write_text(path.read_text().replace("colour", "color"))
    with pytest.raises(CheckpointError, match=r"schema.json must have sha256"):
        read_bundle(bundle)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"schema.json must be a readable file"):
        read_bundle(bundle)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["ladder-search", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_bundle_is_not_trained_on_changed_data(
    tmp_path: Path, bundle: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame(120).to_csv(file)
    arguments = ("train", bundle, "-o", tmp_path / "final", "--root", tmp_path / "results")
    said = run(monkeypatch, capsys, *arguments)
    assert "the bundle" in said and "flowers.csv" in said and "has changed since" in said and "Traceback" not in said


def _searched(tmp_path: Path, study: Any, digest: str) -> Path:
    root = tmp_path / "results"
    StudyFolder(root / "mine").create(
        {
            "id": "a",
            "settings": {"study": study.name},
            "study": json.loads(json.dumps(as_mapping(study))),
            "store": "sqlite:////x",
            "provenance": {"data_digest": digest},
        }
    )
    return root


def test_a_study_is_not_tested_on_data_that_changed_since_its_search(tmp_path: Path, file: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY.format(file=file))
    study = find_study(str(tmp_path / "mine.yaml"))
    before = datasets.load(study.data)
    root = _searched(tmp_path, study, before.digest)
    check_searched_data(study, before, root)
    frame(120).to_csv(file)
    with pytest.raises(DataError, match=r"the search .*mine belongs to the data that it was made from, .* has changed"):
        check_searched_data(study, datasets.load(study.data), root)


def test_data_of_the_table_are_identified_by_their_name(dataset: Dataset) -> None:
    dataset.check_unchanged("0" * 64, "a search")
    assert dataset.facts == {
        "data_name": "digits", "data_digest": dataset.digest, "data_rows": 1297, "data_columns": 64,
    }  # fmt: skip


def test_a_search_is_not_resumed_on_changed_data(tmp_path: Path, file: Path) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY.format(file=file))
    study = find_study(str(tmp_path / "mine.yaml"))
    facts = datasets.load(study.data).facts
    begun = {"study": json.loads(json.dumps(as_mapping(study))), "space": {}, "provenance": facts}
    check_unchanged(begun, study, {}, facts, tmp_path)
    frame(120).to_csv(file)
    with pytest.raises(SettingError, match="a resumed search keeps its data, .* restore the data or start"):
        check_unchanged(begun, study, {}, datasets.load(study.data).facts, tmp_path)
