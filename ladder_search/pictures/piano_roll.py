"""A piece of music as a piano roll: the notes, their predicted probabilities, and the cost of each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from ladder_search.analysis.music import ShownPiece, note_name
from ladder_search.data.music import KEYS, LOWEST_NOTE
from ladder_search.metrics import ERROR, NLL
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.wording import percent

PANELS = ("played", "expected, given the steps before; dots: played", "cost of each step")
_AROUND = 2
"""Keys drawn below and above those that are played or likely."""
_LIKELY = 0.1
_OCTAVE = 12
_BLUES = ["#FFFFFF", "#C6DBEF", "#6BAED6", canvas.BLUE, "#00304C"]
"""From probability 0 to 1."""


def piano_roll(title: str, piece: ShownPiece) -> Picture:
    """Draw three panels with a common time axis: notes, their probabilities, nats."""
    complete = len(piece.nats) == piece.length
    steps = f"{piece.length} steps" if complete else f"steps 1 to {len(piece.nats)} of {piece.length}"
    title = f"{title}, piece {piece.number}: {steps}"
    low, high = _keys(piece)
    roll = 0.6 + 0.05 * (high - low)
    picture = Picture(title, height=1.9 + 2 * roll)
    axes = picture.figure.subplots(3, 1, sharex=True, height_ratios=(roll, roll, 1.1))
    keys = slice(low - LOWEST_NOTE, high - LOWEST_NOTE + 1)
    place = (0.5, len(piece.nats) + 0.5, low - 0.5, high + 0.5)
    style: dict[str, Any] = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "vmin": 0, "vmax": 1}
    played, expected = _played(piece)[keys], _expected(piece)[keys]
    notes = np.ma.masked_equal(played, 0.0)  # keeps grid lines visible between the notes
    axes[0].imshow(notes, cmap="Greys", extent=place, zorder=2, **style)
    colours = LinearSegmentedColormap.from_list("expected", _BLUES)
    image = axes[1].imshow(expected, cmap=colours, extent=place, **style)
    dots = [(step, note) for step, notes in enumerate(piece.notes, 1) for note in notes]
    size = min(10.0, 1500 / len(piece.nats) / 8)
    axes[1].scatter([x for x, _ in dots], [y for _, y in dots], s=size, color=canvas.VERMILION, linewidths=0)
    octaves = [note for note in range(low, high + 1) if note % _OCTAVE in (0, 7)]  # every C and every G
    ticks = octaves if len(octaves) > 1 else list(range(low, high + 1, 2))
    for ax in axes[:2]:
        ax.set_yticks(ticks, labels=[note_name(note) for note in ticks], fontsize=7)
        ax.set_ylim(low - 0.5, high + 0.5)
        ax.grid(False, axis="x")
        for (key, step), sounds in np.ndenumerate(played):
            text = f"step {step + 1}, {note_name(low + key)}, {'played' if sounds else 'silent'}"
            text = f"{text}\nexpected at {percent(float(expected[key, step]))}"
            picture.hover(ax, [step + 1], [low + key], [text])
    axes[1].grid(False)
    bar = picture.figure.colorbar(image, ax=axes[1], ticks=[0, 0.5, 1], pad=0.01, aspect=12)
    canvas.measure_axis(bar.ax.yaxis, ERROR)
    _costs(picture, axes[2], piece)
    for ax, name in zip(axes, PANELS, strict=True):
        ax.set_title(name, fontsize=8)
    picture.legend_below(axes[2])
    return picture


def _played(piece: ShownPiece) -> NDArray[np.float64]:
    """Return 1 for sounding notes, else 0: (KEYS, steps)."""
    roll = np.zeros((KEYS, len(piece.notes)))
    for step, notes in enumerate(piece.notes):
        roll[[note - LOWEST_NOTE for note in notes], step] = 1.0
    return roll


def _expected(piece: ShownPiece) -> NDArray[np.float64]:
    return np.array(piece.probabilities).T


def _keys(piece: ShownPiece) -> tuple[int, int]:
    """Return the lowest and the highest note to draw, as MIDI numbers."""
    used = np.flatnonzero((_played(piece).max(1) > 0) | (_expected(piece).max(1) > _LIKELY)) + LOWEST_NOTE
    if not len(used):
        return LOWEST_NOTE, LOWEST_NOTE + KEYS - 1
    return max(LOWEST_NOTE, int(used[0]) - _AROUND), min(LOWEST_NOTE + KEYS - 1, int(used[-1]) + _AROUND)


def _costs(picture: Picture, ax: Axes, piece: ShownPiece) -> None:
    steps = range(1, len(piece.nats) + 1)
    curves = (
        ("each note's own last value", piece.markov, canvas.GREY, 1.0),
        ("network", piece.nats, canvas.VERMILION, 1.2),
    )
    for name, nats, colour, width in curves:
        ax.plot(steps, nats, color=colour, linewidth=width, label=name)
        picture.hover(
            ax, steps, nats, [f"{name}, step {n}: {NLL.text(v)}" for n, v in zip(steps, nats, strict=True)], name
        )
    ax.set_ylabel(NLL.unit)
    ax.set_xlabel("step; the first, from silence, does not count")
    ax.set_xlim(0.5, len(piece.nats) + 0.5)
    ax.set_ylim(bottom=0.0)
