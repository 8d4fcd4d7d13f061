"""Shares of the columns of a progressive network in each layer: perturbation and Fisher sensitivity side by side."""

from __future__ import annotations

import html
from typing import Any

from matplotlib.axes import Axes
from plotly.subplots import make_subplots

from ladder_search.analysis.columns import LayerOfColumn, Sensitivity
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.wording import percent, value

_SOURCES = (canvas.BLUE, canvas.SKY, canvas.GREEN, canvas.PURPLE, canvas.ORANGE)
_TARGET = canvas.VERMILION
_PANELS = ("perturbation sensitivity (APS)", "Fisher sensitivity (AFS)")
_WRITTEN = 0.06
"""Share from which on a bar has its number written into it."""
_WIDTH = 0.72


def column_shares(title: str, found: Sensitivity) -> Picture:
    """Draw a stack of bars for every layer: whose activations the answers depend on."""
    if len(found.columns) < 2:
        return canvas.words(title, "The network has one column: there is nothing to compare it with.")
    if not any(share is not None for one in found.layers for share in (one.aps, one.afs)):
        return canvas.words(title, "No column of any hidden layer has a say in the answers.")
    return Picture(title=title, png=_png(title, found), page=_page(title, found))


def _colours(found: Sensitivity) -> dict[str, str]:
    sources = {name: _SOURCES[place % len(_SOURCES)] for place, name in enumerate(found.columns[:-1])}
    return {**sources, found.columns[-1]: _TARGET}


def _share(one: LayerOfColumn, panel: int) -> float | None:
    return one.afs if panel else one.aps


def _numbers(found: Sensitivity) -> list[int]:
    return sorted({one.layer for one in found.layers})


def _png(title: str, found: Sensitivity) -> Any:
    fig = canvas.figure(title, height=3.4)
    axes = fig.subplots(1, len(_PANELS), sharey=True)
    for panel, ax in enumerate(axes):
        _stack(ax, panel, found)
        ax.set_title(_PANELS[panel])
        ax.set_xlabel("hidden layer")
    axes[0].set_ylabel("share of the column")
    canvas.percent_axis(axes[0].yaxis)
    canvas.legend_below(fig, axes[0], columns=min(4, len(found.columns)))
    return fig


def _stack(ax: Axes, panel: int, found: Sensitivity) -> None:
    numbers = _numbers(found)
    for name, colour in _colours(found).items():
        own = [one for one in found.layers if one.column == name and _share(one, panel) is not None]
        shares = [_share(one, panel) or 0.0 for one in own]
        below = [_below(one, panel, found) for one in own]
        ax.bar([one.layer for one in own], shares, _WIDTH, bottom=below, color=colour, label=name, linewidth=0)
        for one, share, foot in zip(own, shares, below, strict=True):
            if share >= _WRITTEN:
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "white"}
                ax.text(one.layer, foot + share / 2, f"{100 * share:.0f}", **style)
    for number in numbers:
        if all(_share(one, panel) is None for one in found.layer(number)):
            ax.text(number, 0.5, "nothing\nto share", ha="center", va="center", fontsize=7, color="#737373")
    ax.set_xticks(numbers)
    ax.set_xlim(numbers[0] - 0.6, numbers[-1] + 0.6)
    ax.set_ylim(0, 1)
    ax.grid(False, axis="x")


def _below(one: LayerOfColumn, panel: int, found: Sensitivity) -> float:
    """The sum of the shares that stand under this one: those of the columns before it."""
    order = found.columns.index(one.column)
    return sum(
        _share(other, panel) or 0.0 for other in found.layer(one.layer) if found.columns.index(other.column) < order
    )


def _page(title: str, found: Sensitivity) -> Any:
    fig = make_subplots(rows=1, cols=len(_PANELS), subplot_titles=_PANELS, shared_yaxes=True)
    canvas.style_page(fig, title, barmode="stack", height=460, legend={"orientation": "h", "y": -0.2})
    for name, colour in _colours(found).items():
        own = [one for one in found.layers if one.column == name]
        for panel in range(len(_PANELS)):
            fig.add_bar(
                x=[one.layer for one in own],
                y=[_share(one, panel) for one in own],
                name=html.escape(name, quote=False),
                marker={"color": colour},
                legendgroup=name,
                showlegend=panel == 0,
                hovertext=[_told(one, found) for one in own],
                hoverinfo="text",
                row=1,
                col=panel + 1,
            )
    fig.update_xaxes(title="hidden layer", dtick=1)
    fig.update_yaxes(tickformat=".0%", range=[0, 1])
    fig.update_yaxes(title="share of the column", row=1, col=1)
    return fig


def _told(one: LayerOfColumn, found: Sensitivity) -> str:
    sigma = f"above {value(found.cap)}: insensitive" if one.sigma is None else value(one.sigma)
    lines = [
        f"{one.column}, layer {one.layer}, {one.units} units",
        f"critical sigma {sigma}",
        f"APS {percent(one.aps, 1)}, AFS {percent(one.afs, 1)}",
    ]
    return "<br>".join(html.escape(line, quote=False) for line in lines)
