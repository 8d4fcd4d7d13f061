"""What every study must satisfy on its data."""

from __future__ import annotations

import functools

import pytest

from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from ladder_search.studies import Study
from ladder_search.training.member import MemberSpec

load = functools.cache(datasets.load)


def fitting_member(study: Study) -> MemberSpec:
    """Return the member of the study's trial, after checks that it fits its data; skip the test without the data."""
    if datasets.state(study.data.dataset) != PRESENT:
        pytest.skip(f"{study.data.dataset} is not here")
    dataset = load(study.data.dataset)
    study.trial().check_fits(dataset)
    member = study.trial().member(dataset)
    assert member.flops > 0 and len(member.split.validation) == study.data.validation
    return member
