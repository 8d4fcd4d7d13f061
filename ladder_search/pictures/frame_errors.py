"""What a network for video gets wrong from frame to frame, beside predictors without parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from plotly.subplots import make_subplots

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


def frame_errors(title: str, found: Video) -> Picture:
    """Draw a panel for each of: classes, predicted frames, the probe; of what the network has."""
    panels = _panels(found)
    return Picture(title=title, png=_png(title, panels), page=_page(title, panels))


def _panels(found: Video) -> list[_Panel]:
    panels, all_, later = [], range(1, found.frames + 1), range(2, found.frames + 1)
    if found.class_error:
        line = _Line("network", canvas.VERMILION, all_, found.class_error)
        panels.append(_Panel("class told", ERROR, [line]))
    if found.bounds is not None:
        bounds = found.bounds
        lines = [
            _Line("network", canvas.VERMILION, later, found.prediction_error),
            _Line("what was seen, along the known motion", canvas.BLUE, later, bounds.known_motion),
            _Line("the frame before", canvas.ORANGE, later, [bounds.copy] * len(later)),
            _Line("always empty", canvas.GREY, later, [bounds.zero] * len(later)),
        ]
        panels.append(_Panel("predicted frame", PREDICTION_ERROR, lines))
    if found.probe is not None:
        lines = [
            _Line("network", canvas.VERMILION, all_, found.probe.network),
            _Line("what was seen, along the known motion", canvas.BLUE, all_, found.probe.memory),
            _Line("the frame as it is seen", canvas.PURPLE, all_, found.probe.occluded),
        ]
        panels.append(_Panel("probed frame", PREDICTION_ERROR, lines))
    return panels


def _unit(measure: Measure) -> str:
    return f"squared error per pixel, {measure.unit}" if measure is PREDICTION_ERROR else measure.label


def _png(title: str, panels: Sequence[_Panel]) -> Any:
    fig = canvas.figure(title, height=3.2)
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        _curves(ax, panel)
    named = {line.name: line for panel in panels for line in panel.lines}
    handles = [axes[0].plot([], [], color=line.colour, marker="o", markersize=3)[0] for line in named.values()]
    fig.legend(handles, list(named), loc="outside lower center", ncols=3)
    return fig


def _curves(ax: Axes, panel: _Panel) -> None:
    for line in reversed(panel.lines):  # the network above the others
        ax.plot(list(line.frames), list(line.values), color=line.colour, marker="o", markersize=3, linewidth=1.3)
    ax.set_title(panel.title)
    ax.set_xlabel("frame")
    ax.set_xticks(list(panel.lines[0].frames))
    ax.set_ylabel(_unit(panel.measure))
    canvas.measure_axis(ax.yaxis, panel.measure, log=False)
    ax.set_ylim(bottom=0.0)


def _page(title: str, panels: Sequence[_Panel]) -> Any:
    fig = make_subplots(rows=1, cols=len(panels), subplot_titles=[panel.title for panel in panels])
    canvas.style_page(fig, title, height=460, legend={"orientation": "h", "y": -0.2})
    told: set[str] = set()
    for column, panel in enumerate(panels, 1):
        for line in panel.lines:
            fig.add_scatter(
                x=list(line.frames),
                y=[panel.measure.scale * value for value in line.values],
                name=line.name,
                mode="lines+markers",
                line={"color": line.colour},
                legendgroup=line.name,
                showlegend=line.name not in told,
                hovertext=[f"{line.name}, frame {n}: {panel.measure.text(v)}" for n, v in zip(*line[2:], strict=True)],
                hoverinfo="text",
                row=1,
                col=column,
            )
            told.add(line.name)
        fig.update_yaxes(title=_unit(panel.measure), rangemode="tozero", row=1, col=column)
    fig.update_xaxes(title="frame", dtick=1)
    return fig
