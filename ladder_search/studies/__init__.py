"""The papers' tables as data: one study per published row."""

from __future__ import annotations

from ladder_search.errors import UnknownNameError
from ladder_search.studies import (
    conv_ladder,
    deconstruction,
    grouping,
    grouping_digits,
    ladder,
    music,
    progressive,
    progressive_conv,
    recurrent,
)
from ladder_search.studies.study import SpaceConfig, StopConfig, Study, Target

STUDIES: dict[str, Study] = {}
for _study in (
    *ladder.STUDIES,
    *conv_ladder.STUDIES,
    *deconstruction.STUDIES,
    *progressive.STUDIES,
    *progressive_conv.STUDIES,
    *recurrent.STUDIES,
    *music.STUDIES,
    *grouping.STUDIES,
    *grouping_digits.STUDIES,
):
    if _study.name in STUDIES:
        raise ValueError(f"two studies are called {_study.name!r}")
    STUDIES[_study.name] = _study


def find_study(name: str) -> Study:
    """Return the study ``name``, or raise ``UnknownNameError``."""
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    return STUDIES[name]


__all__ = ["STUDIES", "SpaceConfig", "StopConfig", "Study", "Target", "find_study"]
