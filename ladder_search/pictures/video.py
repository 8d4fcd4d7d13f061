"""Occluded sequences with a network's predictions, probe and classes, as in figure 4 of Prémont-Schwarz et al. 2017. A
column is a frame; predictions stand below the frame that they predict."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ladder_search.analysis.video import ShownSequence, Video, levels
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.wording import percent

LINES = {"truth": "as it is", "seen": "seen", "predicted": "predicted", "probed": "probed"}
"""Field of a ``ShownSequence`` -> name of its line."""

_FRAMES_ACROSS = 10
"""Number of frames in a row: two sequences of five."""
_LEFT, _APART, _TOP, _HEAD, _FOOT = 0.85, 0.2, 0.35, 0.25, 0.22
"""Inches: row names, gap between sequences, title, title of a sequence, space below it."""
_BAR, _LARGEST = 0.75, 0.75
"""Inches: height of the bars, and maximum height of a frame."""
_TEXT = 0.14
_TINT = 0.16
"""Grey level of visible bars, from 0 (paper) to 1 (black)."""


def sequences(title: str, video: Video) -> Picture:
    """Draw every sequence as a block: a row of images for each field, and bars of class probabilities. Positions are in
    inches, without a layout engine, so that frames of all sequences have the same size."""
    first = video.shown[0]
    lines = [name for name in LINES if getattr(first, name)]
    notes = _notes(video, lines)
    across = max(1, min(len(video.shown), _FRAMES_ACROSS // max(2, video.frames)))  # one image has bars as wide
    pixels, gap = video.frames * _step(video) - _gap(video), _gap(video)
    pixel = min(_LARGEST / video.side, ((canvas.WIDTH - _LEFT) / across - _APART) / pixels)
    width, tall = pixel * pixels, pixel * (len(lines) * _step(video) - gap)
    block = _HEAD + tall + (pixel * gap + _BAR) * bool(first.probabilities) + _FOOT
    height = _TOP + -(-len(video.shown) // across) * block + _TEXT * len(notes)
    picture = Picture(title, height=height)
    fig = picture.figure
    fig.set_layout_engine("none")
    fig.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", va="top", fontsize=10, fontweight="bold")
    for place, one in enumerate(video.shown):
        row, column = divmod(place, across)
        left, top = _LEFT + column * (canvas.WIDTH - _LEFT) / across, height - _TOP - row * block - _HEAD
        ax = fig.add_axes((left / canvas.WIDTH, (top - tall) / height, width / canvas.WIDTH, tall / height))
        _draw_images(ax, one, lines, video)
        middles = [number * _step(video) + video.side / 2 - 0.5 for number in range(len(lines))]
        ax.set_yticks(middles, ["" if column else LINES[name] for name in lines], fontsize=7)
        _heading(ax, one)
        if one.probabilities:
            bottom = top - tall - pixel * gap - _BAR
            ax = fig.add_axes((left / canvas.WIDTH, bottom / height, width / canvas.WIDTH, _BAR / height))
            _draw_bars(picture, ax, one, video)
            ax.set_ylabel("" if column else "classes", rotation=0, ha="right", va="center", fontsize=7)
        if video.frames > 1:
            middles = [frame * _step(video) + video.side / 2 - 0.5 for frame in range(video.frames)]
            ax.set_xticks(middles, labels=[str(frame) for frame in range(1, video.frames + 1)], fontsize=6)
            ax.tick_params(axis="x", length=0, pad=2)
    for number, note in enumerate(reversed(notes)):
        fig.text(0.01, (0.06 + _TEXT * number) / height, note, fontsize=7)
    return picture


def _gap(video: Video) -> int:
    return max(1, video.side // 12)


def _step(video: Video) -> int:
    return video.side + _gap(video)


def _heading(ax: Axes, one: ShownSequence) -> None:
    if not one.probabilities:
        ax.set_title(f"{one.label}", fontsize=8, pad=3)
        return
    output = int(np.argmax(one.probabilities[-1]))
    text = f"{one.label}, output {output} at {percent(one.probabilities[-1][output], 0)}"
    ax.set_title(text, fontsize=8, color=canvas.BLACK if output == one.label else canvas.VERMILION, pad=3)


def _notes(video: Video, lines: list[str]) -> list[str]:
    notes = {
        "tinted: bars, which the network sees as background": video.bars,
        "predicted: before the frame was seen": "predicted" in lines,
        "probed: the frame without bars, read off the lowest decoder cell": "probed" in lines,
        "green: the true class, red: another class that the network outputs": video.shown[0].probabilities,
    }
    return [note for note, present in notes.items() if present]


def _draw_images(ax: Axes, one: ShownSequence, lines: list[str], video: Video) -> None:
    side, step, gap = video.side, _step(video), _gap(video)
    paper = np.ones((len(lines) * step - gap, video.frames * step - gap))
    for number, name in enumerate(lines):
        images = getattr(one, name)
        for frame, image in enumerate(images, video.frames - len(images)):  # the first frame is not predicted
            pixels = 1.0 - levels(image, side) / 255.0
            if name == "seen":
                tinted = [*video.bars]
                pixels[tinted, :] = np.minimum(pixels[tinted, :], 1.0 - _TINT)
                pixels[:, tinted] = np.minimum(pixels[:, tinted], 1.0 - _TINT)
            top, left = number * step, frame * step
            paper[top : top + side, left : left + side] = pixels
            corner = (left - 0.5, top - 0.5)
            ax.add_patch(Rectangle(corner, side, side, fill=False, color=canvas.GREY, linewidth=0.5, clip_on=False))
    ax.imshow(paper, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def _draw_bars(picture: Picture, ax: Axes, one: ShownSequence, video: Video) -> None:
    for frame, probabilities in enumerate(one.probabilities):
        output, bar = int(np.argmax(probabilities)), video.side / len(probabilities)
        places = [frame * _step(video) + (number + 0.5) * bar - 0.5 for number in range(len(probabilities))]
        wrong = [canvas.VERMILION if number == output else canvas.GREY for number in range(len(probabilities))]
        colours = [canvas.GREEN if number == one.label else colour for number, colour in enumerate(wrong)]
        ax.bar(places, probabilities, width=0.8 * bar, color=colours, linewidth=0)
        ax.text(places[output], probabilities[output] + 0.04, f"{output}", ha="center", va="bottom", fontsize=6)
        texts = [f"frame {frame + 1}\nclass {number}: {percent(p, 1)}" for number, p in enumerate(probabilities)]
        picture.hover(ax, places, probabilities, texts)
    ax.set_xlim(-0.5, video.frames * _step(video) - _gap(video) - 0.5)
    ax.set_ylim(0.0, 1.3)
    ax.set_xticks([])
    ax.set_yticks([0.0, 1.0], labels=["", ""])
    ax.tick_params(length=0)
    ax.grid(False, axis="x")
    ax.spines["left"].set_visible(False)
