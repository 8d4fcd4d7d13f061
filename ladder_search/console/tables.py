"""Tables for the console and for Markdown, from which HTML is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table as RichTable

from ladder_search.console import Console

_RULED: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 0, 0, 1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Texts in rows and columns; numbers are right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[str] = ()
    folded: Collection[str] = ()
    """Columns that wrap; the others are never broken between words."""
    most: Sequence[tuple[str, int]] = ()
    """Pairs (column, maximum width in characters)."""
    least: Sequence[tuple[str, int]] = ()
    """Pairs (column, minimum width in characters)."""
    styles: Sequence[str] = ()
    """Rich style of each row; empty for none."""
    title: str = ""
    plain: bool = False
    """Omit the rule below the header and the margins, for long lists."""

    def print(self, console: Console, *, columns: int = 0) -> None:
        """Print the table; ``columns`` is its width if no terminal determines another."""
        look: dict[str, Any] = {"box": None, "pad_edge": False} if self.plain else _RULED
        table = RichTable(title=self.title or None, title_justify="left", **look)
        most, least = dict(self.most), dict(self.least)
        for name in self.header:
            table.add_column(
                name,
                justify="left" if name in self.left else "right",
                no_wrap=name not in self.folded,
                overflow="fold",  # names are never truncated
                width=most.get(name),
                min_width=least.get(name),
            )
        for place, row in enumerate(self.rows):
            table.add_row(*row, style=self.styles[place] if self.styles else "")
        console.wide(columns).print(table)

    def markdown(self, write: Callable[[str], str] = lambda text: text.replace("|", "\\|")) -> list[str]:
        """Return the lines of the table in Markdown; ``write`` escapes the text of a cell."""

        def line(texts: Sequence[str]) -> str:
            return "| " + " | ".join(write(" ".join(text.split())) for text in texts) + " |"

        return [line(self.header), "|" + " --- |" * len(self.header), *map(line, self.rows), ""]
