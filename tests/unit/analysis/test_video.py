"""What is found in networks for video: against plain NumPy, the networks' own scores, and what cannot be there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from ladder_search.analysis.result import part_of
from ladder_search.analysis.video import ShownSequence, Video, VideoConfig, choose, levels, look
from ladder_search.bundles.bundle import Bundle, BundleMetrics
from ladder_search.config import as_mapping, build
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.dataset import Dataset
from ladder_search.data.occluded_bounds import prediction_bounds
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.models.recurrent import RecurrentConfig
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.training.feeding import training_feed
from ladder_search.training.feeds import MovingDigits
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec

CPU = torch.device("cpu")
LEVELS = ("conv:3:3:2 lstm:3:3", "conv:4:3:2 dense-lstm:8")
MODEL = RecurrentConfig(frame=(1, 16, 16), levels=LEVELS, unlabelled=True)
STATIC = RecurrentConfig(frame=(1, 7, 7), frames=1, levels=("conv:4:3:2 dense:8",), decoder=False)


@cache
def data_of(name: str = "occluded-digits-mini") -> Dataset:
    return datasets.load(name)


def bundle_of(model: RecurrentConfig = MODEL, *, validation: int = 97, taught: bool = False, steps: int = 10) -> Bundle:
    name = "occluded-digits-mini" if model.frames > 1 else "occluded-digits-mini-seen"
    spec = TrialSpec(
        family="recurrent",
        data=DataConfig(dataset=name, labels=None, validation=validation),
        model=model,
        training=TrainingConfig(epochs=1, labelled_batch=80, unlabelled_batch=80, lr=0.01),
        teacher=TeacherConfig(weight=1.0 if taught else 0.0),
    )
    pack = spec.pack(data_of(name), slots=1, compiled=False, device=CPU)
    slot = pack.join(spec.member(data_of(name)))
    pack.run(steps)
    tensors = {key: value.clone() for key, value in pack.module(slot).state_dict().items()}
    metrics = BundleMetrics(trial="t0001", state="COMPLETE")
    return Bundle(
        folder=Path("a/bundle"), study="", spec=spec, metrics=metrics, provenance={}, digest="b" * 64, tensors=tensors
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundle_of()


def found_in(bundle: Bundle, **settings: Any) -> Video:
    dataset = data_of(bundle.spec.data.dataset)
    asked = VideoConfig(**{"rows": 3, "probe_steps": 20, **settings})
    chosen, shown = choose(bundle, dataset, part_of(bundle, test=False), asked, asked.rows)
    return look(bundle, dataset, shown, chosen, CPU)


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> Video:
    return found_in(bundle)


def rows_of(bundle: Bundle) -> tuple[MovingDigits, torch.Tensor]:
    """The feed of the validation digits and, in order, which they are."""
    dataset = data_of(bundle.spec.data.dataset)
    feed = training_feed(bundle.spec.member(dataset), dataset, CPU)
    assert isinstance(feed, MovingDigits)
    return feed, torch.from_numpy(bundle.spec.member(dataset).split.validation)


def images(one: ShownSequence, name: str, side: int = 16) -> np.ndarray:
    return np.stack([levels(image, side) for image in getattr(one, name)])


def test_errors_are_those_that_the_network_is_judged_by(bundle: Bundle) -> None:
    found, (feed, rows) = found_in(bundle, judged=1000), rows_of(bundle)
    wrong, prediction, n = bundle.module().scores(feed.fixed(rows, torch.float32), feed.y[rows]).tolist()
    assert (found.judged, n, len(found.class_error), len(found.prediction_error)) == (97, 97, 5, 4)
    assert found.class_error[-1] == pytest.approx(wrong / n)
    assert np.mean(found.prediction_error) == pytest.approx(prediction / n, rel=1e-5)
    digits = feed.x[rows].float() / feed.full_scale
    bounds = prediction_bounds(feed.renderer, digits, feed.renderer.positions(feed.fixed_key, rows))
    assert found.bounds is not None and found.bounds.known_motion == pytest.approx(bounds.known_motion, rel=1e-5)
    assert found.bounds.copy == pytest.approx(bounds.copy) and found.bounds.zero == pytest.approx(bounds.zero)


def test_references_of_the_probe_by_hand(bundle: Bundle, found: Video) -> None:
    feed, rows = rows_of(bundle)
    free = np.array(feed.scene.visible)
    open_ = free[:, None] & free[None, :]
    occluded, memory = np.zeros((len(rows), 5)), np.zeros((len(rows), 5))
    for n, row in enumerate(rows.tolist()):
        digit, seen = feed.x[row].numpy() / feed.full_scale, np.zeros((7, 7), bool)
        for t, (i, j) in enumerate(feed.renderer.positions(feed.fixed_key, torch.tensor([row]))[0].tolist()):
            now = open_[i : i + 7, j : j + 7]
            seen = seen | now
            occluded[n, t] = (digit[~now] ** 2).sum() / 256
            memory[n, t] = (digit[~seen] ** 2).sum() / 256
    assert found.probe is not None
    assert found.probe.occluded == pytest.approx(occluded.mean(0), rel=1e-5)
    assert found.probe.memory == pytest.approx(memory.mean(0), rel=1e-5)
    assert memory.mean() < occluded.mean()


def test_what_is_drawn_is_what_the_network_saw_and_said(bundle: Bundle, found: Video) -> None:
    feed, _ = rows_of(bundle)
    assert len(found.shown) == 3 and found.bars == (4, 5, 10, 11) and found.side == 16 and found.frames == 5
    rows = torch.tensor([one.number for one in found.shown])
    seen = feed.fixed(rows, torch.float32)
    trace = bundle.module().trace(seen)
    for n, one in enumerate(found.shown):
        assert one.label == feed.y[rows[n]]
        assert (images(one, "seen") == (seen[n] * 255).round().numpy()).all()
        assert (images(one, "predicted") == (trace.predicted[n, :4] * 255).round().numpy()).all()
        np.testing.assert_allclose(one.probabilities, trace.probabilities[n].numpy(), rtol=1e-6)
        truth = images(one, "truth")
        free = np.array(feed.scene.visible)
        assert (truth[:, free][:, :, free] == images(one, "seen")[:, free][:, :, free]).all()
    assert len(images(found.shown[0], "probed")) == 5


def test_the_probe_is_better_than_the_mean_frame_and_the_same_each_time(bundle: Bundle) -> None:
    found, again = (found_in(bundle, probe_steps=150) for _ in range(2))
    assert found == again and found.probe is not None
    feed, rows = rows_of(bundle)
    digits = feed.x[rows].double().numpy() / feed.full_scale
    empty = (digits**2).sum((1, 2)).mean() / 256
    assert max(found.probe.network) < empty
    assert found.probe.network != found_in(bundle, probe_steps=10).probe.network  # type: ignore[union-attr]


def test_what_networks_do_not_have_is_not_shown() -> None:
    encoder = found_in(bundle_of(replace(MODEL, decoder=False, unlabelled=False), steps=1))
    assert encoder.probe is encoder.bounds is None and encoder.prediction_error == () and encoder.class_error
    assert encoder.shown[0].predicted == encoder.shown[0].probed == ()
    # Without the task the decoder is there and feeds back: it can be probed.
    silent = found_in(bundle_of(replace(MODEL, lambda_p=0.0), steps=1))
    assert silent.probe is not None and silent.bounds is None and silent.shown[0].probed
    untold = found_in(bundle_of(replace(MODEL, lambda_c=0.0), steps=1))
    assert untold.class_error == () and untold.shown[0].probabilities == () and untold.prediction_error


def test_a_classifier_of_reconstructions_is_shown_one_image() -> None:
    bundle = bundle_of(STATIC)
    found, (feed, rows) = found_in(bundle), rows_of(bundle)
    wrong, n = bundle.module().scores(feed.fixed(rows, torch.float32), feed.y[rows]).tolist()
    assert found.class_error == pytest.approx((wrong / n,)) and (found.side, found.frames, found.bars) == (7, 1, ())
    one = found.shown[0]
    assert (images(one, "truth", 7) == (feed.x[one.number] / feed.full_scale * 255).round().numpy()).all()
    known = images(one, "seen", 7)
    assert ((known == images(one, "truth", 7)) | (known == 0)).all() and found.probe is None


def test_of_a_mean_teacher_and_its_student_the_teacher_is_looked_at() -> None:
    bundle = bundle_of(replace(MODEL, noise_std=0.1), taught=True, steps=2)
    found = found_in(bundle)
    spoilt = {k: v * float("nan") if k.startswith("student.") else v for k, v in bundle.tensors.items()}
    assert found_in(replace(bundle, tensors=spoilt)) == found
    with pytest.raises(CheckpointError, match="finite outputs, and some"):
        found_in(replace(bundle, tensors={k: v * float("nan") for k, v in bundle.tensors.items()}))


def test_it_comes_back_from_json(found: Video) -> None:
    assert build(Video, as_mapping(found)) == found


def test_sequences_of_a_final_training_are_the_test_sets() -> None:
    found = found_in(bundle_of(validation=0, steps=1), judged=10)
    labels = data_of().test_y
    assert found.judged == 10 and all(one.label == labels[one.number] for one in found.shown)


@pytest.mark.parametrize(("rows", "most"), [(25, 24), (10**6, 24)])
def test_a_picture_has_a_limit(bundle: Bundle, rows: int, most: int) -> None:
    with pytest.raises(SettingError, match=rf"--rows must lie in 1..{most}, the sequences of a picture .*got {rows};"):
        choose(bundle, data_of(), "validation", VideoConfig(rows=rows), rows)


def test_images_that_stand_still_are_refused(bundle: Bundle) -> None:
    still = datasets.load("digits")
    with pytest.raises(SettingError, match="needs digits that move, and are not whitened, got digits with"):
        choose(bundle, still, "validation", VideoConfig(), None)
