"""The rival of the benchmarks does the work that ours does: the same rows, schedule, validation and stops."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from benchmarks.packed_search import make_plan
from benchmarks.plain_loop import BUILD
from benchmarks.rivals import PlainTraining
from benchmarks.scene import Scene
from ladder_search.driver.settings import SearchSettings
from ladder_search.training.pack import MemberSpec, Pack, TrainingData


def trained(epochs: int) -> tuple[MemberSpec, TrainingData, PlainTraining]:
    scene = Scene("digits-100", "cpu")
    data, spec = scene.data, scene.spec(3)
    spec = replace(spec, training=replace(spec.training, epochs=4))
    training = PlainTraining(spec, data, compiled=False)
    for _ in range(epochs):
        training.epoch()
    return spec, data, training


def test_it_judges_weights_as_a_pack_does() -> None:
    spec, data, training = trained(1)
    pack = Pack(spec, BUILD, data)
    fresh = Pack(spec, BUILD, data)
    fresh.join(spec)
    weights = {name: value.detach() for name, value in training._model.named_parameters()}
    pack.join(spec, state=replace(fresh.state(0), params=weights))

    # Random images have random classes: nine of ten guesses are wrong, each row counts one in 297.
    assert training.validation_error() == pytest.approx(pack.validation_errors()[0], abs=1e-6)
    assert 0.7 < training.validation_error() < 1.0


def test_it_trains_the_rows_and_rates_of_a_pack() -> None:
    spec, data, training = trained(0)
    pack = Pack(spec, BUILD, data)
    pack.join(spec)
    # 1,297 rows less 297 held out, in batches of 100.
    assert spec.steps_per_epoch == 10
    for _ in range(4):
        tables = pack._tables({0: pack._seat(0)}, 10)
        for stream, rows in zip(training._streams, tables[-2:], strict=True):
            assert stream.batches(training._step, 10).tolist() == rows[:, 0].tolist()
        training.epoch()
        report = pack.run(10)[0]
        assert training._optimiser.param_groups[0]["lr"] == pytest.approx(report.learning_rate)


def test_a_second_trial_in_the_same_program_starts_afresh_with_its_own_settings() -> None:
    spec, data, training = trained(2)
    other = replace(spec, seed=9, model=replace(spec.model, lambda_=(0.0,) * 7))  # type: ignore[type-var]
    training.begin(other)
    again = PlainTraining(other, data, compiled=False)

    assert training.epoch() == again.epoch()
    for own, fresh in zip(training._model.parameters(), again._model.parameters(), strict=True):
        assert torch.equal(own, fresh)


def test_a_trial_goes_on_from_its_state() -> None:
    spec, data, training = trained(2)
    elsewhere = PlainTraining(spec, data, compiled=False)
    elsewhere.go_on(copy.deepcopy(training.state()))

    assert elsewhere.epoch() == training.epoch()


def test_the_plan_holds_the_published_points_first_and_reports_where_ours_do() -> None:
    plan = make_plan(SearchSettings(study="digits-100", trials=5, sampler="random"))
    # A report every ten epochs, one at the rung of a third of 75 epochs, and one at the end.
    assert plan["report_at"] == [10, 20, 25, 30, 40, 50, 60, 70, 75]
    assert plan["rungs"] == [25]
    published, baseline, *suggested = plan["configurations"].values()
    assert published["model"]["lambda_"][0] == 1000.0 and baseline["model"]["decoder"] == "none"
    assert len({one["training"]["lr"] for one in suggested}) == 3
