"""Sequences behind bars as a trained network sees, predicts, remembers and classifies them; figure 4 of Prémont-Schwarz
et al. 2017. A column is a frame: what was predicted stands under the frame that it was to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ladder_search.analysis.video import ShownSequence, Video, levels
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.wording import percent

LINES = {"truth": "as it is", "seen": "seen", "predicted": "predicted", "probed": "probed"}
"""Field of a ``ShownSequence`` -> how its line is called."""
CLASSES = "classes"

_FRAMES_ACROSS = 10
"""Two sequences of five frames stand beside each other."""
_LEFT, _APART, _TOP, _HEAD, _FOOT = 0.85, 0.2, 0.35, 0.25, 0.22
"""Inches: for the names of the lines, between two sequences, for the title, for a sequence's own, below it."""
_BAR, _LARGEST = 0.75, 0.75
"""Inches: height of the bars, and of a frame at most."""
_TEXT = 0.14
_TINT = 0.16
"""Share of the way from paper to black that bars are drawn at where nothing is behind them."""


def sequences(title: str, found: Video) -> Picture:
    """Draw every sequence as a block: a line of images for each thing to see, and bars of class probabilities.

    All places are in inches, without a layout engine: frames of all sequences have one size.
    """
    lines, across = _lines(found), _across(found)
    down = -(-len(found.shown) // across)
    width = (canvas.WIDTH - _LEFT) / across - _APART
    frame, gap = found.side, _gap(found.side)
    image = min(_LARGEST, width * frame / (found.frames * (frame + gap) - gap))
    width = image / frame * (found.frames * (frame + gap) - gap)
    heights = [_BAR if name == CLASSES else image * (1 + gap / frame) for name in lines]
    block, said = _HEAD + sum(heights) + _FOOT, _legend(lines, found)
    height = _TOP + down * block + _TEXT * len(said)
    picture = Picture(title, height=height)
    fig = picture.figure
    fig.set_layout_engine("none")
    fig.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", va="top", fontsize=10, fontweight="bold")
    for place, one in enumerate(found.shown):
        row, column = divmod(place, across)
        left, top = _LEFT + column * (canvas.WIDTH - _LEFT) / across, height - _TOP - row * block - _HEAD
        for number, name in enumerate(lines):
            tall = _BAR if name == CLASSES else image
            bottom = top - sum(heights[:number]) - tall
            inches = (left / canvas.WIDTH, bottom / height, width / canvas.WIDTH, tall / height)
            ax = fig.add_axes(inches)
            if name == CLASSES:
                _draw_bars(picture, ax, one, found)
            else:
                _draw_strip(ax, one, name, found)
            if number == 0:
                ax.set_title(_heading(one), fontsize=8, color=_colour(one), pad=3)
            if column == 0:
                ax.set_ylabel(LINES.get(name, name), rotation=0, ha="right", va="center", fontsize=7)
        _number_frames(ax, found)
    for number, line in enumerate(reversed(said)):
        fig.text(0.01, (0.06 + _TEXT * number) / height, line, fontsize=7)
    return picture


def _lines(found: Video) -> list[str]:
    """What there is to draw, from above."""
    first = found.shown[0]
    return [name for name in LINES if getattr(first, name)] + [CLASSES] * bool(first.probabilities)


def _across(found: Video) -> int:
    return max(1, min(len(found.shown), _FRAMES_ACROSS // max(2, found.frames)))  # an image alone has bars as wide


def _heading(one: ShownSequence) -> str:
    if not one.probabilities:
        return f"{one.label}"
    told = int(np.argmax(one.probabilities[-1]))
    return f"{one.label}, told {told} at {percent(one.probabilities[-1][told], 0)}"


def _strip(one: ShownSequence, name: str, found: Video) -> NDArray[np.float64]:
    """Frames side by side, 0..1 and NaN between them: (S, T (S + gap) - gap)."""
    side, gap = found.side, _gap(found.side)
    images = getattr(one, name)
    missing = found.frames - len(images)  # no frame before the first: it is not predicted
    strip = np.full((side, found.frames * (side + gap) - gap), np.nan)
    for place, image in enumerate(images, missing):
        begin = place * (side + gap)
        strip[:, begin : begin + side] = levels(image, side) / 255.0
    return strip


def _gap(side: int) -> int:
    return max(1, side // 12)


def _number_frames(ax: Axes, found: Video) -> None:
    side, gap = found.side, _gap(found.side)
    if found.frames > 1:
        middles = [frame * (side + gap) + side / 2 - 0.5 for frame in range(found.frames)]
        ax.set_xticks(middles, labels=[str(frame) for frame in range(1, found.frames + 1)], fontsize=6)
        ax.tick_params(axis="x", length=0, pad=2)


def _colour(one: ShownSequence) -> str:
    wrong = one.probabilities and int(np.argmax(one.probabilities[-1])) != one.label
    return canvas.VERMILION if wrong else canvas.BLACK


def _legend(lines: Sequence[str], found: Video) -> list[str]:
    said = []
    if found.bars:
        said.append("tinted: bars, which the network sees as background")
    if "predicted" in lines:
        said.append("predicted: before the frame was seen")
    if "probed" in lines:
        said.append("probed: the frame without bars, read off the lowest decoder cell")
    if CLASSES in lines:
        said.append("green: the true class, red: another one that is told")
    return said


def _draw_strip(ax: Axes, one: ShownSequence, name: str, found: Video) -> None:
    strip = 1.0 - _strip(one, name, found)
    if name == "seen":
        strip = np.minimum(strip, _tinted(found))
    ax.imshow(strip, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    _frame_borders(ax, one, name, found)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.grid(False)


def _tinted(found: Video) -> NDArray[np.float64]:
    """The paper with the bars on it, of all frames."""
    side, gap = found.side, _gap(found.side)
    paper = np.ones((side, found.frames * (side + gap) - gap))
    for frame in range(found.frames):
        image = paper[:, frame * (side + gap) : frame * (side + gap) + side]
        for bar in found.bars:
            image[bar, :] = image[:, bar] = 1.0 - _TINT
    return paper


def _frame_borders(ax: Axes, one: ShownSequence, name: str, found: Video) -> None:
    side, gap = found.side, _gap(found.side)
    missing = found.frames - len(getattr(one, name))
    for frame in range(missing, found.frames):
        left, right = frame * (side + gap) - 0.5, frame * (side + gap) + side - 0.5
        corners = [left, right, right, left, left], [-0.5, -0.5, side - 0.5, side - 0.5, -0.5]
        ax.plot(*corners, color=canvas.GREY, linewidth=0.5, clip_on=False)


def _draw_bars(picture: Picture, ax: Axes, one: ShownSequence, found: Video) -> None:
    side, gap = found.side, _gap(found.side)
    for frame, probabilities in enumerate(one.probabilities):
        told, bar = int(np.argmax(probabilities)), side / len(probabilities)
        places = [frame * (side + gap) + (number + 0.5) * bar - 0.5 for number in range(len(probabilities))]
        wrong = [canvas.VERMILION if number == told else canvas.GREY for number in range(len(probabilities))]
        colours = [canvas.GREEN if number == one.label else colour for number, colour in enumerate(wrong)]
        ax.bar(places, probabilities, width=0.8 * bar, color=colours, linewidth=0)
        ax.text(places[told], probabilities[told] + 0.04, f"{told}", ha="center", va="bottom", fontsize=6)
        texts = [f"frame {frame + 1}\nclass {number}: {percent(p, 1)}" for number, p in enumerate(probabilities)]
        picture.hover(ax, places, probabilities, texts)
    ax.set_xlim(-0.5, found.frames * (side + gap) - gap - 0.5)
    ax.set_ylim(0.0, 1.3)
    ax.set_xticks([])
    ax.set_yticks([0.0, 1.0], labels=["", ""])
    ax.tick_params(length=0)
    ax.grid(False, axis="x")
    ax.spines["left"].set_visible(False)
