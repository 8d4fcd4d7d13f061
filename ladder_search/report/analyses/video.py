"""The analysis of networks for video: predictions, classes and memory, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ladder_search.analysis.result import Analysis
from ladder_search.analysis.video import Video, VideoConfig, choose, look
from ladder_search.console.tables import Table
from ladder_search.metrics import ERROR, PREDICTION_ERROR, Measure
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.frame_errors import frame_errors
from ladder_search.pictures.video import sequences
from ladder_search.report.analyses.family import FamilyAnalysis
from ladder_search.wording import NOTHING


def _table(video: Video) -> Table:
    rows: list[tuple[str, ...]] = []

    def row(name: str, measure: Measure, values: Sequence[float], *, first: int = 1) -> None:
        cells = [NOTHING] * (first - 1) + [measure.number(value) for value in values]
        rows.append((f"{name}, {measure.unit}", *cells))

    if video.class_error:
        row("error of classes", ERROR, video.class_error)
    if video.bounds is not None:
        row("predicted frame", PREDICTION_ERROR, video.prediction_error, first=2)
        row("  by known motion", PREDICTION_ERROR, video.bounds.known_motion, first=2)
    if video.probe is not None:
        row("probed frame", PREDICTION_ERROR, video.probe.network)
        row("  as it is seen", PREDICTION_ERROR, video.probe.occluded)
        row("  all seen so far", PREDICTION_ERROR, video.probe.memory)
    header = ("mean", *(f"frame {number}" for number in range(1, video.frames + 1)))
    return Table(header=header, rows=rows, left=("mean",))


def _sentences(analysis: Analysis) -> list[str]:
    found: Video = analysis.found
    sentences = [f"Means over {found.judged} sequences, of which {len(found.shown)} are drawn."]
    if found.bounds is not None:
        bounds, number = found.bounds, PREDICTION_ERROR.number
        sentences.append(
            f"{PREDICTION_ERROR.title.capitalize()}: {PREDICTION_ERROR.text(fmean(found.prediction_error))}; always "
            f"empty {number(bounds.zero)}, the frame before {number(bounds.copy)}, what was seen along the known "
            f"motion {number(fmean(bounds.known_motion))}."
        )
    if found.probe is not None:
        sentences.append(
            "The probe reads the lowest decoder cell and is held against the whole frame, bars taken away."
        )
    else:
        sentences.append("Without a decoder there is nothing to probe.")
    return sentences


def _draw(heading: str, found: Video) -> dict[str, Picture]:
    pictures = {"sequences": sequences(heading, found)}
    if found.frames > 1:
        pictures["frame-errors"] = frame_errors(heading, found)
    return pictures


def _values(found: Video) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {}

    def by_frame(name: str, errors: Sequence[float], *, first: int = 1) -> None:
        if errors:
            values[name] = dict(enumerate(errors, first))

    by_frame("error", found.class_error)
    by_frame("prediction_error", found.prediction_error, first=2)
    if found.bounds is not None:
        by_frame("prediction_error/known_motion", found.bounds.known_motion, first=2)
        values["prediction_error/zero"] = {0: found.bounds.zero}
        values["prediction_error/copy"] = {0: found.bounds.copy}
    if found.probe is not None:
        by_frame("probe_error", found.probe.network)
        by_frame("probe_error/occluded", found.probe.occluded)
        by_frame("probe_error/memory", found.probe.memory)
    return values


VIDEO = FamilyAnalysis(
    settings=VideoConfig,
    found=Video,
    choose=choose,
    run=look,
    items="sequences",
    table=_table,
    sentences=_sentences,
    draw=_draw,
    values=_values,
)
