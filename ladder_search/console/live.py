"""A view of a running search that a terminal redraws in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ladder_search.console import Console
from ladder_search.console.notebook import NotebookConsole, plain

_ROWS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Content of the view: lines, a bar with a text beside it, and rows below."""

    lines: Sequence[str]
    done: int
    total: int
    times: str
    rows: Sequence[Sequence[str]]
    """Rows; the last eight are shown."""


def live(console: Console, view: Callable[[], View]) -> AbstractContextManager[object]:
    """Return a context that redraws ``view()`` twice a second in its own thread."""

    def drawn() -> RenderableType:
        try:
            return _drawn(console, view())
        except Exception:  # a defect here must not end a long search
            return Text("")

    if isinstance(console, NotebookConsole):
        return _redrawn(lambda: console.update(plain(console, drawn())))
    return Live(get_renderable=drawn, console=console, refresh_per_second=2)


@contextmanager
def _redrawn(draw: Callable[[], None]) -> Iterator[None]:
    """Call ``draw`` twice a second in a thread, and once at the end."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.5):
            with suppress(Exception):  # a defect of the display must not end a long search
                draw()

    thread = threading.Thread(target=run, name="view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(Exception):
            draw()


def _drawn(console: Console, view: View) -> RenderableType:
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(1, view.total), completed=view.done, width=24)
    head.add_row(bar, console.render_str(view.times))
    below = Table.grid(padding=(0, 2))
    for row in view.rows[-_ROWS:]:
        below.add_row(*(console.render_str(cell, style="dim") for cell in row))
    more = len(view.rows) - _ROWS
    tail = [console.render_str(f"… and {more} more", style="dim")] if more > 0 else []
    return Group(*map(console.render_str, view.lines), head, below, *tail)
