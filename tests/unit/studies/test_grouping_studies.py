"""Tables of Tagger and RTagger as studies: settings, numbers and their standing, grace periods, and orderings."""

from __future__ import annotations

import functools

import pytest

from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from ladder_search.ordering.claims import ORDERINGS
from ladder_search.studies import STUDIES
from ladder_search.studies.grouping import STUDIES as GROUPING

ROWS = [study.name for study in GROUPING]
SMALL = ("shapes-small", "shapes-small-bn", "shapes-small-rtagger")
load = functools.cache(datasets.load)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_fits_its_data(name: str) -> None:
    study = STUDIES[name]
    if datasets.state(study.data.dataset) != PRESENT:
        pytest.skip(f"{study.data.dataset} is not here")
    dataset = load(study.data.dataset)
    study.trial().check_fits(dataset)
    member = study.trial().member(dataset)
    assert member.flops > 0 and len(member.split.validation) == study.data.validation
    # Slow starters live: no comparison before a third of the schedule.
    assert 0.3 * member.total_steps <= study.stop.first_rung_steps <= 0.5 * member.total_steps


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "shapes-ln": "0.970 ± 0.009 (unverified) (from memory)",
        "shapes-bn": "0.790 ± 0.034 (unverified) (from memory)",
    }.items(),
)
def test_numbers_and_their_standing(name: str, text: str) -> None:
    assert str(STUDIES[name].target) == text


def test_sizes_and_settings_are_those_of_the_code() -> None:
    shapes = STUDIES["shapes-bn"]
    assert shapes.model.widths == (2000, 1000, 500) and (shapes.model.iterations, shapes.model.groups) == (3, 4)
    assert (shapes.model.noise, shapes.model.initial_z, shapes.model.evaluation_iterations) == (0.2, 0.26, 5)
    assert (shapes.training.lr, shapes.training.epochs, shapes.training.unlabelled_batch) == (0.0004, 100, 100)


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
