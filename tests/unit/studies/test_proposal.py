"""Proposed studies: valid as they are written, with the rules of the documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.config import as_mapping, read_yaml
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.studies import STUDIES
from ladder_search.studies.proposal import Facts, study_text, target_column
from ladder_search.studies.study_file import parse_study_file
from spaces import ladder


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {"inputs": 30, "rows": 400, "labelled": (40, 30, 20), "tests": 50, "is_image": False}
    return Facts(**{**values, **changes})


def proposed(tmp_path: Path, about: Facts, **given: Any) -> Any:
    (tmp_path / "rows.csv").touch()
    given = {"file": "rows.csv", "target": "kind", **given}
    text = study_text("mine", DataConfig(**{**given, "file": str(tmp_path / "rows.csv")}), given, about)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments) > 8 and max(map(len, comments)) <= 120
    assert set(read_yaml(text)) > {"name", "family", "data", "model", "training", "stop", "baseline"}
    return parse_study_file(text, tmp_path / "mine.yaml", STUDIES)


def test_few_labels_are_judged_by_folds_and_many_by_a_share(tmp_path: Path) -> None:
    few, many = proposed(tmp_path, facts()), proposed(tmp_path, facts(labelled=(300, 200, 100), rows=5000))
    assert (few.data.folds, few.data.validation) == (5, 0)
    assert (many.data.folds, many.data.validation) == (0, 0.2)
    assert proposed(tmp_path, facts(labelled=(40, 30, 3))).data.folds == 3
    assert proposed(tmp_path, facts(labelled=(40, 30, 1))).data.folds == 0


def test_small_tables_get_small_networks_and_images_those_of_the_paper(tmp_path: Path) -> None:
    table = proposed(tmp_path, facts())
    assert table.model.widths == (30, 100, 50, 3) and table.model.lambda_[0] < 1000
    image = proposed(tmp_path, facts(inputs=784, is_image=True, rows=60_000))
    assert image.model.widths == (784, 1000, 500, 250, 250, 250, 3)
    assert table.space.lambda_0_scale == 0.01 and image.space.lambda_0_scale == 1.0
    assert image.model.lambda_ == (1000.0, 10.0, 0.1, 0.1, 0.1, 0.1, 0.1)


@pytest.mark.parametrize("rows", [3, 90, 101, 1000, 1_000_000])
def test_a_trial_of_any_number_of_rows_has_a_bounded_length(tmp_path: Path, rows: int) -> None:
    study = proposed(tmp_path, facts(rows=rows))
    updates = study.training.epochs * max(1, rows // study.training.unlabelled_batch)
    assert 1000 <= updates <= 1600 or study.training.epochs == 1, updates
    assert study.stop.first_rung_steps < updates and 1 <= study.report_every <= study.training.epochs


def test_imbalanced_classes_have_balanced_batches_and_the_balanced_error(tmp_path: Path) -> None:
    plain, skewed = proposed(tmp_path, facts()), proposed(tmp_path, facts(labelled=(90, 20, 20)))
    assert (plain.data.batches, skewed.data.batches) == ("as-drawn", "balanced")
    assert (plain.data.measure, skewed.data.measure) == ("error", "balanced-error")
    assert plain.stop.failure_error == round(1.1 * (1 - 40 / 90), 3)
    assert skewed.stop.failure_error == round(1.1 * (1 - 1 / 3), 3)


def test_the_baseline_is_the_network_without_decoder(tmp_path: Path) -> None:
    study = proposed(tmp_path, facts(labelled=(5, 5)))
    changed = study.with_overrides(study.baseline)
    assert changed.model.decoder == "none" and changed.model.widths == study.model.widths


def test_what_is_stated_is_kept_as_it_was_typed(tmp_path: Path) -> None:
    study = proposed(tmp_path, facts(), leave_out=["id", "note"], test=0.25)
    assert study.data.leave_out == ("id", "note") and study.data.test == 0.25
    assert study.data.file == str(tmp_path / "rows.csv")


def test_hidden_labels_keep_the_shares_of_the_classes() -> None:
    y = np.repeat([0, 1, -1], [60, 30, 10])
    dataset = Dataset.of_arrays(np.random.default_rng(0).normal(size=(100, 4)), y)
    assert Facts.of(dataset).labelled == (60, 30) and Facts.of(dataset, 9).labelled == (6, 3)
    assert Facts.of(dataset, 1000).labelled == (60, 30) and Facts.of(dataset).rows == 100


def test_a_target_is_guessed_by_an_unambiguous_name_only() -> None:
    assert target_column(["a", "Class", "b"]) == "Class"
    assert target_column(["target", "label"]) is None and target_column(["a", "b"]) is None


def test_the_proposed_settings_lie_in_the_space_of_the_search(tmp_path: Path) -> None:
    for about in (facts(), facts(inputs=784, is_image=True), facts(labelled=(9, 1))):
        study = proposed(tmp_path, about)
        assert ladder.published(study.trial().for_space(), as_mapping(study.space)) is not None
