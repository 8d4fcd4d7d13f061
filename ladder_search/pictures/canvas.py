"""Shared parts of all pictures: colours, axes, and the export of a figure as PNG and interactive page."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ladder_search import wording
from ladder_search.disk.files import write_atomically
from ladder_search.metrics import Measure
from ladder_search.pictures.page import as_page

# Okabe and Ito's palette, which is distinct under every common kind of colour blindness.
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILION, PURPLE, BLACK, GREY = "#D55E00", "#CC79A7", "#000000", "#A6A6A6"
COLOUR_MAP = "cividis"
"""From the best (dark) to the worst (light); perceptually uniform for colour-blind readers and grey prints."""

WIDTH = 7.0
"""Inches: the text width of a paper."""
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so pictures are equal on all machines
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.usetex": False,
    "text.parse_math": False,  # names contain underscores and may contain dollars
    "savefig.bbox": "standard",
    "svg.hashsalt": "ladder-search",  # equal names of elements in every file
}


class Picture:
    """One figure and the tooltips of its page."""

    def __init__(self, title: str, *, width: float = WIDTH, height: float = 4.2) -> None:
        """Create an empty figure of ``width`` x ``height`` inches with its title, without a window."""
        self.title = title
        self.figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        FigureCanvasAgg(self.figure)
        self.figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        self.texts: list[tuple[str, Axes, float, float, str]] = []
        """Tuples (entry of the legend or "", axes, x, y, text), one for each point with a tooltip."""
        self._entries: list[str] = []

    def hover(self, ax: Axes, xs: Iterable[float], ys: Iterable[float], texts: Iterable[str], entry: str = "") -> None:
        """Add tooltips to points; ``entry`` of the legend hides them with their curve."""
        self.texts += [(entry, ax, x, y, text) for x, y, text in zip(xs, ys, texts, strict=True)]

    def legend_below(self, ax: Axes, columns: int = 3) -> None:
        """Place the legend of ``ax`` below the axes, where it covers no data. A click on an entry of the page's legend
        hides all artists whose label is that of the entry, or that label after an underscore."""
        handles, labels = ax.get_legend_handles_labels()
        if not handles:
            return
        last = ("best found", "stopped or failed")
        order = sorted(range(len(labels)), key=lambda place: [labels[place].startswith(name) for name in last][::-1])
        self._entries = [labels[place] for place in order]
        legend = self.figure.legend(
            [handles[place] for place in order], self._entries, loc="outside lower center", ncols=columns
        )
        for number, text in enumerate(legend.get_texts()):
            text.set_gid(f"legend-{number}")

    def png(self) -> bytes:
        self._lay_out()
        image = io.BytesIO()
        self.figure.savefig(image, format="png")
        return image.getvalue()

    def page(self) -> str:
        """Return the picture as a self-contained HTML page."""
        self._lay_out()
        self._name_artists()
        image = io.StringIO()
        self.figure.savefig(image, format="svg", metadata={"Date": None})
        points: dict[int, list[list[Any]]] = {}
        width, height = self.figure.get_size_inches() * 72
        for entry, ax, x, y, text in self.texts:
            across, up = self.figure.transFigure.inverted().transform(ax.transData.transform((x, y)))
            number = self._entries.index(entry) if entry in self._entries else -1
            points.setdefault(number, []).append([round(across * width, 1), round((1 - up) * height, 1), text])
        return as_page(self.title, image.getvalue(), points)

    def _lay_out(self) -> None:
        """Place all parts once; with its engine, matplotlib would place them twice for each file."""
        if self.figure.get_layout_engine() is not None:
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine(None)

    def _name_artists(self) -> None:
        """Set the name of an entry as id of the SVG elements of all its artists."""
        for number, entry in enumerate(self._entries):
            for ax in self.figure.axes:
                bars = (bar for c in ax.containers if c.get_label() == entry for bar in c.get_children())
                for artist in (*bars, *(a for a in ax.get_children() if a.get_label() in (entry, f"_{entry}"))):
                    artist.set_gid(f"entry-{number}")


@contextmanager
def style() -> Iterator[None]:
    """Use our style of matplotlib inside the block; the user's settings are restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]  # its names are typed, ours are a table
        yield


def words(title: str, text: str) -> Picture:
    """Return a picture with a text, the reason for missing data."""
    picture = Picture(title, height=2.0)
    ax = picture.figure.add_subplot()
    ax.set_axis_off()
    ax.text(0.5, 0.5, textwrap.fill(text, 80), ha="center", va="center", transform=ax.transAxes)
    return picture


def save(picture: Picture, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.html`` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / file: content for file, content in contents(picture, name).items()}
    for path, content in files.items():
        write_atomically(path, content)
    return list(files)


def contents(picture: Picture, name: str) -> dict[str, bytes]:
    """Return the files of ``save``: ``name.png`` and ``name.html`` -> their content."""
    return {f"{name}.png": picture.png(), f"{name}.html": picture.page().encode()}


def measure_axis(axis: Any, measure: Measure, *, log: bool = False) -> None:
    """Label an ``axis`` of a study's measure; a unit other than % is in its title."""
    digits, unit = (3, " %") if measure.unit == "%" else (4, "")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{measure.scale * value:.{digits}g}{unit}"))
    if log:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float, *, most: int, letters: int) -> list[float]:
    """Return at most ``most`` round numbers from ``low`` to ``high`` for a logarithmic axis, short enough to fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    grids = [((1, 1.5, 2, 3, 4, 5, 6, 8), 1), ((1, 2, 5), 1), ((1, 3), 1)]
    grids += [((1,), stride) for stride in range(1, len(decades) + 1)]
    for steps, stride in grids:
        ticks = [step * 10.0**decade for decade in decades if decade % stride == 0 for step in steps]
        ticks = [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]
        if len(ticks) <= most and sum(len(wording.value(tick)) for tick in ticks) <= letters:
            break
    return ticks if len(ticks) > 1 else sorted({low, high})


def wrapped(name: str, width: int) -> str:
    """Wrap a name such as ``noise_std_input`` after ``/``, ``_`` and ``.`` to about ``width`` characters."""
    lines = [""]
    for part in re.findall(r"[^/_.\s-]*[/_.\s-]*", name):
        for piece in textwrap.wrap(part, width) or ([part] if part else []):
            if lines[-1] and len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line for line in lines if line)


def thinned(lines: int) -> float:
    """Return a factor for width and opacity of many lines, so that their density is visible: 1 up to 40."""
    return max(0.3, min(1.0, math.sqrt(40 / max(1, lines))))
