"""Learning curves: the validation error of every trial while it trained, beside target, paper and baseline."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes

from ladder_search import metrics
from ladder_search.metrics import ERROR, MEASURES
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Trials
from ladder_search.record.trial import TrialRecord
from ladder_search.studies.study import Study, Target
from ladder_search.wording import BASELINE, PUBLISHED, finite

_FLOOR = 0.01
"""Least value that is drawn, as it is shown: 0.01 %."""
_DASHES = {"-": "solid", "--": "dash", ":": "dot"}


@dataclass(kw_only=True, slots=True)
class _Group:
    """Curves that look alike and share one entry of the legend."""

    label: str
    colour: str
    width: float
    dash: str = "-"
    alpha: float = 1.0
    crossed: bool = False
    """Whether the end of each curve is crossed out."""
    curves: list[tuple[str, list[float], list[float]]] = field(default_factory=list)
    """(trial, x, errors) of each curve."""


def learning_curves(title: str, trials: Trials) -> Picture:
    """Draw the validation error against the epoch (or the update, where epochs were not reported)."""
    axis, label = _axis(trials.records)
    study, measure = trials.study, trials.study.measure
    counted = measure == ERROR and study.data.validation
    floor = 0.5 / study.data.validation if counted else _FLOOR / measure.scale
    groups = [group for group in _groups(trials, axis) if group.curves]
    if not groups:
        return canvas.words(title, f"No trial has reported a validation {measure.title} yet.")
    zeros = any(error < floor for group in groups for _, _, errors in group.curves for error in errors)
    ylabel = f"validation {measure.label}{f' (none is drawn at {measure.text(floor)})' if zeros else ''}"
    return Picture(
        title=title,
        png=_png(title, groups, study, floor, label, ylabel),
        page=_page(title, groups, study, floor, label, ylabel),
    )


def _axis(records: Iterable[TrialRecord]) -> tuple[str | None, str]:
    rows = [row for record in records for row in record.epochs]
    for name, label in ((metrics.EPOCH, "epoch"), (metrics.STEP, "update")):
        if rows and all(finite(row.get(name)) for row in rows):
            return name, label
    return None, "report"


def _groups(trials: Trials, axis: str | None) -> list[_Group]:
    """From the back of the picture to its front."""
    best = trials.best_found
    found: dict[str, _Group] = {
        "PRUNED": _Group(label="stopped early", colour=canvas.GREY, width=0.6, alpha=0.8),
        "FAIL": _Group(label="failed", colour=canvas.PURPLE, width=0.9, crossed=True),
        "COMPLETE": _Group(label="complete", colour=canvas.SKY, width=0.9, alpha=0.9),
    }
    front: list[_Group] = []
    for record in trials.records:
        xs, errors = _curve(record, axis)
        if not xs:
            continue
        group = found[record.state]
        if record.is_reference or record is best:
            name = record.name or "best found"
            group = _reference(name, f"{name} ({record.key}): {trials.study.measure.text(record.validation_error)}")
            group.crossed = record.state == "FAIL"
            front.append(group)
        group.curves.append((record.key, xs, errors))
    for group in found.values():
        group.label = f"{group.label} ({len(group.curves)})"
    return [*found.values(), *front]


def _reference(name: str, label: str) -> _Group:
    if name == BASELINE:
        return _Group(label=label, colour=canvas.BLACK, width=1.6, dash="--")
    if name == PUBLISHED:
        return _Group(label=label, colour=canvas.VERMILION, width=2.0)
    return _Group(label=label, colour=canvas.BLUE if name == "best found" else canvas.ORANGE, width=2.0)


def _curve(record: TrialRecord, axis: str | None) -> tuple[list[float], list[float]]:
    points = [
        (float(row[axis]) if axis else float(place), float(row[metrics.VALIDATION_ERROR]))
        for place, row in enumerate(record.epochs, 1)
        if finite(row.get(metrics.VALIDATION_ERROR))
    ]
    return [x for x, _ in points], [error for _, error in points]


def _png(title: str, groups: list[_Group], study: Study, floor: float, label: str, ylabel: str) -> Any:
    fig = canvas.figure(title)
    ax = fig.add_subplot()
    ax.set_yscale("log")
    if study.target is not None:
        _target(ax, study.target, floor)
    for order, group in enumerate(groups, 2):
        thin = canvas.thinned(len(group.curves))
        style: dict[str, Any] = {"color": group.colour, "linestyle": group.dash, "linewidth": thin * group.width}
        style |= {"alpha": thin * group.alpha, "zorder": order, "solid_capstyle": "round"}
        for _, xs, errors in group.curves:
            ys = [max(error, floor) for error in errors]
            ax.plot(xs, ys, marker="o" if len(xs) == 1 else "", markersize=3, **style)
            if group.crossed:
                ax.plot(xs[-1], ys[-1], marker="x", markersize=5, color=group.colour, zorder=order, linestyle="")
        style |= {"alpha": group.alpha, "linewidth": group.width}
        ax.plot([], [], marker="x" if group.crossed else "", markersize=5, label=group.label, **style)  # the legend's
    canvas.measure_axis(ax.yaxis, study.measure, log=True)
    ax.set_xlabel(label)
    ax.set_ylabel(ylabel)
    ax.set_xlim(left=0)
    canvas.legend_below(fig, ax)
    return fig


def _target(ax: Axes, target: Target, floor: float) -> None:
    level = max(target.error, floor)
    ax.axhline(level, color=canvas.GREEN, linewidth=1.2, zorder=1.5)
    if target.spread is not None:
        low, high = max(target.error - target.spread, floor), target.error + target.spread
        ax.axhspan(low, high, color=canvas.GREEN, alpha=0.15, linewidth=0, zorder=1)
    ax.annotate(
        _target_text(target),
        (1.01, level),
        xycoords=("axes fraction", "data"),
        color=canvas.GREEN,
        fontsize=8,
        va="center",
    )


def _target_text(target: Target) -> str:
    return f"target {target}\ntest {MEASURES[target.measure].title}".replace(" (", "\n(")


def _page(title: str, groups: list[_Group], study: Study, floor: float, label: str, ylabel: str) -> Any:
    measure, target = study.measure, study.target
    # plotly writes fractions as percentages; of other measures, which may all lie between 8 and 9, it gets what is
    # shown and chooses the ticks.
    scale, ticks = measure.scale, {"tickformat": ".4~g"}
    if measure.unit == "%":
        scale, ticks = 1.0, {"tickformat": ".3~%", "dtick": "D2"}
    fig = canvas.page(title, height=620, legend={"orientation": "h", "y": -0.15}, hovermode="closest")
    for group in groups:
        xs: list[float | None] = []
        ys: list[float | None] = []
        texts: list[str] = []
        for key, x, errors in group.curves:  # one trace for each group, with gaps between its curves
            xs += [*x, None]
            ys += [*(round(scale * max(error, floor), 6) for error in errors), None]
            shown = map(measure.text, errors)
            texts += [*(f"{key}, {label} {at:g}: {text}" for at, text in zip(x, shown, strict=True)), ""]
        sizes = [6 if len(x) == 1 else 0 for _, x, _ in group.curves for _ in [*x, None]]
        fig.add_scatter(
            x=xs,
            y=ys,
            text=texts,
            hoverinfo="text",
            mode="lines+markers" if any(sizes) else "lines",
            marker={"size": sizes},
            name=html.escape(group.label, quote=False),
            opacity=group.alpha,
            line={"color": group.colour, "width": 1.3 * group.width, "dash": _DASHES[group.dash]},
        )
        if group.crossed:
            ends = [(x[-1], scale * max(errors[-1], floor)) for _, x, errors in group.curves]
            cross = {"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": group.colour}}
            fig.add_scatter(
                x=[x for x, _ in ends],
                y=[y for _, y in ends],
                mode="markers",
                marker=cross,
                showlegend=False,
                hoverinfo="skip",
            )
    if target is not None:
        level = scale * max(target.error, floor)
        if target.spread is not None:
            low = scale * max(target.error - target.spread, floor)
            high = scale * (target.error + target.spread)
            fig.add_hrect(y0=low, y1=high, fillcolor=canvas.GREEN, opacity=0.15, line_width=0, layer="below")
        fig.add_hline(y=level, line={"color": canvas.GREEN, "width": 2}, opacity=1.0)
        fig.add_annotation(
            text=html.escape(_target_text(target), quote=False).replace("\n", "<br>"),
            x=1.01,
            y=math.log10(level),
            xref="paper",
            xanchor="left",
            align="left",
            showarrow=False,
            font={"color": canvas.GREEN},
        )
        fig.update_layout(margin={"r": 150})
    fig.update_xaxes(title=label, rangemode="tozero")
    fig.update_yaxes(title=ylabel, type="log", **ticks)
    return fig
