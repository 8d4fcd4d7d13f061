"""``ladder-search analyse`` on small bundles: its tables, its folder, what it logs, what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")

from ladder_search import cli
from ladder_search.bundles.bundle import BundleMetrics, read_bundle, write_bundle
from ladder_search.commands import sending
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.models import FAMILIES
from ladder_search.models.ladder import LadderConfig
from ladder_search.models.progressive import ProgressiveConfig
from ladder_search.models.recurrent import RecurrentConfig
from ladder_search.models.sequence import SequenceConfig
from ladder_search.report.analyses import ANALYSES
from ladder_search.studies import find_study
from ladder_search.tracking import MetricPoint, NullTracker
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig, TrialSpec

WIDTHS = (64, 20, 15, 10)


class Tracker(NullTracker):
    """Keeps what it is told."""

    stored: ClassVar[bool] = True
    runs: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, spool: Path, store: str, experiment: str) -> None:
        super().__init__()
        self.experiment = experiment

    def start_run(self, key: str, **given: Any) -> None:
        self.runs[key] = {**given, "experiment": self.experiment, "files": [], "points": []}

    def log_metrics(self, key: str, points: Sequence[MetricPoint]) -> None:
        self.runs[key]["points"] += points

    def log_artifact(self, key: str, path: Path, folder: str = "") -> None:
        assert path.is_file()
        self.runs[key]["files"].append(path.name)

    def end_run(self, key: str, status: str) -> None:
        self.runs[key]["status"] = status

    def close(self, timeout_s: float = 60.0) -> bool:
        return self.stored

    def problems(self) -> list[str]:
        return []


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(Tracker, "runs", {})
    monkeypatch.setattr(sending, "SpoolTracker", Tracker)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def spec() -> TrialSpec:
    zeros = (0.0,) * len(WIDTHS)
    data = DataConfig(dataset="digits", labels=None, validation=297)
    training = TrainingConfig(epochs=3)
    model = LadderConfig(widths=WIDTHS, noise_std=zeros, lambda_=zeros, decoder="none")
    return TrialSpec(
        family="progressive",
        data=data,
        model=ProgressiveConfig(widths=WIDTHS, alpha_init=(1.0, 1.0)),
        training=training,
        sources={"other": SourceConfig(data=data, model=model, training=training, weights="random")},
    )


def exported(folder: Path, spec: TrialSpec, dataset: Dataset, *, digest: str | None = None) -> str:
    """Train the configuration, its source at random, and write its bundle; return the bundle's digest."""
    sources = {
        name: FAMILIES[stage.family].build(stage.model, generator=torch.Generator().manual_seed(1)).eval()
        for name, stage in spec.stages.items()
    }
    pack = spec.pack(dataset, slots=1, compiled=False, device=torch.device("cpu"))
    slot = pack.join(spec.member(dataset, sources=sources))
    pack.run(3 * spec.member(dataset).steps_per_epoch)
    module = spec.exported(pack.module(slot), dataset, torch.device("cpu"))
    metrics = BundleMetrics(trial="t0001", state="COMPLETE")
    provenance = {"data_digest": dataset.digest if digest is None else digest}
    return write_bundle(folder, study="", spec=spec, module=module, metrics=metrics, provenance=provenance, force=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, spec: TrialSpec, dataset: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("configs") / "01-t0001"
    exported(folder, spec, dataset)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ladder-search", "analyse", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_bundle_of_a_search(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, bundle, "--draws", "2") == 0
    out = capsys.readouterr().out
    folder = tmp_path / "analyses" / "01-t0001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "analysis.json", "column-shares.html", "column-shares.png",
    ]  # fmt: skip
    kept = json.loads((folder / "analysis.json").read_text())
    layers = kept["found"]["layers"]
    assert [(one["layer"], one["column"], one["units"]) for one in layers] == [
        (1, "source other", 20), (1, "target", 20), (2, "source other", 15), (2, "target", 15),
    ]  # fmt: skip
    assert (kept["part"], kept["found"]["rows"], kept["settings"]["rows"]) == ("validation", 297, 297)
    assert kept["bundle"] == read_bundle(bundle).digest and kept["provenance"]["data_name"] == "digits"
    for layer in (1, 2):
        for share in ("aps", "afs"):
            assert sum(one[share] for one in layers if one["layer"] == layer) == pytest.approx(1.0)
    assert "a bundle of no study: validation rows of digits, scaled noise" in out
    for one in layers:
        assert (
            f"{100 * one['aps']:.1f} %" in out and f"{100 * one['afs']:.1f} %" in out and f"{one['sigma']:.3g}" in out
        )
    accuracy = kept["found"]["accuracy"]
    assert f"Accuracy: {100 * accuracy:.2f} % on 297 validation rows; halved is {50 * accuracy:.2f} %" in out
    assert "3/4 done, next layer 2 of target" in out and "on cpu; kept in analyses/01-t0001" in out

    ((key, logged),) = Tracker.runs.items()
    assert key == f"01-t0001/analysis/{kept['asked'][:16]}" and logged["status"] == "FINISHED"
    assert logged["tags"]["bundle"] == kept["bundle"] and logged["tags"]["kind"] == "analysis"
    assert logged["tags"]["family"] == "progressive" and logged["tags"]["study"] == ""
    assert logged["params"] == {"rows": 297, "draws": 2, "seed": 1, "noise": "scaled", "half": "accuracy"}
    points = {(point.name, point.step): point.value for point in logged["points"]}
    for one in layers:
        for name in ("aps", "afs", "sigma", "fisher"):
            assert points[f"{name}/{one['column']}", one["layer"]] == one[name]
    assert points["accuracy", 0] == accuracy and ("seconds", 0) in points
    assert logged["files"] == ["analysis.json", "column-shares.html", "column-shares.png"]

    # Asked again, it is not computed again, and sends the same.
    stamp = (folder / "analysis.json").stat().st_mtime_ns
    assert run(monkeypatch, bundle, "--draws", "2") == 0
    again = capsys.readouterr().out
    assert "next layer" not in again and out.endswith(again)
    assert (folder / "analysis.json").stat().st_mtime_ns == stamp and Tracker.runs == {key: logged}
    # Asked for something else, nothing is replaced, and nothing is computed first.
    assert run(monkeypatch, bundle, "--draws", "2", "--noise", "absolute") == 2
    shown = capsys.readouterr()
    assert (
        "never overwritten and analyses/01-t0001 holds one of other settings" in shown.err
        and "next layer" not in shown.out
    )
    assert run(monkeypatch, bundle, "--draws", "1", "--noise", "absolute", "--half", "chance", "-o", "elsewhere") == 0
    settings = json.loads((tmp_path / "elsewhere" / "analysis.json").read_text())["settings"]
    assert (settings["noise"], settings["half"]) == ("absolute", "chance")


