"""Analyses by family, and the presentation of their results."""

from __future__ import annotations

from ladder_search.bundles.bundle import Bundle
from ladder_search.errors import SettingError
from ladder_search.metrics import NLL
from ladder_search.report.analyses.columns import COLUMNS
from ladder_search.report.analyses.family import FamilyAnalysis
from ladder_search.report.analyses.grouping import GROUPING
from ladder_search.report.analyses.music import MUSIC
from ladder_search.report.analyses.video import VIDEO

ANALYSES: dict[str, FamilyAnalysis] = {
    "progressive": COLUMNS,
    "recurrent": VIDEO,
    "sequence": MUSIC,
    "tagger": GROUPING,
    "rtagger": GROUPING,
}
"""Family -> its analysis; the other families have none."""


def find_analysis(bundle: Bundle) -> FamilyAnalysis:
    """Return the analysis of the bundle's network; any network for music has the analysis of music. Raise
    ``SettingError`` if the family has no analysis."""
    family = bundle.spec.family
    if family not in ANALYSES:
        raise SettingError(
            f"there are analyses of the families {', '.join(sorted(ANALYSES))} and {bundle.folder} is of the family "
            f"{family}; name another bundle."
        )
    return MUSIC if bundle.spec.measure == NLL else ANALYSES[family]
