"""Rung survival: the number of trials that reached each epoch, and the ends of the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

from matplotlib.ticker import MaxNLocator

from ladder_search import wording
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Trials

_LABELLED = 0.06
"""Minimum share of all trials for a number at a rung; numbers at smaller drops would overlap."""


def rung_survival(title: str, trials: Trials) -> Picture:
    """Draw the number of trials that reached each epoch; drops are rungs, a cross is a failed trial."""
    ends = [(wording.epochs_trained(record), record.state) for record in trials.of_search()]
    if not ends:
        return canvas.words(title, "No trial has ended yet.")
    epochs = [epoch for epoch, _ in ends]
    if max(epochs) == 0:
        return canvas.words(title, f"None of the {len(ends)} ended trials reached the end of its first epoch.")
    xs = sorted({0, *epochs})
    ys = [sum(end >= x for end in epochs) for x in xs]
    stopped = Counter(sorted(epoch for epoch, state in ends if state == "PRUNED"))
    failed = sorted(epoch for epoch, state in ends if state == "FAIL")
    completed = sum(state == "COMPLETE" for _, state in ends)
    picture = Picture(title, height=3.6)
    ax = picture.figure.add_subplot()
    ax.fill_between(xs, ys, step="pre", color=canvas.SKY, alpha=0.25, linewidth=0)
    label = f"trials that reached the epoch ({len(ends)} in all, {completed} complete)"
    ax.step(xs, ys, where="pre", color=canvas.BLUE, linewidth=1.6, label=label)
    picture.hover(ax, xs, ys, [f"{y} trials reached epoch {x}" for x, y in zip(xs, ys, strict=True)], label)
    if stopped:
        dots = [sum(end > epoch for end in epochs) for epoch in stopped]
        label = f"stopped at a rung ({sum(stopped.values())})"
        ax.plot([*stopped], dots, "v", color="#595959", markersize=5, label=label, clip_on=False)
        picture.hover(ax, stopped, dots, [f"{n} stopped after epoch {epoch}" for epoch, n in stopped.items()], label)
        for (epoch, number), height in zip(stopped.items(), dots, strict=True):
            if number >= _LABELLED * ys[0]:
                side, shift = ("right", -7) if epoch > 0.8 * xs[-1] else ("left", 7)
                place: dict[str, Any] = {"xytext": (shift, 4), "textcoords": "offset points", "ha": side}
                text = f"{number} stopped after {epoch}"
                ax.annotate(text, (epoch, height), fontsize=7, color="#404040", **place)
    if failed:
        crosses = _crosses(failed, epochs)
        label = f"failed ({len(failed)})"
        style: dict[str, Any] = {"color": canvas.VERMILION, "markersize": 6, "markeredgewidth": 1.6, "linestyle": ""}
        ax.plot(failed, crosses, marker="x", label=label, clip_on=False, zorder=4, **style)
        picture.hover(ax, failed, crosses, [f"failed after epoch {epoch}" for epoch in failed], label)
    ax.set_xlim(0, xs[-1] * 1.02)
    ax.set_ylim(0, ys[0] * 1.08)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("trials")
    picture.legend_below(ax)
    return picture


def _crosses(failed: list[int], ends: list[int]) -> list[int]:
    """Return the height of each failed trial's cross, within the drop at its last epoch, from the top down."""
    placed: Counter[int] = Counter()
    heights = []
    for epoch in failed:
        heights.append(sum(end >= epoch for end in ends) - placed[epoch])
        placed[epoch] += 1
    return heights
