"""The best trials of a study folder made by hand, with checkpoints of a few steps."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder_search.bundles import load
from ladder_search.bundles.bundle import read_bundle
from ladder_search.bundles.top import export_top
from ladder_search.data.dataset import Dataset
from ladder_search.errors import CheckpointError, SettingError, StudyFolderError
from ladder_search.record.checkpoint import mark_checkpoint
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.training.checkpoint import write_member
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

EPOCHS = ({"epoch": 1, "validation_error": 0.5},)


@pytest.fixture(scope="module")
def pack(dataset: Dataset, spec: TrialSpec) -> Pack:
    """Three members of ten steps each: slot i has weights and labels of seed i + 1."""
    pack = spec.pack(dataset, slots=3, compiled=False, device=torch.device("cpu"))
    for draw in range(3):
        pack.join(spec.member(dataset, draw))
    pack.run(10)
    return pack


@pytest.fixture
def study(tmp_path: Path, spec: TrialSpec, pack: Pack) -> StudyFolder:
    """t0000 and t0003 finished equally well, t0002 better, t0001 was stopped while it was the best of all."""
    folder = StudyFolder(tmp_path / "study")
    folder.create(
        {
            "id": "a",
            "settings": {"study": "digits-50-tiny"},
            "study": {"name": "digits-50-tiny", "family": "ladder"},
            "store": "sqlite:////somewhere/mlflow.db",
            "provenance": {"git_sha": "0123", "git_diff": None},
        }
    )
    rows: tuple[tuple[int, Any, float | None, int], ...] = (
        (0, "COMPLETE", 0.25, 0),
        (1, "PRUNED", 0.05, 0),
        (2, "COMPLETE", 0.125, 1),
        (3, "COMPLETE", 0.25, 2),
        (4, "FAIL", None, 0),
        (5, "COMPLETE", None, 0),
    )
    for number, state, error, slot in rows:
        settings = replace(spec, seed=slot + 1, label_seed=slot + 1, draws=2).as_mapping()
        checkpoint = f"checkpoints/t{number:04d}/checkpoint_000001"
        for draw in range(2):
            member = folder.path / checkpoint / f"member-{draw}"
            write_member(member, pack.state((slot + draw) % 3), settings)
        record = TrialRecord(
            key=f"t{number:04d}",
            number=number,
            name="",
            state=state,
            reason="",
            params={},
            settings=settings,
            epochs=EPOCHS,
            validation_error=error,
            seconds=1.0,
            checkpoint=checkpoint if number != 3 else str(folder.path / checkpoint),
        )
        folder.write_trial(record)
    return folder


def test_the_best_finished_trials_become_bundles(
    study: StudyFolder, tmp_path: Path, dataset: Dataset, spec: TrialSpec, pack: Pack
) -> None:
    output = tmp_path / "out"
    paths = export_top(study, top=10, output=output, dataset=dataset)
    assert [path.name for path in paths] == ["01-t0002", "02-t0000", "03-t0003"]
    x = torch.from_numpy(dataset.test_x.copy()).float() / dataset.full_scale
    errors = pack.validation_errors()
    for path, slot, validation_error in zip(paths, (1, 0, 2), (0.125, 0.25, 0.25), strict=True):
        bundle = read_bundle(path)
        # Other members beside it may turn the last bit of a sum.
        torch.testing.assert_close(load(path)(x), pack.module(slot)(x).detach(), rtol=1e-5, atol=1e-6)
        assert bundle.metrics.validation_error == validation_error and bundle.metrics.epochs == EPOCHS
        assert bundle.metrics.weights_validation_error == errors[slot] and bundle.metrics.step == 10
        assert (bundle.study, bundle.metrics.state) == ("digits-50-tiny", "COMPLETE")
        assert bundle.spec == replace(spec, seed=slot + 1, label_seed=slot + 1, draws=2)
        assert bundle.provenance["data_digest"] == dataset.digest
        assert bundle.provenance["search_git_sha"] == "0123"


def test_fewer_are_asked_for_and_a_second_export_is_refused(
    study: StudyFolder, tmp_path: Path, dataset: Dataset
) -> None:
    assert [p.name for p in export_top(study, top=1, output=tmp_path / "out", dataset=dataset)] == ["01-t0002"]
    digest = read_bundle(tmp_path / "out" / "01-t0002").digest
    with pytest.raises(StudyFolderError, match="never overwritten"):
        export_top(study, top=2, output=tmp_path / "out", dataset=dataset)
    assert os.listdir(tmp_path / "out") == ["01-t0002"], "nothing is written when one is refused"
    assert read_bundle(tmp_path / "out" / "01-t0002").digest == digest
    with pytest.raises(SettingError, match="at least 1, got 0"):
        export_top(study, top=0, output=tmp_path, dataset=dataset)


def test_nothing_finished(study: StudyFolder, tmp_path: Path, dataset: Dataset) -> None:
    for number in (0, 2, 3):
        (study.trials / f"t{number:04d}.json").unlink()
    with pytest.raises(StudyFolderError, match="has none; wait for the search"):
        export_top(study, top=1, output=tmp_path / "out", dataset=dataset)
    with pytest.raises(StudyFolderError, match="holds no study"):
        export_top(StudyFolder(tmp_path / "empty"), top=1, output=tmp_path / "out", dataset=dataset)


def test_another_data_set(study: StudyFolder, tmp_path: Path, dataset: Dataset) -> None:
    other = replace(dataset, name="mnist")
    with pytest.raises(SettingError, match="on 'digits', got 'mnist'; give 'digits'"):
        export_top(study, top=1, output=tmp_path / "out", dataset=other)


def test_checkpoints_that_are_missing_or_foreign(
    study: StudyFolder, tmp_path: Path, dataset: Dataset, spec: TrialSpec
) -> None:
    def refused(told: str) -> None:
        with pytest.raises(CheckpointError, match=told):
            export_top(study, top=2, output=tmp_path / "out", dataset=dataset)
        assert not (tmp_path / "out").exists(), "nothing is written when one of them is missing"

    member = study.checkpoints / "t0000" / "checkpoint_000001" / "member-0"
    wider = replace(spec, model=replace(spec.model, widths=(64, 13, 10)))
    foreign = wider.pack(dataset, slots=1, compiled=False, device=torch.device("cpu"))
    foreign.join(wider.member(dataset))
    write_member(member, foreign.state(0), {})
    refused(r"must fit the trial's settings, where V\.0 has shape \(64, 12\), found \(64, 13\)")
    (member / "tensors.safetensors").write_bytes(b"")
    refused("sha256")
    shutil.rmtree(member)
    refused("checkpoint of t0000 must be in .*member-0, which is missing")
    record = study.read_trials()[0]
    study.write_trial(replace(record, checkpoint=None))
    refused("t0000 has none")


def test_the_checkpoint_of_another_search_is_refused(study: StudyFolder, dataset: Dataset, tmp_path: Path) -> None:
    """Two searches of one name and one storage: the second one's checkpoints lie where the first one's did."""
    place = study.path / "checkpoints" / "t0002" / "checkpoint_000001"
    mark_checkpoint(place, "b", "t0002")
    with pytest.raises(CheckpointError, match=r"t0002/checkpoint_000001 is of another one, which has the same name"):
        export_top(study, top=1, output=tmp_path / "configs", dataset=dataset)
    assert not (tmp_path / "configs").exists()
    mark_checkpoint(place, "a", "t0002")
    assert len(export_top(study, top=1, output=tmp_path / "configs", dataset=dataset)) == 1


@pytest.mark.parametrize(("scheduler", "same_weights", "keys"), [
    ("asha", False, ["t0002", "t0000"]), ("pbt", False, ["t0002", "t0000", "t0003"]), ("pbt", True, ["t0002", "t0000"]),
])  # fmt: skip
def test_bundles_are_never_equal(
    scheduler: str, same_weights: bool, keys: list[str], study: StudyFolder, dataset: Dataset, tmp_path: Path
) -> None:
    """Trials of one configuration, as searches of a finite space had them, and as population based training may."""
    description = study.description()
    description["settings"]["scheduler"] = scheduler
    study.describe(description)
    first, second = (next(r for r in study.read_trials() if r.key == key) for key in ("t0000", "t0003"))
    study.write_trial(replace(second, settings=first.settings))
    if same_weights:
        for draw in range(2):
            place, other = (study.path / "checkpoints" / key / "checkpoint_000001" for key in ("t0003", "t0000"))
            shutil.copytree(other / f"member-{draw}", place / f"member-{draw}", dirs_exist_ok=True)
    bundles = export_top(study, top=3, output=tmp_path / "configs", dataset=dataset)
    assert [bundle.name for bundle in bundles] == [f"{rank:02d}-{key}" for rank, key in enumerate(keys, start=1)]
    assert len({read_bundle(bundle).digest for bundle in bundles}) == len(bundles)


def test_so_is_one_of_an_earlier_version_that_has_other_settings(
    study: StudyFolder, dataset: Dataset, tmp_path: Path, pack: Pack, spec: TrialSpec
) -> None:
    place = study.path / "checkpoints" / "t0002" / "checkpoint_000001"
    write_member(place / "member-0", pack.state(0), replace(spec, seed=77, label_seed=2, draws=2).as_mapping())
    with pytest.raises(CheckpointError, match=r"has other settings than t0002: another search with the same name"):
        export_top(study, top=1, output=tmp_path / "configs", dataset=dataset)
    description = study.description()
    description["settings"]["scheduler"] = "pbt"  # in which that is no fault
    study.describe(description)
    assert len(export_top(study, top=1, output=tmp_path / "configs", dataset=dataset)) == 1
