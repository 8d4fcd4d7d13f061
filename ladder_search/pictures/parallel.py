"""Parallel coordinates: every complete trial as a line through its error and all its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize

from ladder_search import wording
from ladder_search.metrics import Measure
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Point, Trials
from ladder_search.wording import OWN

_IN_A_ROW = 8
"""Maximum number of parameters in a row, so that text stays readable."""
_ABSENT = -0.1
"""Height of a trial on the axis of a parameter that it lacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axis:
    """One vertical axis, from 0 at its foot to 1."""

    label: str
    heights: list[float]
    ticks: list[tuple[float, str]]


def parallel_coordinates(title: str, trials: Trials) -> Picture:
    """Draw complete trials as lines, dark for good values; the published and the best trial are highlighted."""
    names = trials.searched
    if not names:
        return canvas.words(title, trials.why_empty())
    measure = trials.study.measure
    points = sorted(trials.complete, key=lambda point: -measure.loss(point.error or 0.0))  # the best is last
    errors = [point.error or 0.0 for point in points]
    first = _numeric(f"validation\n{measure.title}", errors, log=False, text=measure.text)
    rows = math.ceil(len(names) / _IN_A_ROW)
    columns = math.ceil(len(names) / rows)
    picture = Picture(title, width=max(canvas.WIDTH, 1.1 * (columns + 2)), height=1.0 + 2.9 * rows)
    panels = picture.figure.subplots(rows, 1, squeeze=False)[:, 0]
    for row, ax in enumerate(panels):
        axes = [first, *(_axis(name, points, trials) for name in names[row * columns : (row + 1) * columns])]
        _frame(ax, axes, columns + 1)
        _lines(picture, ax, axes, points, trials)
    low, high = min(errors), max(errors)
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1e-6), _colours(measure))
    bar = picture.figure.colorbar(scale, ax=list(panels), pad=0.01, aspect=30, label=f"validation {measure.label}")
    canvas.measure_axis(bar.ax.yaxis, measure)
    if low == high:
        bar.set_ticks([low])
    picture.legend_below(panels[0])
    return picture


def _colours(measure: Measure) -> Colormap:
    """Return the colours from the lowest to the highest value; the best is dark."""
    colours = matplotlib.colormaps[canvas.COLOUR_MAP]
    return colours.reversed() if measure.rises else colours


def _axis(name: str, points: Sequence[Point], trials: Trials) -> _Axis:
    values = [trials.position(name, point) if name in point.params else None for point in points]
    label = canvas.wrapped(name, 14)
    if name in trials.choices:
        return _categorical(label, values, trials.choices[name])
    return _numeric(label, values, log=trials.log[name])


def _lines(picture: Picture, ax: Axes, axes: Sequence[_Axis], points: Sequence[Point], trials: Trials) -> None:
    errors = [point.error or 0.0 for point in points]
    low, high = min(errors), max(errors)
    thin, standouts = canvas.thinned(len(points)), trials.standouts
    for place, (point, error) in enumerate(zip(points, errors, strict=True)):
        shade = _colours(trials.study.measure)((error - low) / ((high - low) or 1.0))
        style: dict[str, Any] = {"color": shade, "linewidth": thin, "alpha": 0.8 * thin}
        if why := standouts.get(point.key):
            colour = canvas.VERMILION if why in OWN else canvas.BLUE
            label = f"{why}: {trials.study.measure.text(error)}"
            style = {"color": colour, "linewidth": 2.0, "zorder": 3, "label": label}
        heights = [axis.heights[place] for axis in axes]
        ax.plot(range(len(axes)), heights, **style)
        text = f"{trials.described(point)}\n{wording.assignments(point.params)}"
        picture.hover(ax, range(len(axes)), heights, [text] * len(axes), style.get("label", ""))


def _numeric(label: str, values: Sequence[float | None], *, log: bool, text: Any = wording.value) -> _Axis:
    numbers = [value for value in values if value is not None]
    low, high = min(numbers), max(numbers)
    if low == high:
        heights = [_ABSENT if value is None else 0.5 for value in values]
        return _Axis(label=label, heights=heights, ticks=[(0.5, text(low))])
    scale = math.log if log else float
    heights = _scaled([None if value is None else scale(value) for value in values], scale(low), scale(high))
    middle = math.sqrt(low) * math.sqrt(high) if log else (low + high) / 2
    return _Axis(label=label, heights=heights, ticks=[(0.0, text(low)), (0.5, text(middle)), (1.0, text(high))])


def _categorical(label: str, values: Sequence[float | None], choices: Sequence[str]) -> _Axis:
    top = max(1, len(choices) - 1)
    ticks = [(place / top, canvas.wrapped(choice, 12)) for place, choice in enumerate(choices)]
    return _Axis(label=label, heights=_scaled(values, 0.0, top), ticks=ticks)


def _scaled(values: Sequence[float | None], low: float, high: float) -> list[float]:
    return [_ABSENT if value is None else (value - low) / (high - low) for value in values]


def _frame(ax: Axes, axes: Sequence[_Axis], room: int) -> None:
    """Draw the vertical axes with their labels and ticks, in a frame for ``room`` axes."""
    behind: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    absent = any(height == _ABSENT for axis in axes for height in axis.heights)
    for column, axis in enumerate(axes):
        ax.plot([column, column], [0, 1], color="#808080", linewidth=1.0, zorder=2)
        ticks = [*axis.ticks, *([(_ABSENT, "not used")] if _ABSENT in axis.heights else [])]
        for height, text in ticks:
            ax.text(column + 0.03, height, text, fontsize=7, va="center", zorder=4, bbox=behind)
    ax.set_xticks(range(len(axes)), [axis.label for axis in axes], fontsize=8)
    ax.set_xlim(-0.1, room - 0.5)
    ax.set_ylim(_ABSENT - 0.05 if absent else -0.05, 1.05)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.tick_params(axis="x", length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
