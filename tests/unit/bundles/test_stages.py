"""Sources on a shelf: each is trained once, named by all that its numbers depend on, and refused in one sentence."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder_search.bundles import shelf
from ladder_search.bundles.bundle import read_bundle
from ladder_search.bundles.shelf import Shelf, check_same_bundles, list_stages
from ladder_search.bundles.stages import Stage, stage_tags, stages_of
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.errors import ResourceError, SettingError
from ladder_search.final.training import settings_digest
from ladder_search.models.ladder import LadderConfig
from ladder_search.models.progressive import ProgressiveConfig
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig, TrialSpec

WIDTHS = (64, 20, 10)


def stage(**changes: Any) -> SourceConfig:
    zeros = (0.0,) * 3
    plain = SourceConfig(
        data=DataConfig(dataset="digits", labels=None, validation=297),
        model=LadderConfig(widths=WIDTHS, noise_std=zeros, lambda_=zeros, decoder="none"),
        training=TrainingConfig(epochs=3),
    )
    return replace(plain, **changes)


def trial(source: SourceConfig, seed: int = 1) -> TrialSpec:
    return TrialSpec(
        family="progressive",
        data=DataConfig(dataset="digits", labels=None, validation=297),
        model=ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0,)),
        training=TrainingConfig(epochs=1),
        sources={"digits": source},
        seed=seed,
    )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the sources that were trained, in order."""
    found: list[str] = []
    train = shelf.train_stage

    def counted(order: Stage, *arguments: Any, **more: Any) -> str:
        found.append(order.key)
        return train(order, *arguments, **more)

    monkeypatch.setattr(shelf, "train_stage", counted)
    return found


def test_a_source_is_trained_once_and_read_by_others(tmp_path: Path, trained: list[str]) -> None:
    first = Shelf(tmp_path).networks(trial(stage()))["digits"]
    shelf = Shelf(tmp_path)
    again = shelf.networks(trial(stage()))["digits"]
    assert len(trained) == 1
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not any(value.requires_grad for value in again.parameters())
    shelf.networks(trial(stage(), seed=2))  # another seed is another source
    assert len(set(trained)) == len(trained) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(trained)


def test_many_who_ask_at_the_same_time_wait_for_one(tmp_path: Path, trained: list[str]) -> None:
    shelves = [Shelf(tmp_path) for _ in range(3)]
    threads = [threading.Thread(target=shelf.networks, args=(trial(stage()),)) for shelf in shelves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trained) == 1 and (tmp_path / trained[0] / "MANIFEST.json").is_file()


def test_the_name_follows_what_the_numbers_depend_on() -> None:
    def key(seed: int = 1, **changes: Any) -> str:
        return Stage(config=stage(**changes), seed=seed).key

    same = {key(), key(statistics="target")}
    others = {
        key(2),
        key(stop_at=0.1),
        key(weights="random"),
        key(training=TrainingConfig(epochs=4)),
        key(data=DataConfig(dataset="digits", labels=100, validation=297)),
    }
    assert len(same) == 1 and len(others) == 5 and not same & others


def test_training_stops_where_it_is_told(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    order = Stage(config=stage(training=TrainingConfig(epochs=40), stop_at=0.12), seed=1)
    metrics = shelf.bundle(order).metrics
    errors = [row["validation_error"] for row in metrics.epochs]
    assert errors[-1] <= 0.12 and all(error > 0.12 for error in errors[:-1]) and len(errors) < 40
    assert metrics.validation_error == errors[-1] and metrics.test_error is None


def test_one_that_does_not_get_there_is_told_of(tmp_path: Path) -> None:
    order = Stage(config=stage(stop_at=0.0), seed=1)
    with pytest.raises(
        ResourceError, match=r"^a source stops at a validation error of 0 and trained ladder .* after 3 "
    ):
        Shelf(tmp_path).bundle(order)
    assert list(tmp_path.iterdir()) == []


def test_a_random_source_has_the_statistics_of_its_data_and_no_training(tmp_path: Path) -> None:
    bundle = Shelf(tmp_path).bundle(Stage(config=stage(weights="random"), seed=1))
    assert bundle.metrics.step == 0 and bundle.metrics.epochs == ()
    digits = datasets.load("digits")
    x = torch.from_numpy(digits.train_x.copy()).float() / 16.0
    outcome = (x @ bundle.tensors["W.0"].T).mean(0)
    torch.testing.assert_close(bundle.tensors["mean_1"], outcome, rtol=0.1, atol=0.05)


def test_a_bundle_can_be_given(tmp_path: Path, trained: list[str]) -> None:
    ready = Shelf(tmp_path / "made")
    ready.networks(trial(stage()))
    place = tmp_path / "made" / trained[0]
    given = stage(bundle=str(place))
    Shelf(tmp_path / "other").networks(trial(given))
    assert len(trained) == 1 and not (tmp_path / "other").exists()
    zeros = (0.0,) * 4
    other = LadderConfig(widths=(64, 20, 15, 10), noise_std=zeros, lambda_=zeros, decoder="none")
    with pytest.raises(SettingError, match=r"widths of .* is \[64, 20, 10\], got \[64, 20, 15, 10\]; set sources"):
        Shelf(tmp_path).bundle(Stage(config=replace(given, model=other), seed=1))


def test_another_bundle_at_the_same_path_is_another_source(tmp_path: Path, trained: list[str]) -> None:
    """A source is named by the path of its bundle; what lies there must be what the search or training began with."""
    place, kept = tmp_path / "given", tmp_path / "kept"
    first, second = (Shelf(tmp_path / "made").bundle(Stage(config=stage(), seed=seed)) for seed in (1, 2))
    spec = trial(stage(bundle=str(place)))
    (order,) = stages_of(spec).values()
    shutil.copytree(first.folder, place)
    check_same_bundles(spec, kept)  # the search has not kept it yet
    shutil.copytree(first.folder, kept / order.key)
    check_same_bundles(spec, kept)
    digests = [settings_digest(spec, [1], datasets.load("digits"), torch.device("cpu"))]
    shutil.rmtree(place)
    shutil.copytree(second.folder, place)
    with pytest.raises(SettingError, match=rf"had the digest {first.digest[:12]}, now {second.digest[:12]}; put the"):
        check_same_bundles(spec, kept)
    digests.append(settings_digest(spec, [1], datasets.load("digits"), torch.device("cpu")))
    assert digests[0] != digests[1]


def test_a_column_from_scratch_asks_for_nothing(tmp_path: Path, trained: list[str]) -> None:
    scratch = ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0,), approach="scratch")
    spec = replace(trial(stage()), model=scratch)
    assert stages_of(spec) == {} and Shelf(tmp_path).networks(spec) == {} and trained == []


def test_records_and_tags_name_sources(tmp_path: Path, trained: list[str]) -> None:
    spec = trial(stage())
    Shelf(tmp_path).networks(spec)
    assert stage_tags(spec.as_mapping()) == {"digits": f"{trained[0]}: trained ladder on digits, all labels, seed 1"}
    assert stage_tags({"family": "ladder"}) == {}
    (facts,) = list_stages(tmp_path)
    bundle = read_bundle(tmp_path / trained[0])
    assert (facts["key"], facts["digest"], facts["steps"]) == (trained[0], bundle.digest, 30)


def test_a_report_that_raises_ends_the_training_of_a_source(tmp_path: Path) -> None:
    def interrupt(epoch: int, epochs: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Shelf(tmp_path, report=interrupt).networks(trial(stage()))
    assert list(tmp_path.iterdir()) == [], "half a source stays nowhere"
