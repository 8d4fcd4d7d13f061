"""Rung survival: how many trials trained how far, and what ended the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

from matplotlib.ticker import MaxNLocator

from ladder_search import wording
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.pictures.trials import Trials

_LABELLED = 0.06
"""Share of all trials from which on a rung has its number written at it; smaller drops would overlap."""


def rung_survival(title: str, trials: Trials) -> Picture:
    """Draw the number of trials that reached each epoch; the drops are rungs, a cross is a failed trial."""
    ends = [(wording.epochs_trained(record), record.state) for record in trials.of_search()]
    if not ends:
        return canvas.words(title, "No trial has ended yet.")
    last = max(epoch for epoch, _ in ends)
    if last == 0:
        return canvas.words(title, f"None of the {len(ends)} ended trials reached the end of its first epoch.")
    xs, ys = _steps([epoch for epoch, _ in ends])
    stopped = Counter(epoch for epoch, state in ends if state == "PRUNED")
    failed = sorted(epoch for epoch, state in ends if state == "FAIL")
    completed = sum(state == "COMPLETE" for _, state in ends)
    legend = {
        "line": f"trials that reached the epoch ({len(ends)} in all, {completed} complete)",
        "stopped": f"stopped at a rung ({sum(stopped.values())})",
        "failed": f"failed ({len(failed)})",
    }
    crosses = _crosses(failed, [epoch for epoch, _ in ends])
    dots = [(epoch, _reached_after(epoch, [e for e, _ in ends])) for epoch in sorted(stopped)]
    return Picture(
        title=title,
        png=_png(title, legend, xs, ys, dots, stopped, crosses),
        page=_page(title, legend, xs, ys, dots, stopped, crosses),
    )


def _steps(ends: list[int]) -> tuple[list[int], list[int]]:
    """Corners of the curve "trials whose last epoch is x or later", from epoch 0 to the last."""
    xs = sorted({0, *ends})
    return xs, [sum(end >= x for end in ends) for x in xs]


def _reached_after(epoch: int, ends: list[int]) -> int:
    return sum(end > epoch for end in ends)


def _crosses(failed: list[int], ends: list[int]) -> list[tuple[int, int]]:
    """One cross for each failed trial, in the drop at its last epoch, from the top down."""
    placed: Counter[int] = Counter()
    found = []
    for epoch in failed:
        found.append((epoch, sum(end >= epoch for end in ends) - placed[epoch]))
        placed[epoch] += 1
    return found


def _png(
    title: str,
    legend: dict[str, str],
    xs: list[int],
    ys: list[int],
    dots: list[tuple[int, int]],
    stopped: Counter[int],
    crosses: list[tuple[int, int]],
) -> Any:
    fig = canvas.figure(title, height=3.6)
    ax = fig.add_subplot()
    ax.fill_between(xs, ys, step="pre", color=canvas.SKY, alpha=0.25, linewidth=0)
    ax.step(xs, ys, where="pre", color=canvas.BLUE, linewidth=1.6, label=legend["line"])
    if dots:
        ax.plot(*zip(*dots, strict=True), "v", color="#595959", markersize=5, label=legend["stopped"], clip_on=False)
    if crosses:
        style: dict[str, Any] = {"color": canvas.VERMILION, "markersize": 6, "markeredgewidth": 1.6, "linestyle": ""}
        ax.plot(*zip(*crosses, strict=True), marker="x", label=legend["failed"], clip_on=False, zorder=4, **style)
    for epoch, height in dots:
        if stopped[epoch] >= _LABELLED * ys[0]:
            side = ("right", -7) if epoch > 0.8 * xs[-1] else ("left", 7)
            ax.annotate(
                f"{stopped[epoch]} stopped after {epoch}",
                (epoch, height),
                xytext=(side[1], 4),
                textcoords="offset points",
                fontsize=7,
                ha=side[0],
                color="#404040",
            )
    ax.set_xlim(0, xs[-1] * 1.02)
    ax.set_ylim(0, ys[0] * 1.08)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("trials")
    canvas.legend_below(fig, ax)
    return fig


def _page(
    title: str,
    legend: dict[str, str],
    xs: list[int],
    ys: list[int],
    dots: list[tuple[int, int]],
    stopped: Counter[int],
    crosses: list[tuple[int, int]],
) -> Any:
    fig = canvas.page(title, height=520, legend={"orientation": "h", "y": -0.18})
    line = {"color": canvas.BLUE, "width": 2, "shape": "vh"}
    fig.add_scatter(
        x=xs, y=ys, mode="lines", line=line, fill="tozeroy", fillcolor="rgba(86, 180, 233, 0.25)", name=legend["line"]
    )
    if dots:
        fig.add_scatter(
            x=[x for x, _ in dots],
            y=[y for _, y in dots],
            mode="markers",
            marker={"symbol": "triangle-down", "size": 9, "color": "#595959"},
            text=[f"{stopped[epoch]} stopped after epoch {epoch}" for epoch, _ in dots],
            hoverinfo="text",
            name=legend["stopped"],
        )
    if crosses:
        fig.add_scatter(
            x=[x for x, _ in crosses],
            y=[y for _, y in crosses],
            mode="markers",
            marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": canvas.VERMILION}},
            text=[f"failed after epoch {epoch}" for epoch, _ in crosses],
            hoverinfo="text",
            cliponaxis=False,
            name=legend["failed"],
        )
    fig.update_xaxes(title="epoch", rangemode="tozero")
    fig.update_yaxes(title="trials", rangemode="tozero")
    return fig
