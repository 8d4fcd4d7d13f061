"""The mistakes of the twenty that are made around the model: data, batches, schedule, evaluation, choice of an epoch.

Numbered like those in ``tests/unit/models/test_ladder_mistakes.py``; ``tests/golden/plant_mistakes.py`` plants all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.data.splits import make_split
from ladder_search.data.streams import LABELLED, BatchStream
from ladder_search.metrics import LEARNING_RATE, TEST_ERROR
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.nn.protocol import Batch
from ladder_search.studies import STUDIES
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec

SMALL = {"widths": (64, 12, 10), "noise_std": (0.3,) * 3, "lambda_": (1.0, 1.0, 1.0)}


def digits_pack(
    *, model: dict[str, Any] | None = None, n_labelled: int | None = 40, seed: int = 1, **training: Any
) -> tuple[Pack, MemberSpec]:
    digits = datasets.load("digits")
    spec = MemberSpec(
        model=LadderConfig(**SMALL | (model or {})),
        training=TrainingConfig(
            **{"labelled_batch": 20, "unlabelled_batch": 50, "dtype": "float64", "epochs": 3} | training
        ),
        split=make_split(digits.train_y, n_labelled=n_labelled, n_validation=297, n_classes=10, seed=seed),
        seed=seed,
    )
    x, y = torch.from_numpy(digits.train_x.copy()), torch.from_numpy(digits.train_y.astype(np.int64))
    pack = Pack(spec, Ladder, TrainingData(x=x, y=y, full_scale=digits.full_scale))
    pack.join(spec)
    return pack, spec


def feed(x: torch.Tensor, y: torch.Tensor) -> TrainingData:
    return TrainingData(x=x, y=y, full_scale=16.0)


def digits_test_set() -> tuple[torch.Tensor, torch.Tensor]:
    digits = datasets.load("digits")
    return torch.from_numpy(digits.test_x.copy()), torch.from_numpy(digits.test_y.astype(np.int64))


def digits_trial(**training: Any) -> TrialSpec:
    return TrialSpec(
        family="ladder",
        data=DataConfig(dataset="digits", labels=50, validation=297),
        model=LadderConfig(**SMALL),
        training=TrainingConfig(**{"labelled_batch": 50, "unlabelled_batch": 100, "epochs": 4} | training),
    )


def test_10_pixels_lie_in_0_1_and_are_not_standardised() -> None:
    for row in datasets.DATASETS.values():
        if isinstance(row, datasets.DatasetSource):
            assert row.full_scale == {"digits": 16.0, "mnist": 255.0}.get(row.name, row.full_scale)
    digits = datasets.load("digits")
    assert digits.train_x.max() / digits.full_scale == 1.0
    # At the start z_hat is 0: with all rows in one batch, the layer-0 cost is the mean square of the raw pixels.
    pack, spec = digits_pack(unlabelled_batch=1000)
    pixels = digits.train_x[spec.split.unlabelled] / 16.0
    assert pack.run(1)[0].terms["cost_denoising_0"] == pytest.approx((pixels**2).mean(), rel=1e-10)
    # And the test error is measured on the same scale.
    pack, spec = digits_pack(labelled_batch=40)
    pixels = digits.train_x[spec.split.labelled] / 16.0
    expected = (pixels @ pack.state(0).params["W.0"].numpy().T).mean(axis=0)
    np.testing.assert_allclose(pack.statistics()[1]["mean_1"][0].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_14_labels_are_balanced_and_also_unlabelled() -> None:
    labels = np.array([0] * 700 + [1] * 200 + [2] * 100, dtype=np.uint8)  # a draw without balance would be 7 : 2 : 1
    split = make_split(labels, n_labelled=30, n_validation=100, n_classes=3, seed=4)
    assert np.bincount(labels[split.labelled]).tolist() == [10, 10, 10]
    assert set(split.labelled) < set(split.unlabelled)
    assert len(split.unlabelled) == 900
    digits = datasets.load("digits")
    for name, study in STUDIES.items():
        if study.data.dataset != "digits" or study.data.labels is None:
            continue
        member = study.trial(seed=1, label_seed=1).member(digits)
        counts = np.bincount(digits.train_y[member.split.labelled])
        assert set(counts) == {study.data.labels // 10}, name
        assert set(member.split.labelled) < set(member.split.unlabelled), name
        assert len(member.split.unlabelled) == len(digits.train_x) - study.data.validation


def test_15_test_time_statistics_are_averages_over_labelled_minibatches_alone() -> None:
    pack, spec = digits_pack()  # 40 labels in batches of 20, 20 steps in an epoch
    pack.run(3)
    weights = pack.state(0).params["W.0"].numpy()
    stream = BatchStream(spec.split.labelled, 20, seed=spec.seed, tag=LABELLED)
    digits = datasets.load("digits")
    z = [digits.train_x[rows] / 16.0 @ weights.T for rows in stream.batches(0, spec.steps_per_epoch)]
    _, found = pack.statistics()
    np.testing.assert_allclose(found["mean_1"][0], np.mean([m.mean(axis=0) for m in z], axis=0), rtol=1e-9, atol=1e-12)
    unbiased = np.mean([m.var(axis=0, ddof=1) for m in z], axis=0)
    np.testing.assert_allclose(found["variance_1"][0], unbiased, rtol=1e-9)


def test_15_the_test_batch_has_no_say() -> None:
    pack, _ = digits_pack()
    pack.run(10)
    x, y = digits_test_set()
    alone = [pack.test_errors(feed(x[i : i + 1], y[i : i + 1]))[0] for i in range(40)]
    assert 0 < sum(alone) < 40
    assert pack.test_errors(feed(x[:40], y[:40]))[0] == sum(alone) / 40
    module = pack.module(0)
    pixels = x / datasets.load("digits").full_scale
    with torch.no_grad():
        torch.testing.assert_close(module(pixels.double())[:1], module(pixels[:1].double()), rtol=1e-10, atol=1e-12)


def test_16_the_learning_rate_is_0_002() -> None:
    assert TrainingConfig().lr == 0.002
    assert {
        study.training.lr for study in STUDIES.values() if study.family == "ladder" and "freq20" not in study.name
    } == {0.002}
    pack, _ = digits_pack()
    assert pack.run(1)[0].learning_rate == 0.002
    final = pytest.importorskip("ladder_search.final.training", exc_type=ImportError)
    result = final.train_final(digits_trial(), datasets.load("digits"), seeds=[1001])
    rates = [row[LEARNING_RATE] for row in result.outcomes[0].epochs]
    assert rates == pytest.approx([0.002, 0.002, 0.002, 0.002 * 1 / (4 - 0.67 * 4)], rel=1e-12)


def test_17_the_decay_reaches_the_weights_and_leaves_adam_alone() -> None:
    # 20 steps in an epoch, four epochs, decay from D = 1: the factors by hand.
    factors = [1.0, 1.0, 2 / 3, 1 / 3]
    quiet = {"decoder": "none", "lambda_": (0.0,) * 3, "noise_std": (0.0,) * 3}
    pack, spec = digits_pack(model=quiet, epochs=4, decay_start=0.25, lr=0.01)
    model = Ladder(spec.model, generator=torch.Generator()).double()
    model.load_state_dict(pack.state(0).params, strict=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    digits = datasets.load("digits")
    x, y = torch.from_numpy(digits.train_x / 16.0), torch.from_numpy(digits.train_y.astype(np.int64))
    stream = BatchStream(spec.split.labelled, 20, seed=spec.seed, tag=LABELLED)
    hyper = {name: torch.zeros(3, dtype=torch.float64) for name in ("noise_std", "lambda_")}
    noise = torch.zeros(model.noise_size(20, 50), dtype=torch.float64)
    for epoch, factor in enumerate(factors):
        report = pack.run(20)[0]
        assert report.learning_rate == pytest.approx(0.01 * factor, rel=1e-12)
        optimiser.param_groups[0]["lr"] = 0.01 * factor
        for step in range(20 * epoch, 20 * epoch + 20):
            rows = torch.from_numpy(stream.batch(step))
            optimiser.zero_grad()
            model.cost(Batch(x[rows], y[rows], x[:50]), noise, hyper)[0].backward()
            optimiser.step()
        found = pack.state(0).params
        for name, value in model.named_parameters():
            torch.testing.assert_close(found[name], value.detach(), rtol=1e-9, atol=1e-11)


def test_18_the_error_is_that_of_the_last_weights() -> None:
    pack, _ = digits_pack(lr=0.05)
    x, _ = digits_test_set()
    pack.run(5)
    pixels = x.double() / 16.0
    with torch.no_grad():
        then = pack.module(0)(pixels).argmax(-1)  # as labels, today's weights make no error, so any others make more
    assert pack.test_errors(feed(x, then))[0] == 0.0
    pack.run(15)
    with torch.no_grad():
        now = pack.module(0)(pixels).argmax(-1)
    assert pack.test_errors(feed(x, then))[0] == (now != then).double().mean().item() > 0.0


def test_18_final_training_reports_its_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    final = pytest.importorskip("ladder_search.final.training", exc_type=ImportError)
    script = [0.5, 0.1, 0.2, 0.3]  # the second of four epochs is the best
    spec, x_y = digits_trial(), digits_test_set()

    def scripted(pack: Pack, test: TrainingData) -> dict[int, dict[str, float]]:
        return {
            slot: {"error": script[pack.state(slot).step // 12 - 1]} for slot in pack.active
        }  # 12 steps in an epoch

    with monkeypatch.context() as patch:
        patch.setattr(Pack, "test_scores", scripted)
        result = final.train_final(spec, datasets.load("digits"), seeds=[1001, 1002], curve_every=1)
    for outcome in result.outcomes:
        assert [row[TEST_ERROR] for row in outcome.epochs] == script
        assert outcome.test_error == 0.3
    result = final.train_final(spec, datasets.load("digits"), seeds=[1001, 1002])
    for outcome in result.outcomes:
        with torch.no_grad():
            guess = result.modules[outcome.seed](x_y[0] / 16.0).argmax(-1)
        assert outcome.test_error == pytest.approx((guess != x_y[1]).double().mean().item(), abs=1.5 / len(guess))
