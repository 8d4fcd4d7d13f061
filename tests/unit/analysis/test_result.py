"""Which examples an analysis looks at, and the folder that keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from ladder_search.analysis.result import (
    ANALYSIS,
    Analysis,
    examples,
    kept_analysis,
    name_of,
    part_of,
    write_analysis,
)
from ladder_search.bundles.bundle import Bundle, BundleMetrics
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.splits import make_split
from ladder_search.errors import CheckpointError, SettingError, StudyFolderError
from ladder_search.models.ladder import LadderConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    seed: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    layers: tuple[Layer, ...]


ANALYSED = Analysis(
    family="progressive",
    study="",
    bundle="b" * 64,
    dataset="digits",
    data_digest="d" * 64,
    part="validation",
    settings=Settings(seed=3),
    found=Found(layers=(Layer(share=0.1 + 0.2), Layer(share=None))),
    device="cpu",
    seconds=1.5,
    provenance={"git_sha": "ab", "git_dirty": None},
)


def bundle_of(spec: TrialSpec) -> Bundle:
    metrics = BundleMetrics(trial="t0001", state="COMPLETE")
    return Bundle(
        folder=Path("configs/01-t0001"),
        study="",
        spec=spec,
        metrics=metrics,
        provenance={},
        digest="b" * 64,
        tensors=dict[str, torch.Tensor](),
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def spec() -> TrialSpec:
    return TrialSpec(
        family="ladder",
        data=DataConfig(dataset="digits", labels=50, validation=297),
        model=LadderConfig(widths=(64, 12, 10), noise_std=(0.3, 0.2, 0.1), lambda_=(100.0, 1.0, 0.1)),
        training=TrainingConfig(epochs=4, unlabelled_batch=200),
    )


def test_validation_rows_are_those_of_the_bundles_own_draw(dataset: Dataset, spec: TrialSpec) -> None:
    bundle = bundle_of(replace(spec, label_seed=7, draws=3))
    assert part_of(bundle, test=False) == "validation"
    split = make_split(dataset.train_y, n_labelled=50, n_validation=297, n_classes=10, seed=7)
    held_out = {(dataset.train_x[row].tobytes(), int(dataset.train_y[row])) for row in split.validation}
    for rows, expected in ((100, 100), (297, 297), (None, 297)):
        shown = examples(bundle, dataset, "validation", rows=rows, seed=1, usual=1000)
        given = {(image.tobytes(), int(label)) for image, label in zip(shown.x, shown.y, strict=True)}
        assert len(shown.x) == len(shown.y) == expected
        assert given <= held_out and (expected < 297 or given == held_out)


def test_test_rows_are_each_taken_once_and_by_the_seed(dataset: Dataset, spec: TrialSpec) -> None:
    final = bundle_of(replace(spec, data=replace(spec.data, validation=0)))
    assert part_of(final, test=False) == part_of(final, test=True) == "test"
    numbered = replace(dataset, test_x=np.arange(500, dtype=np.uint16)[:, None], test_y=dataset.test_y)  # type: ignore[arg-type]
    all_ = examples(final, numbered, "test", rows=500, seed=1, usual=10)
    assert sorted(all_.x[:, 0]) == list(range(500))
    assert (all_.y == dataset.test_y[all_.x[:, 0]]).all()
    few, again, other = (examples(final, numbered, "test", rows=None, seed=s, usual=10).x[:, 0] for s in (1, 1, 2))
    assert len(few) == 10 and (few == again).all() and set(few) != set(other)


def test_a_bundle_of_a_search_never_meets_the_test_set(spec: TrialSpec) -> None:
    with pytest.raises(SettingError, match="is for bundles of a final training and configs/01-t0001 holds out rows"):
        part_of(bundle_of(spec), test=True)


@pytest.mark.parametrize("rows", [0, 298])
def test_more_rows_than_there_are(dataset: Dataset, spec: TrialSpec, rows: int) -> None:
    with pytest.raises(SettingError, match=rf"--rows must lie in 1..297, the validation rows of digits, got {rows};"):
        examples(bundle_of(spec), dataset, "validation", rows=rows, seed=1, usual=1000)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "analysis"
    assert kept_analysis(folder, ANALYSED.asked, settings=Settings, found=Found) is None
    write_analysis(folder, ANALYSED, {"a.png": b"picture"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", ANALYSIS]
    assert kept_analysis(folder, ANALYSED.asked, settings=Settings, found=Found) == ANALYSED
    plain = json.loads((folder / ANALYSIS).read_text())
    assert plain["format"] == "ladder-search analysis 1" and plain["asked"] == ANALYSED.asked
    assert plain["found"] == {"layers": [{"share": 0.1 + 0.2}, {"share": None}]}
    with pytest.raises(StudyFolderError, match="holds one of other settings, data or weights"):
        kept_analysis(folder, "another", settings=Settings, found=Found)
    with pytest.raises(StudyFolderError, match="never overwritten"):
        write_analysis(folder, replace(ANALYSED, study="other"), {})
    assert kept_analysis(folder, ANALYSED.asked, settings=Settings, found=Found) == ANALYSED


def test_the_name_is_that_of_what_was_asked() -> None:
    assert ANALYSED.asked == name_of("b" * 64, "d" * 64, "validation", Settings(seed=3))
    assert replace(ANALYSED, seconds=2.0, device="cuda", study="x").asked == ANALYSED.asked
    changed = [
        replace(ANALYSED, bundle="c" * 64),
        replace(ANALYSED, data_digest="c" * 64),
        replace(ANALYSED, part="test"),
        replace(ANALYSED, settings=Settings(seed=4)),
    ]
    assert len({one.asked for one in (ANALYSED, *changed)}) == 5


def test_nothing_is_left_where_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StudyFolderError, match="No space left on device"):
        write_analysis(tmp_path / "analysis", ANALYSED, {"a.png": b"picture"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"format": "ladder-search analysis 2"}', '{"format": "ladder-search analysis 1"}',
     '{"format": "ladder-search analysis 1", "settings": {}, "found": {"layers": 3}}'],
)  # fmt: skip
def test_what_is_no_analysis_is_not_read(tmp_path: Path, content: str) -> None:
    (tmp_path / ANALYSIS).write_text(content)
    with pytest.raises(CheckpointError, match="must be an analysis of this kind, found"):
        kept_analysis(tmp_path, ANALYSED.asked, settings=Settings, found=Found)


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyFolderError, match="must be writable"):
        kept_analysis(tmp_path / "file" / "x" / "y", "asked", settings=Settings, found=Found)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StudyFolderError, match="an analysis needs an empty folder"):
        kept_analysis(tmp_path, ANALYSED.asked, settings=Settings, found=Found)
