"""The analysis of networks that group pixels: groups and scores after every iteration."""

from __future__ import annotations

from ladder_search.analysis.grouping import GroupingAnalysisConfig, Groups, choose, look
from ladder_search.analysis.result import Analysis
from ladder_search.console.tables import Table
from ladder_search.metrics import AMI, AMI_ARITHMETIC, ERROR
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.grouping import scores, segmentations
from ladder_search.report.analyses.family import FamilyAnalysis


def _table(found: Groups) -> Table:
    measures = [(AMI, found.ami), (AMI_ARITHMETIC, found.ami_arithmetic), *([(ERROR, found.error)] * bool(found.error))]
    header = ("mean", *(f"{found.step} {t + found.first}" for t in range(len(found.ami))))
    rows = [(measure.label, *(measure.text(value) for value in values)) for measure, values in measures]
    return Table(header=header, rows=rows, left=("mean",))


def _sentences(analysis: Analysis) -> list[str]:
    found: Groups = analysis.found
    return [f"Means over {found.judged}, of which {len(found.shown)} are drawn."]


def _draw(heading: str, found: Groups) -> dict[str, Picture]:
    return {"groups": segmentations(heading, found), "scores": scores(heading, found)}


def _values(found: Groups) -> dict[str, dict[int, float]]:
    values = {AMI.name: found.ami, AMI_ARITHMETIC.name: found.ami_arithmetic, ERROR.name: found.error}
    return {name: dict(enumerate(each, found.first)) for name, each in values.items() if each}


GROUPING = FamilyAnalysis(
    settings=GroupingAnalysisConfig,
    found=Groups,
    choose=choose,
    run=look,
    items="examples",
    table=_table,
    sentences=_sentences,
    draw=_draw,
    values=_values,
)