def test_a_store_that_takes_nothing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Tracker, "stored", False)
    assert run(monkeypatch, bundle, "--draws", "1", "--rows", "50") == 0
    assert "did not accept everything; the same command sends it again" in capsys.readouterr().out


def test_a_bundle_of_a_final_training_meets_the_test_set(
    tmp_path: Path,
    spec: TrialSpec,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported(tmp_path / "final", replace(spec, data=replace(spec.data, validation=0)), dataset, digest="0" * 64)
    for words in ([], ["--test"]):
        assert run(monkeypatch, "final", "--draws", "1", *words) == 0
        out = capsys.readouterr().out
        assert "test rows of digits" in out and "on 500 test rows" in out
    assert "note: the bundle was trained on other data called digits" in out


def test_one_column_has_nothing_to_be_compared_with(
    tmp_path: Path,
    spec: TrialSpec,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported(tmp_path / "one", replace(spec, model=replace(spec.model, approach="scratch")), dataset)
    assert run(monkeypatch, "one", "--draws", "1") == 0
    out = capsys.readouterr().out
    assert "One column: its shares are all 1, there is nothing to compare." in out
    assert out.count("100.0 %") == 4 and "source" not in out


def test_whitened_images_are_whitened_for_it_too(
    tmp_path: Path,
    spec: TrialSpec,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whitened = replace(spec, data=replace(spec.data, preprocessing="gcn-zca"), training=TrainingConfig(lr=0.01))
    exported(tmp_path / "white", whitened, dataset)
    assert run(monkeypatch, "white", "--draws", "1") == 0
    bundle = read_bundle(tmp_path / "white")
    split = bundle.spec.member(dataset).split
    x = torch.tensor(dataset.train_x[split.validation]).float() / dataset.full_scale
    right = bundle.module()(x).argmax(1) == torch.tensor(dataset.train_y[split.validation]).long()
    kept = json.loads((tmp_path / "analyses" / "white" / "analysis.json").read_text())
    assert kept["found"]["accuracy"] == pytest.approx(right.double().mean().item()) and right.double().mean() > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "298"], "--rows must lie in 1..297, the validation rows of digits, got 298; give fewer."),
        (["--test"], "the test set is for bundles of a final training"),
        (["--noise", "scale"], "unknown noise 'scale': did you mean 'scaled'? Known: absolute, scaled."),
        (["--half", "chances"], "unknown half 'chances': did you mean 'chance'? Known: accuracy, chance."),
        (["--seed", "-1"], "a seed must be a whole number from 0 to 2**64 - 1, got -1"),
        (["--judged", "9"], "has the options --rows, --draws, --seed, --noise, --half, got --judged; leave it out."),
        (["-o", "."], "an analysis needs an empty folder or one of its own, and . exists without an analysis.json"),
        (["-o", "/dev/null/x"], "must be writable"),
    ],
)
def test_mistakes(
    bundle: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, bundle, "--draws", "1", *words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and message in shown.err
    assert list(tmp_path.iterdir()) == [] and Tracker.runs == {}


def test_a_bundle_of_another_family(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder = find_study("digits-100").trial()
    exported(tmp_path / "ladder", ladder, dataset)
    assert run(monkeypatch, "ladder") == 2
    assert (
        "there are analyses of the families progressive, recurrent, rtagger, sequence, tagger and ladder is of the "
        "family ladder" in capsys.readouterr().err
    )


def test_the_table_names_families_that_there_are() -> None:
    assert set(ANALYSES) <= set(FAMILIES)


# --- networks for video and for music


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = TrialSpec(
        family="recurrent",
        data=DataConfig(dataset="occluded-digits-mini", labels=None, validation=97),
        model=RecurrentConfig(frame=(1, 16, 16), levels=("conv:3:3:2 lstm:3:3", "conv:4:3:2 dense-lstm:8")),
        training=TrainingConfig(epochs=1, labelled_batch=100),
    )
    folder = tmp_path_factory.mktemp("configs") / "video"
    exported(folder, spec, datasets.load("occluded-digits-mini"))
    return folder


def test_a_network_for_video(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, video, "--rows", "2", "--judged", "50", "--probe-steps", "5") == 0
    out = capsys.readouterr().out
    folder = tmp_path / "analyses" / "video"
    files = [
        "analysis.json",
        "frame-errors.html",
        "frame-errors.png",
        "sequences.html",
        "sequences.png",
    ]
    assert sorted(path.name for path in folder.iterdir()) == files
    kept = json.loads((folder / "analysis.json").read_text())
    found = kept["found"]
    assert kept["settings"] == {"rows": 2, "judged": 50, "probe_steps": 5, "seed": 1} and len(found["shown"]) == 2
    assert "a bundle of no study: validation sequences of occluded-digits-mini" in out
    assert "Means over 50 sequences, of which 2 are drawn." in out and "0/2 done, next the probe" in out
    for name, unit, errors in (
        ("error of classes, %", 100, found["class_error"]),
        ("predicted frame, x 1e-5", 1e5, [None, *found["prediction_error"]]),
        ("probed frame, x 1e-5", 1e5, found["probe"]["network"]),
        ("all seen so far, x 1e-5", 1e5, found["probe"]["memory"]),
    ):
        digits = 2 if unit == 100 else 1
        line = next(line for line in out.splitlines() if name in line)
        expected = ["–" if error is None else f"{unit * error:.{digits}f}" for error in errors]
        assert line.partition(name)[2].split() == expected
    mean = 1e5 * sum(found["prediction_error"]) / 4
    known = 1e5 * sum(found["bounds"]["known_motion"]) / 4
    assert f"Prediction error: {mean:.1f} x 1e-5; always empty {1e5 * found['bounds']['zero']:.1f}" in out
    assert f"what was seen along the known motion {known:.1f}." in out

    ((key, logged),) = Tracker.runs.items()
    assert key == f"video/analysis/{kept['asked'][:16]}" and logged["files"] == files
    assert logged["tags"]["family"] == "recurrent" and logged["tags"]["part"] == "validation"
    points = {(point.name, point.step): point.value for point in logged["points"]}
    assert [points["error", frame] for frame in range(1, 6)] == found["class_error"]
    assert [points["prediction_error", frame] for frame in range(2, 6)] == found["prediction_error"]
    assert points["probe_error", 5] == found["probe"]["network"][4] and ("prediction_error/zero", 0) in points

    assert run(monkeypatch, video, "--rows", "2", "--judged", "50", "--probe-steps", "5") == 0
    assert out.endswith(capsys.readouterr().out) and Tracker.runs == {key: logged}


def test_networks_for_music_of_either_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    parts = [[(random.random((n, KEYS)) < 0.05).astype(np.uint8) for n in part] for part in ((9, 30), (14, 8), (20,))]
    train, valid, test = map(tuple, parts)
    corpus = as_dataset(MusicCorpus(name="jsb-chorales", train=train, valid=valid, test=test, digest="d" * 64))
    monkeypatch.setattr(datasets, "load", lambda name, notify: corpus)
    levels = ("conv:2:5:4 lstm:2:3", "conv:3:3:2 dense-lstm:6")
    for family, model in (
        ("sequence", SequenceConfig(hidden=8)),
        ("recurrent", RecurrentConfig(task="music", frame=(1, 88), levels=levels, classes=0)),
    ):
        spec = TrialSpec(
            family=family,
            data=DataConfig(dataset="jsb-chorales", labels=None, validation=2),
            model=model,
            training=TrainingConfig(epochs=1, labelled_batch=2, window=8),
        )
        exported(tmp_path / family, spec, corpus)
        assert run(monkeypatch, family, "--rows", "2") == 0
        out = capsys.readouterr().out
        folder = tmp_path / "analyses" / family
        names = {path.name for path in folder.iterdir()}
        assert {"piano-roll-0.png", "piano-roll-0.html", "piano-roll-1.png", "piano-roll-1.html"} < names
        kept = json.loads((folder / "analysis.json").read_text())
        found = kept["found"]
        assert f"NLL: {found['nll']:.3f} nats per step over 20 steps of 2 pieces" in out
        assert f"step {found['worst'][0]['step']} of piece {found['worst'][0]['piece']}" in out
        assert f"{100 * found['calibration'][0]['sounded']:.1f} %" in out and "validation pieces of jsb-chorales" in out
        logged = Tracker.runs[f"{family}/analysis/{kept['asked'][:16]}"]
        points = {(point.name, point.step): point.value for point in logged["points"]}
        assert points["nll", 0] == found["nll"] and points["markov_nll", 0] == found["markov_nll"]
        assert names <= set(logged["files"]) and logged["tags"]["family"] == family


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "25"], "--rows must lie in 1..24, the sequences of a picture and of the validation part"),
        (["--steps", "9"], "has the options --rows, --judged, --probe-steps, --seed, got --steps; leave it out."),
        (["--probe-steps", "0"], "--probe-steps must be at least 1"),
        (["--test"], "the test set is for bundles of a final training"),
    ],
)
def test_mistakes_with_a_network_for_video(
    video: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, video, *words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and message in shown.err
    assert list(tmp_path.iterdir()) == [] and Tracker.runs == {}
