"""Tables of Tagger and RTagger as studies: settings, numbers and their standing, grace periods, and orderings."""

from __future__ import annotations

import math

import pytest

from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from ladder_search.nn.grouping import GroupingConfig
from ladder_search.ordering.claims import ORDERINGS
from ladder_search.studies import STUDIES, grouping, grouping_digits
from tests.unit.studies.fitting import fitting_member

ROWS = [study.name for study in (*grouping.STUDIES, *grouping_digits.STUDIES)]
SMALL = (
    "shapes-small",
    "shapes-small-bn",
    "shapes-small-rtagger",
    "freq20-1digits-small",
    "two-textures-small",
    "moving-digits-small",
)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_fits_its_data(name: str) -> None:
    study = STUDIES[name]
    member = fitting_member(study)
    # Slow starters live: no comparison before a third of the schedule.
    assert 0.3 * member.total_steps <= study.stop.first_rung_steps <= 0.5 * member.total_steps


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "shapes-ln": "0.970 ± 0.009 (unverified) (from memory)",
        "shapes-bn": "0.790 ± 0.034 (unverified) (from memory)",
        "freq20-1mnist-tagger": "4.00 % ± 0.30 (unverified) (from memory)",
        "freq20-1mnist-1000-tagger": "10.50 % ± 0.90 (unverified) (from memory)",
        "freq20-1mnist-1000-ladder": "30.50 % ± 0.50 (unverified) (from memory)",
        "freq20-1mnist-1000-convnet": "52.40 % ± 5.30 (unverified) (from memory)",
        "freq20-1mnist-mlp": "31.10 % ± 2.20 (unverified) (from memory)",
        "freq20-2mnist-1000-tagger": "24.90 % ± 1.80 (unverified) (from memory)",
        "freq20-2mnist-ladder": "41.10 % ± 0.20 (unverified) (from memory)",
        "freq20-2mnist-1000-convnet": "79.10 % ± 0.80 (unverified) (from memory)",
        "freq20-2mnist-mlp": "55.20 % ± 1.00 (unverified) (from memory)",
        "brodatz-mnist-rtagger": "0.800 ± 0.010 (unverified) (from memory)",
        "brodatz-mnist-rtagger-error": "5.90 % ± 0.20 (unverified) (from memory)",
        "brodatz-mnist-tagger": "0.730 ± 0.020 (unverified) (from memory)",
        "brodatz-mnist-convnet": "14.30 % ± 0.46 (unverified) (from memory)",
        "brodatz-mnist-1000-rtagger-error": "22.60 % ± 6.20 (unverified) (from memory)",
        "brodatz-mnist-1000-convnet": "88.00 % ± 0.30 (unverified) (from memory)",
        "moving-mnist-rtagger": "0.750",
    }.items(),
)
def test_numbers_and_their_standing(name: str, text: str) -> None:
    assert str(STUDIES[name].target) == text


def test_sizes_and_settings_are_those_of_the_code() -> None:
    shapes = STUDIES["shapes-bn"]
    assert shapes.model.widths == (2000, 1000, 500) and (shapes.model.iterations, shapes.model.groups) == (3, 4)
    assert (shapes.model.noise, shapes.model.initial_z, shapes.model.evaluation_iterations) == (0.2, 0.26, 5)
    assert (shapes.training.lr, shapes.training.epochs, shapes.training.unlabelled_batch) == (0.0004, 100, 100)
    textured = STUDIES["freq20-2mnist-1000-tagger"].model
    assert textured.widths == (3000, 2000, 1000, 500, 250, 11) and (textured.iterations, textured.noise) == (4, 0.18)
    assert (textured.likelihood, textured.initial_z, textured.class_cost) == ("continuous", 0.5, 0.1)
    assert (textured.norm, textured.w_rate, textured.initial_scale, textured.initial_mean) == ("bn", 1.0, 1.0, 0.0)


@pytest.mark.parametrize("name", [name for name in ROWS if "texture" in name or "freq20" in name or "brodatz" in name])
def test_the_variance_can_fall_below_the_error_of_textures_within_the_schedule(name: str) -> None:
    study = STUDIES[name]
    if not isinstance(study.model, GroupingConfig):
        pytest.skip("it has no likelihood of pixels")
    model, training = study.model, study.training
    # Adam changes w by at most w_rate times the rate; stop.first_rung_steps is a third of the updates.
    fall = model.w_rate * training.lr * 3 * study.stop.first_rung_steps * (1 + training.decay_start) / 2
    w = model.initial_w - fall
    assert w + math.sqrt(w * w + 1) <= 0.02


@pytest.mark.parametrize("name", SMALL)
def test_small_studies_need_no_download_and_are_judged_by_ami(name: str) -> None:
    study = STUDIES[name]
    assert datasets.state(study.data.dataset) == PRESENT and study.target is None
    assert study.measure.name == "ami" and study.measure.rises


def test_orderings_of_groups() -> None:
    shapes = ORDERINGS["shapes-small"]
    assert [(claim.first, claim.second, claim.bound) for claim in shapes.claims] == [
        ("shapes-small", "shapes-small-bn", 0.2),
        ("shapes-small@5", "shapes-small@1", 0.0),
    ]
    assert {study.name for study in shapes.rows} == {"shapes-small", "shapes-small-bn"}
    table = ORDERINGS["brodatz-mnist-table-4"]
    assert table.measure == "error" and [(claim.first, claim.second) for claim in table.claims][:2] == [
        ("brodatz-mnist-rtagger-error", "brodatz-mnist-tagger-error"),
        ("brodatz-mnist-tagger-error", "brodatz-mnist-convnet"),
    ]
    small = ORDERINGS["two-textures-small-groups"]
    assert small.measure == "ami" and [(claim.first, claim.second) for claim in small.claims] == [
        ("two-textures-small", "two-textures-small-tagger"),
        ("two-textures-small@3", "two-textures-small@1"),
    ]
