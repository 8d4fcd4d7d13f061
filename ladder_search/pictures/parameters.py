"""Importance of the parameters, and the error against each of them, for COMPLETE trials only, because errors of stopped
trials have other budgets."""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna
from matplotlib.axes import Axes

from ladder_search import wording
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Trials
from ladder_search.wording import OWN

LEAST_TRIALS = 8
"""Minimum number of COMPLETE trials for importances, which are noise below it."""
_TOP_TRIALS = 5
"""Minimum size of the evaluator's best group."""


def importance(title: str, trials: Trials) -> Picture:
    """Draw the importance of each parameter for being among the best trials (PED-ANOVA); importances sum to 1."""
    complete = trials.complete
    names = [name for name in trials.log if len({str(p.params[name]) for p in complete if name in p.params}) > 1]
    if len(complete) < LEAST_TRIALS:
        needs = f"Parameter importance needs {LEAST_TRIALS} complete trials, this search has {len(complete)}."
        return canvas.words(title, needs)
    if len(names) < 2:
        what = f"only {names[0]} was varied" if names else "no parameter was varied"
        return canvas.words(title, f"Parameter importance compares parameters, and {what} among the complete trials.")
    errors = sorted((point.error or 0.0 for point in complete), key=trials.study.measure.loss)
    share = min(0.5, max(0.1, _TOP_TRIALS / len(complete)))
    if errors[-1] == errors[math.ceil(share * len(errors)) - 1]:
        reached = trials.study.measure.text(errors[-1])
        return canvas.words(title, f"All {len(complete)} complete trials reached {reached}: nothing to explain.")
    # Imported here, because it imports scikit-learn for another evaluator, a quarter of a search's start-up time.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    full = [name for name, short in trials.names.items() if short in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        raw = get_param_importances(trials.optuna_study, evaluator=evaluator, params=full)
    shares = {trials.names[name]: value for name, value in raw.items()}
    picture = Picture(title, height=max(2.2, 1.3 + 0.36 * len(shares)))
    ax = picture.figure.add_subplot()
    bars = ax.barh([canvas.wrapped(name, 28) for name in shares], list(shares.values()), color=canvas.BLUE, height=0.7)
    texts = [f"{value:.2f}" if value >= 0.01 else "<0.01" for value in shares.values()]
    ax.bar_label(bars, labels=texts, padding=3, fontsize=8)
    picture.hover(ax, shares.values(), range(len(shares)), [f"{name}: {value:.4f}" for name, value in shares.items()])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, 1.12 * max(shares.values()))
    ax.set_xlabel(
        f"importance for reaching the best {100 * share:.0f} % of {len(complete)} complete trials (PED-ANOVA)"
    )
    return picture


def slices(title: str, trials: Trials) -> Picture:
    """Draw the error of complete trials against each parameter; ticks at the bottom are trials without an error."""
    names = trials.searched
    if not names:
        return canvas.words(title, trials.why_empty())
    columns = min(4, len(names)) if len(names) != 6 else 3
    rows = math.ceil(len(names) / columns)
    picture = Picture(title, height=1.0 + 1.9 * rows)
    axes = picture.figure.subplots(rows, columns, sharey=True, squeeze=False)
    errors = [point.error for point in trials.complete if point.error is not None]
    measure = trials.study.measure
    log = not measure.rises and min(errors) > 0 and max(errors) > 4 * min(errors)
    for place, ax in enumerate(axes.flat):
        if place >= len(names):
            ax.set_axis_off()
            continue
        if log:
            ax.set_yscale("log")
        canvas.measure_axis(ax.yaxis, measure, log=log)
        _slice(picture, ax, names[place], trials, letters=48 // columns)
        ax.set_xlabel(canvas.wrapped(names[place], 96 // columns - 4))
    picture.figure.supylabel(f"validation {measure.label}", fontsize=9)
    picture.legend_below(axes[0, 0], columns=4)
    return picture


def _slice(picture: Picture, ax: Axes, name: str, trials: Trials, *, letters: int) -> None:
    if name in trials.choices:
        labels = [canvas.wrapped(choice, 10) for choice in trials.choices[name]]
        ax.set_xticks(range(len(labels)), labels, rotation=45 if len(labels) > 3 else 0, fontsize=7)
        ax.set_xlim(-0.5, len(labels) - 0.5)
    having = [point for point in trials.points if name in point.params]
    plain = [p for p in having if p.error is not None and p.key not in trials.standouts]
    emphasised = [p for p in having if p.error is not None and p.key in trials.standouts]
    # Trials with the same choice are spread side by side: steps of the golden section fill a band evenly.
    spread = 0.4 if name in trials.choices else 0.0
    xs = [trials.position(name, p) + spread * (0.618 * p.number % 1.0 - 0.5) for p in plain]
    dots: dict[str, Any] = {"linestyle": "", "markeredgecolor": "white", "markeredgewidth": 0.4}
    ax.plot(xs, [p.error or 0.0 for p in plain], "o", ms=4, color=canvas.SKY, label="complete", **dots)
    for p in emphasised:
        why = trials.standouts[p.key]
        marker, size, colour = ("D", 5, canvas.VERMILION) if why in OWN else ("*", 9, canvas.BLUE)
        ax.plot(
            [trials.position(name, p)], [p.error or 0.0], marker, ms=size, color=colour, label=why, zorder=3, **dots
        )
    for x, p in (*zip(xs, plain, strict=True), *((trials.position(name, p), p) for p in emphasised)):
        text = f"{trials.described(p)}\n{name} = {wording.value(p.params[name])}"
        picture.hover(ax, [x], [p.error or 0.0], [text], trials.standouts.get(p.key, "complete"))
    without = [trials.position(name, p) for p in having if p.error is None]
    foot: dict[str, Any] = {"color": "#737373", "linestyle": "", "transform": ax.get_xaxis_transform()}
    if without:
        ax.plot(without, [0.025] * len(without), "|", ms=5, label="stopped or failed", clip_on=False, **foot)
    ax.margins(y=0.12)
    if trials.log[name]:
        values = [trials.position(name, point) for point in having]
        ticks = canvas.log_ticks(min(values), max(values), most=5, letters=letters)
        ax.set_xscale("log")
        ax.set_xticks(ticks, [wording.value(tick) for tick in ticks])
        ax.minorticks_off()
