"""The picture of a tested ordering: every study's seeds and interval, and below them every claim's differences."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from plotly.subplots import make_subplots

from ladder_search.ordering.judging import JudgedClaim, JudgedOrdering
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture

_ROW, _FRAME = 0.34, 0.85
"""Inches of one row, and of what stands around the rows of a panel."""
_PIXELS = 96
_BELOW = 0.24
"""How far below the interval its seeds are drawn, in rows."""
_COLOURS = {
    "held": canvas.BLUE,
    "not shown": canvas.GREY,
    "contradicted": canvas.VERMILION,
    "not tested": canvas.GREY,
}


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    dots: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    colour: str
    bounds: tuple[float, ...] = ()
    """What the interval must be beyond, or between."""


def differences(found: JudgedOrdering) -> Picture:
    """Draw the studies, then the claims: dots are seeds, bars 95 % intervals, ticks what a claim must be beyond."""
    panels = {
        f"test {found.ordering.unit.label}": _studies(found),
        f"differences, second minus first, {found.ordering.unit.difference}": _claims(found),
    }
    return Picture(title=found.headline, png=_png(found, panels), page=_page(found, panels))


def _studies(found: JudgedOrdering) -> list[_Row]:
    return [
        _Row(
            label=found.ordering.short[one.study],
            dots=tuple(one.values.values()),
            mean=one.summary.mean if one.summary else None,
            interval=one.summary.interval() if one.summary else None,
            colour=canvas.BLUE,
        )
        for one in found.reached
    ]


def _claims(found: JudgedOrdering) -> list[_Row]:
    values = {one.study: one.values for one in found.reached}
    return [
        _Row(
            label=f"{claim.number}  {found.relation(claim)}",
            dots=tuple(values[claim.second][seed] - values[claim.first][seed] for seed in claim.seeds),
            mean=claim.difference,
            interval=claim.interval,
            colour=_COLOURS[claim.verdict],
            bounds=_bounds(claim),
        )
        for claim in found.claims
    ]


def _bounds(claim: JudgedClaim) -> tuple[float, ...]:
    return (claim.bound,) if claim.kind == "below" else (-claim.bound, claim.bound)


def _png(found: JudgedOrdering, panels: dict[str, list[_Row]]) -> Any:
    measure = found.ordering.unit
    heights = [_ROW * len(rows) + _FRAME for rows in panels.values()]
    fig = canvas.figure(found.headline, height=sum(heights) + 0.3)
    axes = fig.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
    for ax, (heading, rows) in zip(axes, panels.items(), strict=True):
        for place, row in enumerate(rows):
            look = {"color": row.colour}
            ax.plot(row.dots, [place + _BELOW] * len(row.dots), "o", **look, alpha=0.35, markersize=4, mew=0)
            if row.interval:
                ax.plot(row.interval, [place, place], **look, linewidth=2.2, solid_capstyle="butt")
            if row.mean is not None:
                ax.plot([row.mean], [place], "|", **look, markersize=11, markeredgewidth=2.2)
            for bound in row.bounds:
                ax.plot([bound, bound], [place - 0.4, place + 0.4], ":", color=canvas.BLACK, linewidth=1.0)
        ax.set_yticks(range(len(rows)), [row.label for row in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(*_span(rows))
        ax.set_title(heading)
        canvas.measure_axis(ax.xaxis, measure, log=False)
        measure = replace(measure, unit=measure.difference)  # of the next panel
    fig.supxlabel("dots: seeds; bars: 95 % intervals; dotted: what a claim must be beyond, or between", size=9)
    return fig


def _page(found: JudgedOrdering, panels: dict[str, list[_Row]]) -> Any:
    measure = found.ordering.unit
    heights = [_ROW * len(rows) + _FRAME for rows in panels.values()]
    fig = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=[height / sum(heights) for height in heights],
        subplot_titles=[html.escape(heading, quote=False) for heading in panels],
        vertical_spacing=0.35 / (len(panels) + 0.6),
    )
    canvas.style_page(fig, found.headline, height=_PIXELS * sum(heights) + 120, showlegend=False)
    for number, rows in enumerate(panels.values(), start=1):
        unit = measure.unit if number == 1 else measure.difference
        labels = [html.escape(row.label, quote=False) for row in rows]
        for label, row in zip(labels, rows, strict=True):

            def add(values: Sequence[float], of: str, label: str = label, unit: str = unit, **look: Any) -> None:
                shown = f"%{{x:.{measure.digits}f}} {unit}<br>{of}<extra>%{{y}}</extra>"
                x = [measure.scale * value for value in values]
                fig.add_scatter(x=x, y=[label] * len(x), hovertemplate=shown, **look, row=number, col=1)  # noqa: B023

            bar = {"symbol": "line-ns-open", "size": 16, "color": row.colour, "line": {"width": 3}}
            if row.interval:
                add(row.interval, "95 % interval", mode="lines", line={"color": row.colour, "width": 4})
            if row.mean is not None:
                add([row.mean], "mean", mode="markers", marker=bar)
            add(row.bounds, "bound", mode="markers", marker={**bar, "color": canvas.BLACK, "line": {"width": 1}})
            add(row.dots, "one seed", mode="markers", marker={"size": 8, "color": row.colour, "opacity": 0.4})
        order = {"categoryorder": "array", "categoryarray": labels, "range": [len(labels) - 0.4, -0.6]}
        fig.update_yaxes(**order, row=number, col=1)
        low, high = _span(rows)
        span = [measure.scale * low, measure.scale * high]
        fig.update_xaxes(range=span, ticksuffix=" %" if unit == "%" else "", showgrid=True, row=number, col=1)
    fig.update_annotations(x=0, xanchor="left")
    return fig


def _span(rows: Sequence[_Row]) -> tuple[float, float]:
    """From which value to which a panel reaches: seeds, means and bounds, and intervals as far as they leave these
    readable, which those of two seeds do not."""
    ends = [end for row in rows for end in (*row.dots, *row.bounds, *([] if row.mean is None else [row.mean]))]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    width = (high - low) or abs(high) or 1.0
    far = [end for row in rows for end in row.interval or ()]
    low, high = max(min([low, *far]), low - width), min(max([high, *far]), high + width)
    margin = 0.04 * (high - low) or 0.1 * width
    return low - margin, high + margin
