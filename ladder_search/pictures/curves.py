"""Learning curves: the validation error of every trial during training, with target, paper and baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from ladder_search import metrics
from ladder_search.metrics import ERROR, MEASURES
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Trials
from ladder_search.record.trial import TrialRecord
from ladder_search.studies.study import Target
from ladder_search.wording import BASELINE, OWN, finite

_FLOOR = 0.01
"""Smallest drawn value, in displayed units: 0.01 %."""


@dataclass(kw_only=True, slots=True)
class _Group:
    """Curves with a common style and entry of the legend."""

    label: str
    colour: str
    width: float
    dash: str = "-"
    alpha: float = 1.0
    crossed: bool = False
    curves: list[tuple[str, list[float], list[float]]] = field(default_factory=list)
    """Tuples (trial, x, errors), one for each curve."""
    bands: list[tuple[list[float], list[float], list[float]]] = field(default_factory=list)
    """Tuples (x, lowest, highest): the range over label draws of a trial with several."""


def learning_curves(title: str, trials: Trials) -> Picture:
    """Draw the validation error against the epoch (or against the update if epochs were not reported).

    The axis of errors is logarithmic, that of a measure that rises is linear. A curve is the mean over the label draws
    that a trial was trained on; the range of the draws is shaded for the references and the best trial.
    """
    axis, label = _axis(trials.records)
    study, measure = trials.study, trials.study.measure
    counted = measure == ERROR and study.data.validation >= 1
    floor = 0.5 / study.data.validation if counted else _FLOOR / measure.scale
    if measure.rises:
        floor = -math.inf  # values are on a linear axis
    groups = [group for group in _groups(trials, axis) if group.curves]
    if not groups:
        return canvas.words(title, f"No trial has reported a validation {measure.title} yet.")
    picture = Picture(title)
    ax = picture.figure.add_subplot()
    ax.set_yscale("linear" if measure.rises else "log")
    if study.target is not None:
        _target(ax, study.target, floor)
    for order, group in enumerate(groups, 2):
        thin = canvas.thinned(len(group.curves))
        style: dict[str, Any] = {"color": group.colour, "linestyle": group.dash, "zorder": order, "markersize": 5}
        style |= {"alpha": group.alpha, "linewidth": group.width, "solid_capstyle": "round"}
        ax.plot([], [], marker="x" if group.crossed else "", label=group.label, **style)  # for the legend
        style |= {"alpha": thin * group.alpha, "linewidth": thin * group.width, "label": f"_{group.label}"}
        for xs, lows, highs in group.bands:
            low, high = ([max(value, floor) for value in values] for values in (lows, highs))
            ax.fill_between(xs, low, high, color=group.colour, alpha=0.15 * group.alpha, linewidth=0, zorder=order)
        for key, xs, errors in group.curves:
            ys = [max(error, floor) for error in errors]
            ax.plot(xs, ys, marker="o" if len(xs) == 1 else "", **style | {"markersize": 3})
            if group.crossed:
                ax.plot(xs[-1], ys[-1], marker="x", **style | {"linestyle": "", "alpha": 1.0})
            texts = [f"{key}, {label} {x:g}: {measure.text(error)}" for x, error in zip(xs, errors, strict=True)]
            picture.hover(ax, xs, ys, texts, group.label)
    canvas.measure_axis(ax.yaxis, measure, log=not measure.rises)
    ax.set_xlabel(label)
    zeros = any(error < floor for group in groups for _, _, errors in group.curves for error in errors)
    ax.set_ylabel(f"validation {measure.label}{f' (zeros are drawn at {measure.text(floor)})' if zeros else ''}")
    ax.set_xlim(left=0)
    picture.legend_below(ax)
    return picture


def _axis(records: Iterable[TrialRecord]) -> tuple[str | None, str]:
    rows = [row for record in records for row in record.epochs]
    for name, label in ((metrics.EPOCH, "epoch"), (metrics.STEP, "update")):
        if rows and all(finite(row.get(name)) for row in rows):
            return name, label
    return None, "report"


def _groups(trials: Trials, axis: str | None) -> list[_Group]:
    """Return the groups from the back of the picture to its front."""
    best = trials.best_found
    groups: dict[str, _Group] = {
        "PRUNED": _Group(label="stopped early", colour=canvas.GREY, width=0.6, alpha=0.8),
        "FAIL": _Group(label="failed", colour=canvas.PURPLE, width=0.9, crossed=True),
        "COMPLETE": _Group(label="complete", colour=canvas.SKY, width=0.9, alpha=0.9),
    }
    front: list[_Group] = []
    for record in trials.records:
        xs, errors = _curve(record, axis)
        if not xs:
            continue
        group = groups[record.state]
        if record.is_reference or record is best:
            name = record.name or "best found"
            group = _reference(name, f"{name} ({record.key}): {trials.study.measure.text(record.validation_error)}")
            group.crossed = record.state == "FAIL"
            front.append(group)
        group.curves.append((record.key, xs, errors))
        if axis == metrics.EPOCH and record.draws > 1 and (record.is_reference or record is best):
            group.bands.append(_band(record))
    for group in groups.values():
        group.label = f"{group.label} ({len(group.curves)})"
    return [*groups.values(), *front]


def _reference(name: str, label: str) -> _Group:
    if name == BASELINE:
        return _Group(label=label, colour=canvas.BLACK, width=1.6, dash="--")
    if name in OWN:
        return _Group(label=label, colour=canvas.VERMILION, width=2.0)
    return _Group(label=label, colour=canvas.BLUE if name == "best found" else canvas.ORANGE, width=2.0)


def _by_epoch(record: TrialRecord) -> dict[int, list[float]]:
    """Return epoch of the schedule -> error of each label draw, for draws that were trained in turn."""
    epochs: dict[int, list[float]] = {}
    length = record.settings["training"]["epochs"]
    for row in record.epochs:
        if finite(row.get(metrics.DRAW_ERROR)):
            epochs.setdefault(int(row[metrics.EPOCH] - row[metrics.DRAW] * length), []).append(row[metrics.DRAW_ERROR])
    return epochs


def _band(record: TrialRecord) -> tuple[list[float], list[float], list[float]]:
    errors = sorted(_by_epoch(record).items())
    return [float(x) for x, _ in errors], [min(own) for _, own in errors], [max(own) for _, own in errors]


def _curve(record: TrialRecord, axis: str | None) -> tuple[list[float], list[float]]:
    if axis == metrics.EPOCH and record.begun_draws > 1:
        means = sorted((epoch, fmean(errors)) for epoch, errors in _by_epoch(record).items())
        return [float(x) for x, _ in means], [error for _, error in means]
    points = [
        (float(row[axis]) if axis else float(place), float(row[metrics.VALIDATION_ERROR]))
        for place, row in enumerate(record.epochs, 1)
        if finite(row.get(metrics.VALIDATION_ERROR))
    ]
    return [x for x, _ in points], [error for _, error in points]


def _target(ax: Axes, target: Target, floor: float) -> None:
    level = max(target.error, floor)
    ax.axhline(level, color=canvas.GREEN, linewidth=1.2, zorder=1.5)
    if target.spread is not None:
        low, high = max(target.error - target.spread, floor), target.error + target.spread
        ax.axhspan(low, high, color=canvas.GREEN, alpha=0.15, linewidth=0, zorder=1)
    text = f"target {target}\ntest {MEASURES[target.measure].title}".replace(" (", "\n(")
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "va": "center"}
    ax.annotate(text, (1.01, level), color=canvas.GREEN, **where)
