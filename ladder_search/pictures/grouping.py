"""Groups of pixels after every iteration, as in figures 6 and 7 of Prémont-Schwarz et al. 2017, and their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ladder_search.analysis.grouping import Groups, ShownGroups, levels
from ladder_search.metrics import AMI, AMI_ARITHMETIC, ERROR
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture

_COLOURS = (canvas.BLUE, canvas.VERMILION, canvas.GREEN, canvas.ORANGE, canvas.PURPLE, canvas.SKY)
_UNSCORED = (0.92, 0.92, 0.92)
_ACROSS = 20
"""Number of columns of images in a row of the picture."""
_LEFT, _APART, _TOP, _HEAD, _FOOT, _LARGEST = 0.95, 0.15, 0.4, 0.3, 0.25, 0.8
"""Inches: names of lines, gap between blocks, title, title of a block, space below it, and maximum side of an image."""


def segmentations(title: str, found: Groups) -> Picture:
    """Draw a block for every image: what is seen, the true segments, the groups in colour, and the image according to
    each group; a column is an iteration, or a frame of a video. Generated frames are the last columns, marked by a
    plus, in the line of what is seen and without true segments."""
    T, beyond = len(found.ami), max((len(one.generated) for one in found.shown), default=0)
    across = max(1, min(len(found.shown), _ACROSS // (T + beyond)))
    gap = max(1, found.width // 12)
    lines = ("seen", "true", "groups", *(f"group {k + 1}" for k in range(found.n_groups)))
    pixels = (T + beyond) * (found.width + gap)
    pixel = min(_LARGEST / found.width, ((canvas.WIDTH - _LEFT) / across - _APART) / pixels)
    tall = pixel * len(lines) * (found.height + gap)
    block = _HEAD + tall + _FOOT
    height = _TOP + -(-len(found.shown) // across) * block
    picture = Picture(title, height=height)
    figure = picture.figure
    figure.set_layout_engine("none")
    figure.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", va="top", fontsize=10, fontweight="bold")
    for place, one in enumerate(found.shown):
        row, column = divmod(place, across)
        left, top = _LEFT + column * (canvas.WIDTH - _LEFT) / across, height - _TOP - row * block - _HEAD
        size = (left / canvas.WIDTH, (top - tall) / height, pixel * (pixels - gap) / canvas.WIDTH, tall / height)
        ax = figure.add_axes(size)
        _block(ax, one, found, gap)
        middles = [line * (found.height + gap) + found.height / 2 - 0.5 for line in range(len(lines))]
        ax.set_yticks(middles, ["" if column else name for name in lines], fontsize=7)
        columns = [str(t + found.first) + "+" * (t >= T) for t in range(len(one.groups))]
        places = [t * (found.width + gap) + found.width / 2 - 0.5 for t in range(len(columns))]
        ax.set_xticks(places, columns, fontsize=6)
        ax.set_title(_heading(one), fontsize=7, pad=3)
        texts = [f"{found.step} {t + found.first}: AMI {AMI.number(ami)}" for t, ami in enumerate(one.ami)]
        texts += [f"{found.step} {t + found.first}: generated" for t in range(T, len(columns))]
        picture.hover(ax, places, [middles[2]] * len(columns), texts)
    return picture


def scores(title: str, found: Groups) -> Picture:
    """Draw the scores against the iteration, or the frame of a video."""
    picture = Picture(title, height=3.2)
    panels = picture.figure.subplots(1, 1 + bool(found.error), squeeze=False)[0]
    steps = [t + found.first for t in range(len(found.ami))]
    for measure, values, colour, ax in (
        (AMI, found.ami, canvas.BLUE, panels[0]),
        (AMI_ARITHMETIC, found.ami_arithmetic, canvas.SKY, panels[0]),
        *((ERROR, found.error, canvas.VERMILION, ax) for ax in panels[1:]),
    ):
        ax.plot(steps, values, "o-", color=colour, markersize=4, label=measure.title)
        texts = [
            f"{found.step} {t}: {measure.title} {measure.text(value)}" for t, value in zip(steps, values, strict=True)
        ]
        picture.hover(ax, steps, values, texts, measure.title)
        canvas.measure_axis(ax.yaxis, measure, log=False)
        ax.set_xlabel(found.step)
        ax.set_ylabel(AMI.label if measure.rises else measure.label)
    picture.legend_below(panels[0])
    return picture


def _heading(one: ShownGroups) -> str:
    text = f"AMI {AMI.number(one.ami[-1])}"
    if not one.classes:
        return text
    return f"{_listed(one.classes)}, output {_listed(one.output)}, {text}"


def _listed(classes: Sequence[int]) -> str:
    return " and ".join(map(str, classes))


def _block(ax: Axes, one: ShownGroups, found: Groups, gap: int) -> None:
    lines, seen = 3 + found.n_groups, (*one.seen, *one.generated)
    down, across = found.height + gap, found.width + gap
    paper = np.ones((lines * down - gap, len(seen) * across - gap, 3))
    blank = np.ones((found.height, found.width, 3))
    for t, image_seen in enumerate(seen):
        truth = _coloured(levels(one.truth[t], found), unscored=True) if t < len(one.truth) else blank
        images = [_grey(levels(image_seen, found)), truth, _coloured(levels(one.groups[t], found))]
        images += [_grey(levels(group, found)) for group in one.reconstructions[t]]
        for line, image in enumerate(images):
            top, left = line * down, t * across
            paper[top : top + found.height, left : left + found.width] = image
    ax.imshow(paper, interpolation="nearest", aspect="auto")
    ax.tick_params(length=0, pad=2)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.repeat(image[..., None] / 255.0, 3, axis=-1)


def _coloured(image: NDArray[np.uint8], *, unscored: bool = False) -> NDArray[np.float64]:
    """Return a colour for each number; with ``unscored``, 0 is a light grey."""
    most = int(image.max(initial=0)) + 1
    colours = [to_rgb(_COLOURS[number % len(_COLOURS)]) for number in range(most)]
    table = np.array([_UNSCORED, *colours] if unscored else colours)
    shades: NDArray[np.float64] = table[image]
    return shades
