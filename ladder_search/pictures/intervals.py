"""The picture of reproductions: each published mean beside the seeds and intervals that were reached here."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

from plotly.subplots import make_subplots

from ladder_search.metrics import ERROR, MEASURES, Measure
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.record.trial import PUBLISHED
from ladder_search.reproduction.table import Row
from ladder_search.wording import titles

_ROW, _FRAME = 0.34, 0.85
"""Inches of one row, and of what stands around the rows of a study."""
_PIXELS = 96
_BELOW = 0.24
"""How far below the interval its seeds are drawn, in rows."""


def intervals(title: str, rows: Sequence[Row]) -> Picture:
    """Draw a panel for every study: the published mean ± one deviation, then each contender with its seeds as dots."""
    panels = [list(own) for _, own in groupby(rows, key=lambda row: (row.study, row.epochs))]
    return Picture(title=title, png=_png(title, panels), page=_page(title, panels))


def _name(row: Row) -> str:
    return "re-run" if row.name == PUBLISHED else f"found {row.name}"


def _colour(row: Row) -> str:
    if row.dropped:
        return canvas.GREY
    return canvas.VERMILION if row.name == PUBLISHED else canvas.BLUE


def _heading(panel: list[Row]) -> str:
    first, measure = panel[0], _measure(panel)
    heading = f"{first.study}, reduced to {first.epochs} epochs" if first.reduced else first.study
    return heading if measure == ERROR else f"{heading} ({measure.label})"


def _measure(panel: list[Row]) -> Measure:
    return MEASURES[panel[0].measure]


def _labels(panel: list[Row]) -> list[str]:
    """From the top down; a study without a target has no published number."""
    return [*(["published"] if panel[0].target else []), *map(_name, panel)]


def _png(title: str, panels: list[list[Row]]) -> Any:
    heights = [_ROW * len(_labels(panel)) + _FRAME for panel in panels]
    fig = canvas.figure(title, height=sum(heights) + 0.3)
    for ax, panel in zip(fig.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0], panels, strict=True):
        labels = _labels(panel)
        target = panel[0].target
        if target is not None:
            ax.axvline(target.error, color=canvas.BLACK, linewidth=0.8, linestyle=":", zorder=1)
            ax.errorbar(
                target.error,
                0,
                xerr=target.deviation,
                fmt="D",
                color=canvas.BLACK,
                markersize=4,
                linewidth=1.2,
                capsize=3,
            )
        for place, row in enumerate(panel, start=len(labels) - len(panel)):
            ax.plot(
                row.errors,
                [place + _BELOW] * row.n,
                "o",
                color=_colour(row),
                alpha=0.35,
                markersize=4,
                markeredgewidth=0,
            )
            if row.interval:
                ax.plot(row.interval, [place, place], color=_colour(row), linewidth=2.2, solid_capstyle="butt")
            if row.mean is not None:
                ax.plot([row.mean], [place], "|", color=_colour(row), markersize=11, markeredgewidth=2.2)
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.set_title(_heading(panel))
        canvas.measure_axis(ax.xaxis, _measure(panel), log=False)
    judged_by = titles(map(_measure, panels))
    ax.set_xlabel(f"test {judged_by}: dots are seeds, bars 95 % intervals of the mean, diamonds published ± sd")
    return fig


def _page(title: str, panels: list[list[Row]]) -> Any:
    heights = [_ROW * len(_labels(panel)) + _FRAME for panel in panels]
    headings = [html.escape(_heading(panel), quote=False) for panel in panels]
    share = [height / sum(heights) for height in heights]
    fig = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=share,
        subplot_titles=headings,
        vertical_spacing=0.35 / (len(panels) + 0.6),
    )
    canvas.style_page(fig, title, height=_PIXELS * sum(heights) + 120, showlegend=False)
    for number, panel in enumerate(panels, start=1):
        labels = [html.escape(label, quote=False) for label in _labels(panel)]
        target, measure = panel[0].target, _measure(panel)
        add = partial(_add, fig, number, measure)
        if target is not None:
            spread = {"type": "data", "array": [measure.scale * (target.deviation or 0.0)], "thickness": 1.5}
            marker = {"symbol": "diamond", "size": 9, "color": canvas.BLACK}
            add([target.error], labels[:1], f"published {target}", marker=marker, error_x=spread)
        for label, row in zip(labels[-len(panel) :], panel, strict=True):
            line = {"color": _colour(row), "width": 4}
            if row.interval and row.mean is not None:
                ends = f"{measure.text(row.interval[0])} .. {measure.text(row.interval[1])}"
                text = f"{measure.text(row.mean)}, 95 % interval {ends}, n = {row.n}: {row.verdict_text}"
                add([*row.interval], [label] * 2, text, mode="lines", line=line)
                bar = {"symbol": "line-ns-open", "size": 16, "color": line["color"], "line": {"width": 3}}
                add([row.mean], [label], text, marker=bar)
            dots = {"size": 8, "color": _colour(row), "opacity": 0.4}
            add([*row.errors], [label] * row.n, "one seed", marker=dots)
        order = {"categoryorder": "array", "categoryarray": labels, "range": [len(labels) - 0.4, -0.6]}
        fig.update_yaxes(**order, row=number, col=1)
        suffix = " %" if measure.unit == "%" else ""
        fig.update_xaxes(ticksuffix=suffix, showgrid=True, range=_span(panel, measure.scale), row=number, col=1)
    fig.update_annotations(x=0, xanchor="left")
    return fig


def _span(panel: list[Row], scale: float) -> list[float]:
    """The errors, as they are shown, from which to which the panel reaches."""
    target = panel[0].target
    ends = [end for row in panel for end in (*row.errors, *(row.interval or ()))]
    ends += [target.error + sign * (target.deviation or 0.0) for sign in (-1, 1)] if target else []
    low, high = min(ends, default=0.0), max(ends, default=100 / scale)
    margin = 0.04 * (high - low) or 0.1 / scale
    return [scale * (low - margin), scale * (high + margin)]


def _add(
    fig: Any, panel: int, measure: Measure, errors: list[float], labels: list[str], text: str, **look: Any
) -> None:
    shown = f"%{{x:.{measure.digits}f}} {measure.unit}<br>{html.escape(text, quote=False)}<extra>%{{y}}</extra>"
    look = {"mode": "markers", **look}
    trace = {"x": [measure.scale * error for error in errors], "y": labels, "hovertemplate": shown, **look}
    fig.add_scatter(**trace, row=panel, col=1)
