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

_TABLES = (
    ladder.STUDIES, conv_ladder.STUDIES, deconstruction.STUDIES, progressive.STUDIES, progressive_conv.STUDIES,
    recurrent.STUDIES, music.STUDIES, grouping.STUDIES, grouping_digits.STUDIES,
)  # fmt: skip
STUDIES: dict[str, Study] = {study.name: study for table in _TABLES for study in table}
assert len(STUDIES) == sum(map(len, _TABLES)), "two studies have the same name"


def find_study(name: str) -> Study:
    """Return the study ``name``, or raise ``UnknownNameError``."""
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    return STUDIES[name]


__all__ = ["STUDIES", "SpaceConfig", "StopConfig", "Study", "Target", "find_study"]
