"""A piece of music as a piano roll: what is played, what a network expected of each step, and what the step cost it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from ladder_search.analysis.music import ShownPiece, note_name
from ladder_search.data.music import KEYS, LOWEST_NOTE
from ladder_search.metrics import NLL
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.wording import percent

PANELS = ("played", "expected, given the steps before; dots: played", "cost of each step")
_AROUND = 2
"""Keys that are drawn below and above those that are played or likely."""
_LIKELY = 0.1
_OCTAVE = 12
_BLUES = ["#FFFFFF", "#C6DBEF", "#6BAED6", canvas.BLUE, "#00304C"]
"""From never to always."""


def piano_roll(title: str, piece: ShownPiece) -> Picture:
    """Draw three panels on one axis of time: notes, their probabilities, nats."""
    whole = len(piece.nats) == piece.length
    steps = f"{piece.length} steps" if whole else f"steps 1 to {len(piece.nats)} of {piece.length}"
    title = f"{title}, piece {piece.number}: {steps}"
    return Picture(title=title, png=_png(title, piece), page=_page(title, piece))


def _played(piece: ShownPiece) -> NDArray[np.float64]:
    """1 where a note sounds: (KEYS, steps)."""
    roll = np.zeros((KEYS, len(piece.notes)))
    for step, notes in enumerate(piece.notes):
        roll[[note - LOWEST_NOTE for note in notes], step] = 1.0
    return roll


def _expected(piece: ShownPiece) -> NDArray[np.float64]:
    return np.array(piece.probabilities).T


def _keys(piece: ShownPiece) -> tuple[int, int]:
    """The lowest note to draw and the highest, in MIDI numbers."""
    used = np.flatnonzero((_played(piece).max(1) > 0) | (_expected(piece).max(1) > _LIKELY)) + LOWEST_NOTE
    if not len(used):
        return LOWEST_NOTE, LOWEST_NOTE + KEYS - 1
    return max(LOWEST_NOTE, int(used[0]) - _AROUND), min(LOWEST_NOTE + KEYS - 1, int(used[-1]) + _AROUND)


def _ticks(low: int, high: int) -> list[int]:
    """Every C and every G, or where these are few, other notes too."""
    marked = [note for note in range(low, high + 1) if note % _OCTAVE in (0, 7)]
    return marked if len(marked) > 1 else list(range(low, high + 1, 2))


def _png(title: str, piece: ShownPiece) -> Any:
    low, high = _keys(piece)
    roll = 0.6 + 0.05 * (high - low)
    fig = canvas.figure(title, height=1.9 + 2 * roll)
    axes = fig.subplots(3, 1, sharex=True, height_ratios=(roll, roll, 1.1))
    shown = slice(low - LOWEST_NOTE, high - LOWEST_NOTE + 1)
    place = (0.5, len(piece.nats) + 0.5, low - 0.5, high + 0.5)
    style: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "vmin": 0, "vmax": 1}
    played = np.ma.masked_equal(_played(piece)[shown], 0.0)  # lines of the grid are seen between the notes
    axes[0].imshow(played, cmap="Greys", extent=place, zorder=2, **style)
    image = axes[1].imshow(_expected(piece)[shown], cmap=_colours(), extent=place, **style)
    steps, notes = _dots(piece)
    size = min(10.0, 1500 / len(piece.nats) / 8)
    axes[1].scatter(steps, notes, s=size, color=canvas.VERMILION, linewidths=0)
    for ax in axes[:2]:
        _pitches(ax, low, high)
    axes[1].grid(False)
    bar = fig.colorbar(image, ax=axes[1], ticks=[0, 0.5, 1], pad=0.01, aspect=12)
    canvas.percent_axis(bar.ax.yaxis)
    _costs(axes[2], piece)
    for ax, name in zip(axes, PANELS, strict=True):
        ax.set_title(name, fontsize=8)
    canvas.legend_below(fig, axes[2])
    return fig


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("expected", _BLUES)


def _dots(piece: ShownPiece) -> tuple[list[int], list[int]]:
    pairs = [(step, note) for step, notes in enumerate(piece.notes, 1) for note in notes]
    return [step for step, _ in pairs], [note for _, note in pairs]


def _pitches(ax: Axes, low: int, high: int) -> None:
    ticks = _ticks(low, high)
    ax.set_yticks(ticks, labels=[note_name(note) for note in ticks], fontsize=7)
    ax.set_ylim(low - 0.5, high + 0.5)
    ax.grid(False, axis="x")


def _costs(ax: Axes, piece: ShownPiece) -> None:
    steps = range(1, len(piece.nats) + 1)
    ax.plot(steps, piece.markov, color=canvas.GREY, linewidth=1.0, label="each note's own last value")
    ax.plot(steps, piece.nats, color=canvas.VERMILION, linewidth=1.2, label="network")
    ax.set_ylabel(NLL.unit)
    ax.set_xlabel("step; the first, from silence, does not count")
    ax.set_xlim(0.5, len(piece.nats) + 0.5)
    ax.set_ylim(bottom=0.0)


def _page(title: str, piece: ShownPiece) -> Any:
    low, high = _keys(piece)
    fig = make_subplots(
        rows=3, cols=1, shared_xaxes=True, subplot_titles=PANELS, row_heights=[0.38, 0.38, 0.24], vertical_spacing=0.07
    )
    canvas.style_page(fig, title, height=900, legend={"orientation": "h", "y": -0.08})
    played, expected = (roll[low - LOWEST_NOTE : high - LOWEST_NOTE + 1] for roll in (_played(piece), _expected(piece)))
    keys, steps = list(range(low, high + 1)), list(range(1, len(piece.nats) + 1))
    told = [
        [
            f"step {step}, {note_name(note)}, {'played' if played[key, place] else 'silent'}<br>"
            f"expected at {percent(float(expected[key, place]))}"
            for place, step in enumerate(steps)
        ]
        for key, note in enumerate(keys)
    ]
    scale = [[place / (len(_BLUES) - 1), colour] for place, colour in enumerate(_BLUES)]
    for row, (roll, colours) in enumerate(((played, "Greys"), (expected, scale)), 1):
        heat: dict[str, Any] = {"zmin": 0, "zmax": 1, "colorscale": colours, "showscale": False}
        fig.add_heatmap(x=steps, y=keys, z=roll.tolist(), text=told, hoverinfo="text", row=row, col=1, **heat)
        ticks = _ticks(low, high)
        fig.update_yaxes(tickvals=ticks, ticktext=[note_name(note) for note in ticks], row=row, col=1)
    dots = {"size": 3, "color": canvas.VERMILION}
    x, y = _dots(piece)
    fig.add_scatter(x=x, y=y, mode="markers", marker=dots, hoverinfo="skip", showlegend=False, row=2, col=1)
    curves = (("each note's own last value", piece.markov, canvas.GREY), ("network", piece.nats, canvas.VERMILION))
    for name, nats, colour in curves:
        fig.add_scatter(x=steps, y=list(nats), name=name, mode="lines", line={"color": colour}, row=3, col=1)
    fig.update_yaxes(title=NLL.unit, rangemode="tozero", row=3, col=1)
    fig.update_xaxes(title="step", row=3, col=1)
    return fig
