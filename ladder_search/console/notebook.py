"""The console of a Jupyter notebook: lines go to the cell's output, and one display is redrawn in place."""

from __future__ import annotations

import html
import io
import sys
from typing import Any

from ladder_search.console import Console


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose output cells can be redrawn."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return getattr(type(shell), "__name__", "") == "ZMQInteractiveShell"


class NotebookConsole(Console):
    """A console whose ``update`` replaces the content of one display; ``say`` prints lines below it."""

    def __init__(self) -> None:
        super().__init__(sys.stdout, width=110, terminal=False)
        self._handle: Any = None

    @property
    def redraws(self) -> bool:
        return True

    def update(self, text: str) -> None:
        """Show ``text``, of one or several lines, in place of the last one."""
        from IPython.display import HTML, display  # of the kernel; no dependency of the project

        content = HTML(f"<pre>{html.escape(text)}</pre>")
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)


def plain(console: Console, renderable: Any) -> str:
    """Return what a console would draw as plain lines."""
    lines = io.StringIO()
    Console(lines, width=console.width, terminal=False).print(renderable)
    return lines.getvalue()
