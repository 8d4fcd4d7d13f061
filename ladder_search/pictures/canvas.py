"""What all pictures share: colours, figures of both kinds, and how they are written."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from plotly.offline import get_plotlyjs

from ladder_search import wording
from ladder_search.disk.files import write_atomically
from ladder_search.metrics import ERROR, Measure

# Okabe and Ito's palette: told apart with every common kind of colour blindness.
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILION, PURPLE, BLACK, GREY = "#D55E00", "#CC79A7", "#000000", "#A6A6A6"
COLOUR_MAP = "cividis"
"""From the best (dark) to the worst (light); even in lightness, for colour-blind readers and grey prints."""

WIDTH = 7.0
"""Inches: the text width of a paper's page."""
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
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
    "text.parse_math": False,  # names hold underscores and may hold dollars
    "savefig.bbox": "standard",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture in its two forms."""

    title: str
    png: Figure
    page: Any
    """plotly's figure."""


@contextmanager
def style() -> Iterator[None]:
    """Draw with our style inside, whatever the user's own settings of matplotlib are; they are restored after it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]  # its names are typed, ours are a table
        yield


def figure(title: str, *, width: float = WIDTH, height: float = 4.2) -> Figure:
    """Return an empty figure with its title; it belongs to no window and to nobody else."""
    fig = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(fig)
    fig.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return fig


def page(title: str, **layout: Any) -> Any:
    """Return an empty plotly figure with its title."""
    fig = go.Figure()
    style_page(fig, title, **layout)
    return fig


def style_page(fig: Any, title: str, **layout: Any) -> None:
    """Give a plotly figure, Optuna's included, our title and fonts."""
    heading = {
        "text": html.escape(title, quote=False),
        "x": 0.01,
        "xanchor": "left",
        "y": 0.98,
        "yanchor": "top",
        "yref": "container",
    }
    fig.update_layout(template="simple_white", title=heading, font={"size": 13}, margin={"t": 70})
    fig.update_layout(**layout)


def words(title: str, text: str) -> Picture:
    """A picture that says why there is nothing to see."""
    fig = figure(title, height=2.0)
    ax = fig.add_subplot()
    ax.set_axis_off()
    ax.text(0.5, 0.5, textwrap.fill(text, 80), ha="center", va="center", transform=ax.transAxes)
    empty = page(title, height=300)
    empty.update_xaxes(visible=False)
    empty.update_yaxes(visible=False)
    note = "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(text, 90))
    empty.add_annotation(text=note, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return Picture(title=title, png=fig, page=empty)


def save(picture: Picture, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.html``, each whole or not at all, and the script that the pages share."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / file: content for file, content in contents(picture, name).items()}
    for path, content in files.items():
        if path.suffix != ".js" or not path.exists() or path.stat().st_size != len(content):
            _write(path, content)
    return [path for path in files if path.suffix != ".js"]


def contents(picture: Picture, name: str) -> dict[str, bytes]:
    """Return what ``save`` writes: the script, ``name.png`` and ``name.html`` -> their content."""
    image = io.BytesIO()
    picture.png.savefig(image, format="png")
    text = picture.page.to_html(include_plotlyjs="directory", div_id=name)
    text = text.replace("<head>", f"<head><title>{html.escape(picture.title, quote=False)}</title>", 1)
    return {"plotly.min.js": get_plotlyjs().encode(), f"{name}.png": image.getvalue(), f"{name}.html": text.encode()}


def percent_axis(axis: Any) -> None:
    """Label matplotlib's ``axis`` of fractions in percent: 1 %, 2 %, 5 %, 10 %."""
    measure_axis(axis, ERROR, log=False)


def measure_axis(axis: Any, measure: Measure, *, log: bool) -> None:
    """Label matplotlib's ``axis`` of what a study is judged by as it is shown; a unit other than % is in its title."""
    digits, unit = (3, " %") if measure.unit == "%" else (4, "")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{measure.scale * value:.{digits}g}{unit}"))
    if log:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float, *, most: int, letters: int) -> list[float]:
    """Return round numbers from ``low`` to ``high`` for a logarithmic axis: at most ``most``, short enough to fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    grids = [((1, 1.5, 2, 3, 4, 5, 6, 8), 1), ((1, 2, 5), 1), ((1, 3), 1)]
    grids += [((1,), stride) for stride in range(1, len(decades) + 1)]
    for steps, stride in grids:
        ticks = [step * 10.0**decade for decade in decades if decade % stride == 0 for step in steps]
        ticks = [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]
        if len(ticks) <= most and sum(len(wording.value(tick)) for tick in ticks) <= letters:
            break
    return ticks if len(ticks) > 1 else sorted({low, high})


def wrapped(name: str, width: int, *, newline: str = "\n") -> str:
    """``noise_std_input`` in lines of about ``width`` letters, broken after ``/``, ``_`` and ``.`` where it can be."""
    lines = [""]
    for part in re.findall(r"[^/_.\s-]*[/_.\s-]*", name):
        for piece in textwrap.wrap(part, width) or ([part] if part else []):
            if lines[-1] and len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
    return newline.join(line for line in lines if line)


def thinned(lines: int) -> float:
    """Factor for the width and the opacity of each of many lines, so that their density can be seen: 1 up to 40."""
    return max(0.3, min(1.0, math.sqrt(40 / max(1, lines))))


def legend_below(fig: Figure, ax: Axes, columns: int = 3) -> None:
    """Put the legend under the axes, where it covers no data."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        last = ("best found", "stopped or failed")
        order = sorted(range(len(labels)), key=lambda place: [labels[place].startswith(name) for name in last][::-1])
        entries = [handles[place] for place in order], [labels[place] for place in order]
        fig.legend(*entries, loc="outside lower center", ncols=columns)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
