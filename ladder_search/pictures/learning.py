"""Learning curves of several configurations over seeds: mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from ladder_search.metrics import ERROR
from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.reproduction.learning import Learning

_COLOURS = (canvas.BLUE, canvas.VERMILION, canvas.GREEN, canvas.ORANGE, canvas.PURPLE, canvas.SKY, canvas.BLACK)
_DASHES = ("-", "--", ":")


def learning_bands(title: str, all_: Sequence[Learning]) -> Picture:
    """Draw the test accuracy, or another measure, against epochs: a line and a band for each configuration."""
    with_curves = [one for one in all_ if one.curves]
    if not with_curves:
        return canvas.words(title, "Every seed of every configuration diverged.")
    measure = with_curves[0].measure
    picture = Picture(title)
    ax = picture.figure.add_subplot()
    for number, one in enumerate(with_curves):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
        epochs = list(one.points)
        values = [list(one.after(epoch).values()) for epoch in epochs]
        means = [fmean(at) for at in values]
        spreads = [stdev(at) if len(at) > 1 else 0.0 for at in values]
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        name = f"{one.name} ({len(one.curves)} seeds)"
        ax.plot(epochs, means, dash, color=colour, linewidth=1.4, label=name)
        ax.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0, label=f"_{name}")
        texts = [f"{one.name}, epoch {epoch}: {measure.text(mean)}" for epoch, mean in zip(epochs, means, strict=True)]
        picture.hover(ax, epochs, means, texts, name)
    ax.set_xlabel("epoch")
    ax.set_ylabel("test accuracy, mean ± sd" if measure == ERROR else f"test {measure.label}, mean ± sd")
    canvas.measure_axis(ax.yaxis, measure)
    picture.legend_below(ax, columns=2)
    return picture
