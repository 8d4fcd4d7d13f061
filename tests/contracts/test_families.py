"""One contract for all families: the checks of ``ladder_search.testing``, on a tiny network of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ladder_search.models import FAMILIES
from ladder_search.nn.protocol import StagedConfig
from ladder_search.testing import CHECKS, network_of
from spaces import find_space


def test_rows_name_spaces_and_stages() -> None:
    for family in FAMILIES.values():
        assert isinstance(family.small, family.config) and find_space(str(family.space))
        assert (family.stage in FAMILIES) == issubclass(family.config, StagedConfig)
        assert family.built_in and family.plugin is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_family_keeps_the_contract(check: Callable[[str], None], family: str) -> None:
    check(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_start_with_the_usual_terms(family: str) -> None:
    grouping = family in ("tagger", "rtagger")
    assert network_of(family).term_names[: 2 - grouping] == ("cost", "cost_supervised")[: 2 - grouping]
