"""What is found in networks that group pixels: the networks' own scores, scikit-learn's AMI, and what is drawn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from ladder_search.analysis.grouping import GroupingAnalysisConfig, Groups, choose, levels, look
from ladder_search.analysis.result import part_of
from ladder_search.bundles.bundle import Bundle, BundleMetrics
from ladder_search.config import as_mapping, build
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.drawing import VALIDATION, part_key, partners
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.models.rtagger import RTaggerConfig
from ladder_search.models.tagger import TaggerConfig
from ladder_search.nn.grouping import Grouping
from ladder_search.nn.protocol import ModelConfig
from ladder_search.pictures import canvas
from ladder_search.report.analyses import ANALYSES, find_analysis
from ladder_search.report.analyses.grouping import GROUPING
from ladder_search.training.feeding import training_feed
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec

CPU = torch.device("cpu")
SHAPES = TaggerConfig(widths=(30, 12), groups=3, iterations=2, evaluation_iterations=3, segments=3)
TEXTURES = TaggerConfig(
    pixels=256, widths=(20, 11), groups=2, iterations=2, evaluation_iterations=2, likelihood="continuous", classes=10,
    initial_z=0.5, segments=2,
)  # fmt: skip
VIDEO = RTaggerConfig(
    side=(16, 16), frames=8, groups=2, initial_z=0.0, levels=("conv:2:3:2 lstm:2:3", "conv:3:3:2 dense-lstm:6"),
    segments=2,
)  # fmt: skip
KINDS: dict[str, tuple[str, str, ModelConfig]] = {
    "shapes": ("tagger", "shapes-small", SHAPES),
    "textures": ("tagger", "two-textures-digits", TEXTURES),
    "video": ("rtagger", "moving-digits-small", VIDEO),
}


@cache
def bundle_of(kind: str, steps: int = 6) -> Bundle:
    family, name, model = KINDS[kind]
    spec = TrialSpec(
        family=family,
        data=DataConfig(dataset=name, labels=None, validation=130),
        model=model,
        training=TrainingConfig(epochs=1, labelled_batch=10, unlabelled_batch=10, lr=0.005),
    )
    dataset = datasets.load(name)
    pack = spec.pack(dataset, slots=1, compiled=False, device=CPU)
    slot = pack.join(spec.member(dataset))
    pack.run(steps)
    tensors = {key: value.clone() for key, value in pack.module(slot).state_dict().items()}
    metrics = BundleMetrics(trial="t0001", state="COMPLETE")
    return Bundle(
        folder=Path("a/bundle"), study="", spec=spec, metrics=metrics, provenance={}, digest="b" * 64, tensors=tensors
    )


@cache
def found_in(kind: str) -> Groups:
    bundle = bundle_of(kind)
    dataset = datasets.load(bundle.spec.data)
    settings, chosen = choose(bundle, dataset, part_of(bundle, test=False), GroupingAnalysisConfig(rows=3), 3)
    return look(bundle, dataset, chosen, settings, CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_that_the_network_is_judged_by(kind: str) -> None:
    bundle, found = bundle_of(kind), found_in(kind)
    dataset = datasets.load(bundle.spec.data)
    member = bundle.spec.member(dataset)
    feed = training_feed(member, dataset, CPU)
    # The same hundred rows together, because evaluations have the statistics of their batch.
    _, rows = choose(bundle, dataset, "validation", GroupingAnalysisConfig(rows=3), 3)[1]
    sums = sum(
        bundle.module().scores(*(each[0] for each in chunk)) for chunk in feed.chunks(rows[None], 100, torch.float32)
    )
    assert isinstance(sums, torch.Tensor)
    means = dict(zip(bundle.module().measures, (sums[:-1] / sums[-1]).tolist(), strict=True))
    assert found.judged == 130
    if kind == "video":
        assert found.video and len(found.ami) == 7 and found.first == 2
        assert np.mean(found.ami) == pytest.approx(means["ami"])
        assert np.mean(found.ami_arithmetic) == pytest.approx(means["ami_arithmetic"])
    else:
        assert not found.video and found.first == 1
        assert (found.ami[-1], found.ami_arithmetic[-1]) == pytest.approx((means["ami"], means["ami_arithmetic"]))
    for t, ami in enumerate(found.ami, 1):
        assert ami == pytest.approx(means[f"ami_{t}"])
    assert bool(found.error) == (kind == "textures")
    if found.error:
        assert found.error == pytest.approx([means["error_1"], means["error_2"]])


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_images_are_those_of_the_data_and_of_the_trace(kind: str) -> None:
    bundle, found = bundle_of(kind), found_in(kind)
    dataset = datasets.load(bundle.spec.data)
    assert dataset.grouped is not None and len(found.shown) == 3
    scene = dataset.grouped.scene
    for one in found.shown:
        row = torch.tensor([one.number])
        digits = None
        if scene.digits:
            digits = torch.from_numpy(dataset.train_x)[
                partners(part_key(VALIDATION), row, row, scene.digits, len(dataset.train_x))
            ]
        image, segments = scene.painter(None, CPU).draw(digits, part_key(VALIDATION), row, VALIDATION)
        frames = image.double().view(-1, found.height, found.width).numpy() / dataset.full_scale * 255
        true = segments.view(-1, found.height, found.width).numpy()
        for t in range(len(found.ami)):
            place = t + 1 if found.video else 0
            assert np.abs(levels(one.seen[t], found) - frames[place]).max() <= 0.51
            shown, groups = levels(one.truth[t], found), levels(one.groups[t], found)
            assert (shown.astype(int) - 1 == true[place]).all()
            assert groups.max() < found.n_groups and len(one.reconstructions[t]) == found.n_groups
            scored = shown > 0
            reference = adjusted_mutual_info_score(shown[scored], groups[scored], average_method="max")
            assert one.ami[t] == pytest.approx(reference, abs=1e-9)
    classes = [one.classes for one in found.shown]
    expected = [(int(dataset.train_y[one.number]),) if kind == "textures" else () for one in found.shown]
    assert classes == expected


def test_frames_beyond_the_last_one_are_those_of_a_network_that_reads_its_own_output() -> None:
    bundle, found = bundle_of("video"), found_in("video")
    network = bundle.module()
    assert isinstance(network, Grouping)
    x = torch.rand(3, 8, 16, 16)
    with torch.no_grad():
        whole, made = network.trace(x), network.generated(x, 4)
        # The first frames read the same noise as in an evaluation, and a longer video has the same first new frames.
        assert torch.equal(made.z[:2], network.generated(x, 2).z)
        assert made.z.shape == made.m.shape == (4, 3, 2, 256) and whole.z.shape[0] == 7
        for count in (1, 3):
            read = [*whole.corrupted.unbind(0), *made.corrupted[:count].unbind(0)]
            m = torch.softmax(_initial(network, x), dim=0)
            last = network.inferences(read, m)[-1]
            assert torch.allclose(last.z.transpose(0, 1), made.z[count - 1], atol=1e-6)
        # What is read is the last output with noise of the network's standard deviation.
        noise = made.corrupted[1:] - (made.m * made.z).sum(2)[:-1]
        assert float(noise.std()) == pytest.approx(network.likelihood.noise, rel=0.1)
        first = made.corrupted[0] - x[:, -1].flatten(1)
        assert float(first.std()) == pytest.approx(network.likelihood.noise, rel=0.1)
    for one in found.shown:
        assert len(one.generated) == 5 and len(one.seen) == len(one.truth) == 7
        assert len(one.groups) == len(one.reconstructions) == 12
    assert not any(one.generated for one in found_in("shapes").shown)


def _initial(network: Grouping, x: torch.Tensor) -> torch.Tensor:
    draws = np.random.default_rng(1).standard_normal(len(x) * (7 + network.K) * network.D, dtype=np.float32)
    return torch.from_numpy(draws)[len(x) * 7 * network.D :].view(network.K, len(x), network.D)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_kept_and_drawn(kind: str) -> None:
    found = found_in(kind)
    assert build(Groups, as_mapping(found)) == found
    with canvas.style():
        pictures = GROUPING.draw("title", found)
        files = {name: canvas.contents(picture, name) for name, picture in pictures.items()}
    assert set(files) == {"groups", "scores"}
    assert all(f"{name}.png" in each and f"{name}.html" in each for name, each in files.items())
    assert len(pictures["groups"].figure.axes) == 3
    marks = [label.get_text() for label in pictures["groups"].figure.axes[0].get_xticklabels()]
    new = [f"{frame}+" for frame in range(9, 14)] if kind == "video" else []
    assert marks == [*(str(found.first + t) for t in range(len(found.ami))), *new]
    assert len(pictures["scores"].figure.axes) == 1 + bool(found.error)
    lines = pictures["scores"].figure.axes[0].lines
    assert list(lines[0].get_ydata()) == pytest.approx(list(found.ami))
    values = GROUPING.values(found)
    assert values["ami"] == dict(enumerate(found.ami, found.first))
    assert ("error" in values) == bool(found.error)


def test_colours_separate_groups_and_unscored_pixels() -> None:
    found = found_in("shapes")
    with canvas.style():
        picture = GROUPING.draw("title", found)["groups"]
    paper = picture.figure.axes[0].images[0].get_array()
    assert paper is not None
    step = found.height + max(1, found.width // 12)
    true, groups = (np.asarray(paper[line * step : line * step + 20, :20]).reshape(400, 3) for line in (1, 2))
    truth, group = (levels(each[0], found).ravel() for each in (found.shown[0].truth, found.shown[0].groups))
    for colours, numbers in ((true, truth), (groups, group)):
        assert len(np.unique(colours, axis=0)) == len(np.unique(numbers))
        for number in np.unique(numbers):
            assert len(np.unique(colours[numbers == number], axis=0)) == 1
    assert (true[truth == 0] > 0.9).all()


def test_requests_that_cannot_be_met_are_refused() -> None:
    bundle = bundle_of("shapes")
    shapes, settings = datasets.load("shapes-small"), GroupingAnalysisConfig()
    with pytest.raises(SettingError, match=r"--rows must lie in 1\.\.12, .* got 13; give fewer"):
        choose(bundle, shapes, "validation", settings, 13)
    with pytest.raises(SettingError, match="needs a data set with true segments, got digits; name a bundle of shapes"):
        choose(bundle, datasets.load("digits"), "test", settings, None)
    chosen, (part, rows) = choose(bundle, shapes, "test", settings, None)
    assert (chosen.rows, chosen.judged, part, len(rows)) == (4, 1000, "test", 1000)
    broken = replace(bundle, tensors={name: value * float("nan") for name, value in bundle.tensors.items()})
    with pytest.raises(CheckpointError, match="must have finite outputs"):
        look(broken, shapes, ("test", rows[:5]), chosen, CPU)


def test_both_families_have_the_analysis() -> None:
    assert ANALYSES["tagger"] is ANALYSES["rtagger"] is GROUPING is find_analysis(bundle_of("shapes"))
