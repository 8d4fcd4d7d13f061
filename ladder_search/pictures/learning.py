"""Learning curves of several configurations over seeds: the mean of each, in a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from ladder_search.pictures import canvas
from ladder_search.pictures.canvas import Picture
from ladder_search.reproduction.learning import Learning

_COLOURS = (canvas.BLUE, canvas.VERMILION, canvas.GREEN, canvas.ORANGE, canvas.PURPLE, canvas.SKY, canvas.BLACK)
_DASHES = (("-", "solid"), ("--", "dash"), (":", "dot"))


def learning_bands(title: str, all_: Sequence[Learning]) -> Picture:
    """Draw test accuracy, or what else is measured, against epochs: a line and a band for each configuration."""
    drawn = [one for one in all_ if one.curves]
    if not drawn:
        return canvas.words(title, "Every seed of every configuration diverged.")
    measure = drawn[0].measure
    label, scale, ticks = f"test {measure.label}, mean ± sd", measure.scale, ".4~g"
    if drawn[0].rises:  # accuracies are fractions, which plotly writes as percentages
        label, scale, ticks = "test accuracy, mean ± sd", 1.0, ".1%"
    fig, page = canvas.figure(title), canvas.page(title)
    ax = fig.add_subplot()
    for number, one in enumerate(drawn):
        colour = _COLOURS[number % len(_COLOURS)]
        dash, of_page = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        epochs = list(one.points)
        values = [list(one.after(epoch).values()) for epoch in epochs]
        means = [fmean(at) for at in values]
        spreads = [stdev(at) if len(at) > 1 else 0.0 for at in values]
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        name = f"{one.name} ({len(one.curves)} seeds)"
        ax.plot(epochs, means, dash, color=colour, linewidth=1.4, label=name)
        ax.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        band = {"x": [*epochs, *reversed(epochs)], "y": [scale * y for y in (*high, *reversed(low))]}
        page.add_scatter(
            **band, fill="toself", fillcolor=colour, opacity=0.15, line={"width": 0}, hoverinfo="skip", showlegend=False
        )
        line = {"color": colour, "dash": of_page}
        page.add_scatter(x=epochs, y=[scale * mean for mean in means], name=name, line=line)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    canvas.measure_axis(ax.yaxis, measure, log=False)
    canvas.legend_below(fig, ax, columns=2)
    page.update_xaxes(title="epoch")
    page.update_yaxes(title=label, tickformat=ticks)
    return Picture(title=title, png=fig, page=page)
