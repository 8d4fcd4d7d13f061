"""Study files: the whole study survives a round trip, and every mistake is one sentence with file and setting."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ladder_search.config import read_yaml
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.studies import (
    STUDIES,
    Target,
    as_definition,
    baseline_of,
    difference,
    find_study,
    own_studies,
    study_of,
)
from ladder_search.studies.study_file import as_yaml, study_from

FULL = """\
family: ladder
data: {dataset: digits, labels: 100, validation: 297}
model: {widths: [64, 30, 10], noise_std: [0.3, 0.2, 0.2], lambda_: [10, 1, 0.1]}
training: {epochs: 5}
stop: {first_rung_steps: 10, failure_error: 0.5, failure_steps: 10}
"""


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_written_down_and_read_back(name: str) -> None:
    mine = replace(STUDIES[name], name=f"my-{name}", proposed=True)
    assert study_from(read_yaml(as_yaml(mine)), STUDIES) == mine
    assert study_of({"study": mine.name, "definition": json.loads(json.dumps(as_definition(mine)))}) == mine


def test_texts_that_look_like_numbers_stay_texts() -> None:
    mine = replace(STUDIES["digits-100"], name="1e-3", title="no", proposed=True)
    back = study_from(read_yaml(as_yaml(mine)), STUDIES)
    assert (back.name, back.title) == ("1e-3", "no")


def test_a_file_states_a_whole_study(write: Any) -> None:
    study = find_study(str(write(FULL)))
    assert (study.name, study.title, study.own, study.target, study.baseline) == (
        "mine",
        "ladder",
        "proposed",
        None,
        None,
    )
    assert study.trial().model.widths == (64, 30, 10) and study.training.lr == 0.002 and study.report_every == 1


def test_a_file_changes_a_study_of_the_table(write: Any) -> None:
    base = find_study("mnist-100-full")
    study = find_study(str(write("based_on: mnist-100-full\nname: longer\ntraining: {epochs: 300}\n")))
    assert study == replace(
        base, name="longer", proposed=True, training=replace(base.training, epochs=300)
    )  # the target is that of the same data


def test_other_data_have_no_published_target(write: Any) -> None:
    text = "based_on: mnist-100-full\ndata: {labels: 200}\n"
    assert find_study(str(write(text))).target is None and find_study(str(write(text))).baseline is None
    stated = find_study(str(write(f"{text}target: {{error: 0.02, source: our lab}}\nbaseline: mnist-100-base\n")))
    assert stated.target == Target(error=0.02, source="our lab") and stated.baseline == "mnist-100-base"


def test_a_baseline_may_be_changes_of_the_study(write: Any) -> None:
    study = find_study(str(write(f"{FULL}baseline: {{model: {{decoder: none, lambda_: [0, 0, 0]}}}}\n")))
    baseline = baseline_of(study)
    assert baseline is not None and baseline.model == replace(study.model, decoder="none", lambda_=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"mine\.yaml must be readable as YAML"),
        ("- 1", r"a study file must hold settings, .*mine\.yaml holds list"),
        ("", r"mine\.yaml holds NoneType"),
        (FULL + "trainnig: {}\n", r"mine\.yaml: unknown setting 'trainnig': did you mean 'training'\?"),
        (
            FULL.replace("widths", "widhts"),
            r"mine\.yaml: unknown setting 'model\.widhts': did you mean 'model\.widths'",
        ),
        (FULL.replace("epochs: 5", "epochs: many"), r"mine\.yaml: training\.epochs must be a whole number, got 'many'"),
        (FULL.replace("family: ladder\n", ""), r"mine\.yaml: setting 'family' is required and missing"),
        (FULL.replace("family: ladder", "family: lader"), r"mine\.yaml: unknown family 'lader': did you mean 'ladder'"),
        (FULL.replace("digits", "digit"), r"mine\.yaml: unknown data set 'digit': did you mean 'digits'"),
        (FULL + "name: digits-100\n", r"mine\.yaml: name must not be that of a built-in study, got digits-100"),
        (FULL + "name: ../x\n", r"mine\.yaml: name must be a plain folder name, got '\.\./x'"),
        (
            FULL + "based_on: digit-100\n",
            r"mine\.yaml: unknown study in based_on 'digit-100': did you mean 'digits-100'",
        ),
        (FULL + "baseline: digit-100\n", r"mine\.yaml: unknown study of the baseline 'digit-100'"),
        (FULL + "baseline: {model: {decodr: none}}\n", r"mine\.yaml: baseline: unknown setting 'model\.decodr'"),
        (
            FULL + "target: {error: 0.1, source: x, measure: nll}\n",
            r"mine\.yaml: target\.measure must be the measure of",
        ),
        (FULL + "target: {error: 0.1}\n", r"mine\.yaml: setting 'target\.source' is required"),
        (FULL + "report_every: often\n", r"mine\.yaml: report_every must be a whole number"),
        (
            FULL.replace("failure_error: 0.5", "failure_error: 50"),
            r"mine\.yaml: stop\.failure_error must lie in \[0, 1\]",
        ),
        (FULL + "data: {}\n", r"mine\.yaml must be readable as YAML, .*a key is given twice"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_setting(write: Any, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        find_study(str(write(text)))
    assert "\n" not in str(caught.value).strip()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"on the machine that runs the search, .*no\.yaml is not \(No such file"):
        find_study(str(tmp_path / "no.yaml"))


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "mine.yaml"
    source = "{bundle: ../b}"
    path.write_text(f"based_on: usps-from-ladder\nsources: {{mnist: {source}}}\n")
    assert find_study(str(path)).sources["mnist"].bundle == str(tmp_path / "b")


def test_data_in_the_folder_of_a_job_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(FULL.replace("dataset: digits", "file: digits.csv"))
    with pytest.raises(SettingError, match=r"data\.file must stay after the search, .*digits\.csv lies in the copy of"):
        find_study(str(folder / "mine.yaml"))
    with pytest.raises(SettingError, match="unknown study"):
        (folder / "mine.yaml").write_text("based_on: 3\ndata: {file: s3://bucket/digits.parquet}\n")
        find_study(str(folder / "mine.yaml"))


def test_the_copy_in_the_latest_study_folder_is_found_by_name(write: Any, tmp_path: Path) -> None:
    study = find_study(str(write(FULL)))
    for number, epochs in enumerate((5, 9)):
        folder = tmp_path / "root" / f"mine-{number}"
        folder.mkdir(parents=True)
        changed = as_definition(study.with_overrides({"training": {"epochs": epochs}}))
        settings = {"study": study.name, "definition": changed}
        (folder / "study.json").write_text(json.dumps({"settings": settings}))
        os.utime(folder / "study.json", (100 - number, 100 - number))
    assert find_study("mine", tmp_path / "root").training.epochs == 5
    assert list(own_studies(tmp_path / "root")) == ["mine"]
    with pytest.raises(UnknownNameError, match=r"unknown study 'mien': did you mean 'mine'"):
        find_study("mien", tmp_path / "root")


def test_the_difference_of_two_definitions_names_the_setting() -> None:
    study = as_definition(STUDIES["digits-100"])
    now = as_definition(STUDIES["digits-100"].with_overrides({"training": {"lr": 0.003}}))
    assert difference(study, now) == "training.lr was 0.002 and is now 0.003"
    assert difference(study, study) == ""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(text: str) -> Path:
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path / "mine.yaml"

    return written
