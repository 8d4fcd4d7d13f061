"""Reproductions in another precision; the processor time and the commits that a reproduction records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.report.rows import cells, sentences
from ladder_search.reproduction.reproduction import FILE, Race, _with_commit, folder_name, read_reproduction
from ladder_search.reproduction.table import table
from ladder_search.studies import Study
from tests.unit.reproduction.racing import Begin, told


def test_another_precision_is_another_reproduction_with_its_time_and_commits(
    study: Study, dataset: Dataset, tmp_path: Path
) -> None:
    def race(folder: Path, precision: str) -> Race:
        return Race(
            study,
            dataset,
            root=tmp_path / "results",
            folder=folder,
            seeds=2,
            contenders=0,
            epochs=4,
            device=torch.device("cpu"),
            precision=precision,
        )

    folder = tmp_path / folder_name(study, 4, "bf16")
    assert folder.name == "tiny-bf16"
    reproduction = race(folder, "bf16").run(told([]))
    assert [c.spec.training.precision for c in reproduction.contenders] == ["bf16"]
    assert reproduction.cpu_seconds and 0.0 < reproduction.cpu_seconds < 600.0
    assert reproduction.commits == _with_commit(()) and read_reproduction(folder) == reproduction
    rows = table([reproduction])
    assert cells(rows[0])[0] == "tiny, bf16"
    assert any("in bf16" in line for line in sentences(rows, [reproduction]))
    with pytest.raises(StudyFolderError, match="goes on with the precision that it began with, bf16"):
        race(folder, "")
    kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
    (folder / FILE).write_text(json.dumps(kept | {"commits": ["another"]}), encoding="utf-8")
    again = race(folder, "bf16").run(told([]))
    assert again.commits == ("another",), "this code has trained nothing"
    assert again.cpu_seconds == reproduction.cpu_seconds


def test_an_interrupted_block_counts_its_time(begin: Begin) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin(seeds=1).run(told([], most=2))
    interrupted = begin(seeds=1).reproduction
    assert not interrupted.contenders[0].outcomes
    before = interrupted.cpu_seconds
    assert before and before > 0.0
    finished = begin(seeds=1).run(told([]))
    assert finished.complete and finished.cpu_seconds and finished.cpu_seconds > before


def test_data_without_test_rows_are_refused_before_anything_is_written(
    study: Study, dataset: Dataset, tmp_path: Path
) -> None:
    untested = replace(dataset, test_x=dataset.test_x[:0], test_y=dataset.test_y[:0])
    folder = tmp_path / "out"
    with pytest.raises(SettingError, match=r"has none; state data\.test_file, or data\.test: 0\.2, in the study file"):
        Race(
            study,
            untested,
            root=tmp_path / "results",
            folder=folder,
            seeds=2,
            contenders=0,
            epochs=4,
            device=torch.device("cpu"),
        )
    assert not folder.exists()
