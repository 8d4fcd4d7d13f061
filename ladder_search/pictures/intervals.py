"""Means over seeds with their intervals: reproductions with the published number, and orderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes

from ladder_search.metrics import ERROR, MEASURES, Measure
from ladder_search.ordering.judging import JudgedOrdering
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.record.trial import OWN, PROPOSED
from ladder_search.reproduction.table import Row
from ladder_search.studies import Target
from ladder_search.wording import titles

_LINE, _FRAME = 0.34, 0.85
"""Inches of one line, and of the frame around the lines of a panel."""
_BELOW = 0.24
"""Distance of seeds below their interval, in lines."""
_VERDICTS = {"held": canvas.BLUE, "not shown": canvas.GREY, "contradicted": canvas.VERMILION, "not tested": canvas.GREY}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    label: str
    colour: str
    dots: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    note: str = ""
    """Text shown with the mean."""
    bounds: tuple[float, ...] = ()
    """Bounds that the interval is compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    heading: str
    measure: Measure
    lines: list[_Line]
    target: Target | None = None
    """Published number, in a line above the others."""


def intervals(title: str, rows: Sequence[Row]) -> Picture:
    """Draw a panel for every study: the published mean ± one deviation, then each contender with its seeds as dots."""
    panels = [
        _Panel(
            heading=_heading(first),
            measure=MEASURES[first.measure],
            lines=[_contender(row) for row in study_rows],
            target=first.target,
        )
        for study_rows in (list(part) for _, part in groupby(rows, key=lambda row: (row.study, row.epochs)))
        for first in study_rows[:1]
    ]
    judged_by = titles(panel.measure for panel in panels)
    foot = f"test {judged_by}: dots are seeds, bars 95 % intervals of the mean, diamonds published ± sd"
    return _drawn(title, panels, foot)


def _contender(row: Row) -> _Line:
    own = row.name in OWN
    return _Line(
        label=f"found {row.name}" if not own else PROPOSED if row.name == PROPOSED else "re-run",
        colour=canvas.GREY if row.dropped else canvas.VERMILION if own else canvas.BLUE,
        dots=row.errors,
        mean=row.mean,
        interval=row.interval,
        note=f": {row.verdict_text}",
    )


def _heading(row: Row) -> str:
    heading = f"{row.study}, reduced to {row.epochs} epochs" if row.reduced else row.study
    measure = MEASURES[row.measure]
    return heading if measure == ERROR else f"{heading} ({measure.label})"


def differences(result: JudgedOrdering) -> Picture:
    """Draw the studies, then the claims: dots are seeds, bars 95 % intervals, and ticks the bounds of a claim."""
    measure, values = result.ordering.unit, {one.study: one.values for one in result.reached}
    studies = [
        _Line(
            label=result.ordering.short[one.study],
            colour=canvas.BLUE,
            dots=tuple(one.values.values()),
            mean=one.summary.mean if one.summary else None,
            interval=one.summary.interval() if one.summary else None,
        )
        for one in result.reached
    ]
    claims = [
        _Line(
            label=f"{claim.number}  {result.relation(claim)}",
            colour=_VERDICTS[claim.verdict],
            dots=tuple(measure.gain(values[claim.first][seed], values[claim.second][seed]) for seed in claim.seeds),
            mean=claim.difference,
            interval=claim.interval,
            note=f": {claim.verdict}",
            bounds=(claim.bound,) if claim.kind == "below" else (-claim.bound, claim.bound),
        )
        for claim in result.claims
    ]
    unit, sides = measure.difference, result.sides
    panels = [
        _Panel(heading=f"test {measure.label}", measure=measure, lines=studies),
        _Panel(heading=f"differences, {sides}, {unit}", measure=replace(measure, unit=unit), lines=claims),
    ]
    foot = "dots: seeds; bars: 95 % intervals; dotted: what a claim must be beyond, or between"
    return _drawn(result.headline, panels, foot)


def _drawn(title: str, panels: Sequence[_Panel], foot: str) -> Picture:
    heights = [_LINE * (len(panel.lines) + (panel.target is not None)) + _FRAME for panel in panels]
    picture = Picture(title, height=sum(heights) + 0.3)
    axes = picture.figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        labels = [line.label for line in panel.lines]
        if panel.target is not None:
            labels.insert(0, "published")
            _published(picture, ax, panel.target, panel.measure)
        for place, line in enumerate(panel.lines, start=len(labels) - len(panel.lines)):
            _line(picture, ax, place, line, panel.measure)
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.set_xlim(*_span(panel))
        ax.set_title(panel.heading)
        canvas.measure_axis(ax.xaxis, panel.measure)
    picture.figure.supxlabel(foot, size=9)
    return picture


def _published(picture: Picture, ax: Axes, target: Target, measure: Measure) -> None:
    ax.axvline(target.error, color=canvas.BLACK, linewidth=0.8, linestyle=":", zorder=1)
    style: dict[str, Any] = {"color": canvas.BLACK, "markersize": 4, "linewidth": 1.2, "capsize": 3}
    ax.errorbar(target.error, 0, xerr=target.deviation, fmt="D", **style)
    picture.hover(ax, [target.error], [0], [f"published {target}"])


def _line(picture: Picture, ax: Axes, place: int, line: _Line, measure: Measure) -> None:
    style: dict[str, Any] = {"color": line.colour}
    below = [place + _BELOW] * len(line.dots)
    ax.plot(line.dots, below, "o", **style, alpha=0.35, markersize=4, markeredgewidth=0)
    picture.hover(ax, line.dots, below, [f"{line.label}, one seed: {measure.text(dot)}" for dot in line.dots])
    if line.interval:
        ax.plot(line.interval, [place, place], **style, linewidth=2.2, solid_capstyle="butt")
    if line.mean is not None:
        ax.plot([line.mean], [place], "|", **style, markersize=11, markeredgewidth=2.2)
        low, high = line.interval or (None, None)
        text = "" if low is None else f", 95 % interval {measure.text(low)} .. {measure.text(high)}"
        text = f"{line.label}, {measure.text(line.mean)}{text}, n = {len(line.dots)}{line.note}"
        ends = [line.mean, *(line.interval or ())]
        picture.hover(ax, ends, [place] * len(ends), [text] * len(ends))
    for bound in line.bounds:
        ax.plot([bound, bound], [place - 0.4, place + 0.4], ":", color=canvas.BLACK, linewidth=1.0)
        picture.hover(ax, [bound], [place], [f"bound {measure.text(bound)}"])


def _span(panel: _Panel) -> tuple[float, float]:
    """Return the range of a panel: seeds, means, bounds, the published number, and intervals up to a readable size,
    which those of two seeds exceed."""
    ends = [end for line in panel.lines for end in (*line.dots, *line.bounds)]
    ends += [line.mean for line in panel.lines if line.mean is not None]
    if panel.target is not None:
        ends += [panel.target.error + sign * (panel.target.deviation or 0.0) for sign in (-1, 1)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    width = (high - low) or abs(high) or 1.0
    far = [end for line in panel.lines for end in line.interval or ()]
    low, high = max(min([low, *far]), low - width), min(max([high, *far]), high + width)
    margin = 0.04 * (high - low) or 0.1 * width
    return low - margin, high + margin
