"""The reproduction table: which result of a row it shows, what it says of rows without one, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder_search.config import as_mapping
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.report.published_rows import HEADER, PAGE, published_rows, read_costs, read_results, write_rows
from ladder_search.reproduction.contenders import Contender, Outcome
from ladder_search.reproduction.reproduction import FORMAT, Reproduction
from ladder_search.studies import STUDIES, find_study

ROOT = Path(__file__).resolve().parents[3]
SHA = "0123456789abcdef"


def race(study: str, errors: dict[int, float | None], **changed: Any) -> dict[str, Any]:
    published = Contender(
        name="published",
        settings=find_study(study).trial().as_mapping(),
        outcomes=tuple(Outcome(seed=seed, test_error=error) for seed, error in errors.items()),
    )
    fields: dict[str, Any] = {
        "epochs": find_study(study).training.epochs,
        "cpu_seconds": 3600.0 * len(errors),
    } | changed
    reproduction = Reproduction(
        study=study,
        seeds=tuple(errors),
        device="cpu",
        data_digest="d",
        contenders=(published,),
        commits=(SHA, f"{SHA}+"),
        **fields,
    ).with_table()
    return {"format": FORMAT, **as_mapping(reproduction)}


def keep(folder: Path, name: str, document: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def row_of(folder: Path, study: str) -> dict[str, str]:
    table = published_rows(read_results(folder), read_costs(folder))
    (row,) = [row for row in table.rows if row[0].startswith(f"`{study}`")]
    return dict(zip(HEADER, row, strict=True))


def test_a_row_with_its_verdict_cost_commit_and_command(tmp_path: Path) -> None:
    errors = {1001 + i: 0.0100 + 0.0001 * i for i in range(10)}
    keep(tmp_path, "a", race("mnist-100-full", {**errors, 1011: None}, precision="bf16"))
    row = row_of(tmp_path, "mnist-100-full")
    assert row["study"] == "`mnist-100-full`, bf16" and row["n"] == "10, 1 diverged"
    assert row["result"] == "1.04 % ± 0.03" and row["95 % interval"] == "1.02 .. 1.07 %"
    assert row["verdict"] == "reproduced" and row["core-hours a seed"] == "1"
    assert row["commit"] == "`0123456`, `0123456+`"
    assert row["command"] == "`ladder-search reproduce mnist-100-full --seeds 11 --precision bf16`"


def test_a_full_schedule_comes_before_a_reduced_one_with_more_seeds(tmp_path: Path) -> None:
    keep(tmp_path, "b", race("mnist-100-full", {s: 0.02 for s in range(1001, 1011)}, epochs=4))
    assert row_of(tmp_path, "mnist-100-full")["study"] == "`mnist-100-full`, 4 of 150 epochs"
    assert row_of(tmp_path, "mnist-100-full")["verdict"] == "reduced schedule"
    keep(tmp_path, "a", race("mnist-100-full", {1001: 0.011}))
    assert row_of(tmp_path, "mnist-100-full")["result"] == "1.10 %"


def test_rows_without_a_result_say_so_with_an_estimate(tmp_path: Path) -> None:
    keep(tmp_path, "a", race("mnist-100-full", {1001: 0.011, 1002: 0.012}))
    assert row_of(tmp_path, "mnist-1000-full")["core-hours a seed"] == "–"
    keep(tmp_path, "costs", {"flops": {"mnist-100-full": 2.0e14, "mnist-1000-full": 3.0e14}})
    row = row_of(tmp_path, "mnist-1000-full")
    assert row["result"] == "not run" and row["core-hours a seed"] == "about 1.5"
    rows = published_rows(read_results(tmp_path), {}).rows
    assert [row[0].split("`")[1] for row in rows] == [s.name for s in STUDIES.values() if s.target]


def test_the_runs_of_an_ordering_are_results_without_a_verdict(tmp_path: Path) -> None:
    reached = {"values": {"1001": 8.4, "1002": 8.5}, "diverged": [], "devices": ["cpu"]}
    ordering = {
        "format": "ladder-search ordering 2",
        "ordering": "jsb-table-3",
        "measure": "nll",
        "seeds": [1001, 1002],
    }
    document = {**ordering, "reduced_to_epochs": None, "studies": {"jsb-lstm": reached, "no-such-study": reached}}
    keep(tmp_path, "a", document)
    row = row_of(tmp_path, "jsb-lstm")
    assert row["result"] == "8.450 nats per step ± 0.071" and row["verdict"].startswith("no verdict: ")
    assert row["command"] == "`ladder-search ordering jsb-table-3 --seeds 2`"


def test_refusals_and_foreign_files(tmp_path: Path) -> None:
    keep(tmp_path, "foreign", {"format": "another"})
    with pytest.raises(StudyFolderError, match="has none; name a folder with some"):
        read_results(tmp_path)
    with pytest.raises(StudyFolderError):
        read_results(tmp_path / "missing")
    keep(tmp_path, "broken", {"format": FORMAT, "study": "mnist-100-full"})
    with pytest.raises(CheckpointError, match="broken.json must be a reproduction"):
        read_results(tmp_path)
    keep(tmp_path, "broken", race("mnist-100-full", {1001: 0.011}))
    path = write_rows(tmp_path, tmp_path / "out")
    assert path.name == PAGE and "| `mnist-100-full` | 1.06 % ± 0.37 | 1 | 1.10 % |" in path.read_text(encoding="utf-8")


def test_the_kept_costs_are_those_of_the_studies() -> None:
    costs = read_costs(ROOT / "reproductions" / "results")
    for name in ("mnist-100-full", "mnist-100-base", "pezeshki-100-vanilla"):
        study = find_study(name)
        steps = study.training.epochs * 60_000 // study.training.unlabelled_batch
        rows = study.training.labelled_batch, study.training.unlabelled_batch * study.model.reads_unlabelled
        assert costs[name] == pytest.approx(steps * study.model.flops(*rows), rel=0.01)
