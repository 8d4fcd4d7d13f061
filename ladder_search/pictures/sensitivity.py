"""Shares of the columns of a progressive network in each layer: perturbation and Fisher sensitivity."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from ladder_search.analysis.columns import LayerOfColumn, Sensitivity
from ladder_search.metrics import ERROR
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.wording import percent, value

_SOURCES = (canvas.BLUE, canvas.SKY, canvas.GREEN, canvas.PURPLE, canvas.ORANGE)
_TARGET = canvas.VERMILION
_PANELS = ("perturbation sensitivity (APS)", "Fisher sensitivity (AFS)")
_WRITTEN = 0.06
"""Minimum share of a bar with a number in it."""
_WIDTH = 0.72


def column_shares(title: str, sensitivity: Sensitivity) -> Picture:
    """Draw a stack of bars for every layer, the shares of the columns."""
    if len(sensitivity.columns) < 2:
        return canvas.words(title, "The network has one column: there is nothing to compare it with.")
    if not any(share is not None for one in sensitivity.layers for share in (one.aps, one.afs)):
        return canvas.words(title, "No column of any hidden layer has a say in the answers.")
    picture = Picture(title, height=3.4)
    axes = picture.figure.subplots(1, len(_PANELS), sharey=True)
    for panel, ax in enumerate(axes):
        _stack(picture, ax, panel, sensitivity)
        ax.set_title(_PANELS[panel])
        ax.set_xlabel("hidden layer")
    axes[0].set_ylabel("share of the column")
    canvas.measure_axis(axes[0].yaxis, ERROR)
    picture.legend_below(axes[0], columns=min(4, len(sensitivity.columns)))
    return picture


def _stack(picture: Picture, ax: Axes, panel: int, sensitivity: Sensitivity) -> None:
    sources = {name: _SOURCES[place % len(_SOURCES)] for place, name in enumerate(sensitivity.columns[:-1])}
    numbers = sorted({one.layer for one in sensitivity.layers})
    height = dict.fromkeys(numbers, 0.0)
    for name, colour in {**sources, sensitivity.columns[-1]: _TARGET}.items():
        bars = {one.layer: one for one in sensitivity.layers if one.column == name and _share(one, panel) is not None}
        shares = {number: _share(one, panel) or 0.0 for number, one in bars.items()}
        below = {number: height[number] for number in bars}
        ax.bar([*bars], [*shares.values()], _WIDTH, bottom=[*below.values()], color=colour, label=name, linewidth=0)
        for number, share in shares.items():
            middle = below[number] + share / 2
            if share >= _WRITTEN:
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "white"}
                ax.text(number, middle, f"{100 * share:.0f}", **style)
            picture.hover(ax, [number], [middle], [_text(bars[number], sensitivity)], name)
            height[number] += share
    for number in numbers:
        if all(_share(one, panel) is None for one in sensitivity.layer(number)):
            ax.text(number, 0.5, "nothing\nto share", ha="center", va="center", fontsize=7, color="#737373")
    ax.set_xticks(numbers)
    ax.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    ax.set_ylim(0, 1)
    ax.grid(False, axis="x")


def _share(one: LayerOfColumn, panel: int) -> float | None:
    return one.afs if panel else one.aps


def _text(one: LayerOfColumn, sensitivity: Sensitivity) -> str:
    sigma = f"above {value(sensitivity.cap)}: insensitive" if one.sigma is None else value(one.sigma)
    return (
        f"{one.column}, layer {one.layer}, {one.units} units\ncritical sigma {sigma}\n"
        f"APS {percent(one.aps, 1)}, AFS {percent(one.afs, 1)}"
    )
