"""Errors of a network for video from frame to frame, compared with predictors without parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ladder_search.analysis.video import Video
from ladder_search.metrics import ERROR, PREDICTION_ERROR, Measure
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture


class _Line(NamedTuple):
    name: str
    colour: str
    frames: Sequence[int]
    values: Sequence[float]


class _Panel(NamedTuple):
    title: str
    measure: Measure
    lines: list[_Line]


def frame_errors(title: str, video: Video) -> Picture:
    """Draw a panel each for classes, predicted frames and the probe, as far as the network has them."""
    panels = _panels(video)
    picture = Picture(title, height=3.2)
    axes = picture.figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (heading, measure, lines) in zip(axes, panels, strict=True):
        for name, colour, frames, values in reversed(lines):  # the network is drawn last
            ax.plot([*frames], [*values], color=colour, marker="o", markersize=3, linewidth=1.3, label=f"_{name}")
            texts = [
                f"{name}, frame {frame}: {measure.text(value)}" for frame, value in zip(frames, values, strict=True)
            ]
            picture.hover(ax, frames, values, texts, name)
        ax.set_title(heading)
        ax.set_xlabel("frame")
        ax.set_xticks(list(lines[0].frames))
        ax.set_ylabel(f"squared error per pixel, {measure.unit}" if measure is PREDICTION_ERROR else measure.label)
        canvas.measure_axis(ax.yaxis, measure)
        ax.set_ylim(bottom=0.0)
    for line in {line.name: line for panel in panels for line in panel.lines}.values():  # for the legend
        axes[0].plot([], [], color=line.colour, marker="o", markersize=3, label=line.name)
    picture.legend_below(axes[0])
    return picture


def _panels(video: Video) -> list[_Panel]:
    panels, all_, later = [], range(1, video.frames + 1), range(2, video.frames + 1)
    if video.class_error:
        line = _Line("network", canvas.VERMILION, all_, video.class_error)
        panels.append(_Panel("class", ERROR, [line]))
    if video.bounds is not None:
        bounds = video.bounds
        lines = [
            _Line("network", canvas.VERMILION, later, video.prediction_error),
            _Line("what was seen, along the known motion", canvas.BLUE, later, bounds.known_motion),
            _Line("the frame before", canvas.ORANGE, later, [bounds.copy] * len(later)),
            _Line("always empty", canvas.GREY, later, [bounds.zero] * len(later)),
        ]
        panels.append(_Panel("predicted frame", PREDICTION_ERROR, lines))
    if video.probe is not None:
        lines = [
            _Line("network", canvas.VERMILION, all_, video.probe.network),
            _Line("what was seen, along the known motion", canvas.BLUE, all_, video.probe.memory),
            _Line("the frame as it is seen", canvas.PURPLE, all_, video.probe.occluded),
        ]
        panels.append(_Panel("probed frame", PREDICTION_ERROR, lines))
    return panels
