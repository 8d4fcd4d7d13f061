"""The console that every command prints to.

Printing never fails. A terminal that has gone away, a full disk or a closed pipe costs the text and nothing else, and a
letter that the console's encoding lacks is replaced by ASCII. A file gets plain lines: colours and lines that redraw
themselves are for terminals alone, whatever the environment asks for.
"""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any, TextIO, cast

import rich.console
from rich.text import Text

STAND_INS = "ladder_search.stand_ins"
"""Name of the error handler that replaces letters which an encoding lacks."""

_ASCII = {"–": "-", "−": "-", "±": "+/-", "·": "|", "×": "x", "λ": "lambda_", "σ": "noise", "→": "->", "─": "-"}
_TERMINAL_VARIABLES = ("TERM", "COLORTERM", "NO_COLOR")
"""What Rich may read of the environment as it is. It would also read FORCE_COLOR, TTY_COMPATIBLE, TTY_INTERACTIVE and
the variables of Jupyter, which would put control codes into files."""


class Stream:
    """A text stream that cannot fail: what the stream below refuses is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=STAND_INS)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console(rich.console.Console):
    """Prints texts as they are: neither markup nor emoji codes are interpreted, and nothing is highlighted."""

    def __init__(self, file: IO[str] | None = None, *, width: int | None = None, terminal: bool | None = None) -> None:
        """
        Args:
            file: standard output unless given.
            width: columns; None: those of COLUMNS or of the terminal, else 80.
            terminal: whether the file is a terminal; None: as the file says.
        """
        stream = _unfailing(sys.stdout if file is None else cast(TextIO, file))
        terminal = _is_terminal(stream) if terminal is None else terminal
        variables = {name: os.environ[name] for name in _TERMINAL_VARIABLES if name in os.environ}
        for name in ("COLUMNS", "LINES"):  # a container's terminal may have 0 of both
            value = os.environ.get(name, "")
            if value.isdecimal() and int(value) > 0:
                variables[name] = value
        dumb = variables.get("TERM", "").lower() in ("dumb", "unknown")
        super().__init__(
            file=stream,
            width=width,
            force_terminal=terminal,
            force_interactive=terminal and not dumb,
            force_jupyter=False,
            markup=False,
            emoji=False,
            highlight=False,
            _environ=variables,
        )

    @property
    def redraws(self) -> bool:
        """Whether a line can be drawn over: a terminal's can, unless it is a dumb one."""
        return self.is_terminal and not self.is_dumb_terminal

    def say(self, text: str, *, mark: tuple[str, str] = ("", "")) -> None:
        """Print a line whole, however long it is: a path or a command is copied from it.

        Args:
            text: of the line.
            mark: a word before it, and its colour.
        """
        self.print(Text.assemble(mark, self.printable(text)), soft_wrap=True)

    def update(self, text: str) -> None:
        """Draw ``text`` over the line that was drawn last; only where the console ``redraws``."""
        self.print(f"{text:<{self.width - 1}}", end="\r", no_wrap=True)

    def wide(self, columns: int) -> Console:
        """Return the console for tables of so many columns: in a file they need not fit a terminal."""
        return self if self.is_terminal else Console(self.file, width=max(self.width, columns), terminal=False)

    def printable(self, text: str) -> str:
        """Return ``text`` in letters that the console's encoding has: ``+/-`` for ``±`` in ASCII."""
        try:
            return text.encode(self.encoding, STAND_INS).decode(self.encoding)
        except LookupError:  # an encoding that Python does not know
            return text.encode("ascii", STAND_INS).decode("ascii")

    def render_str(self, text: str, **options: Any) -> Text:
        """Called by Rich for every string, cells of tables among them, before it measures them."""
        return super().render_str(self.printable(text), **options)


def guard_standard_streams() -> None:
    """Let all that the process prints, argparse, warnings and tracebacks included, go through a ``Stream``.

    They stay guarded until the process has ended, because Python flushes them last of all.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed by the caller: the next file to be opened would become standard output
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)


def _unfailing(stream: TextIO | None) -> TextIO:
    if isinstance(stream, Stream):
        return cast(TextIO, stream)
    if stream is None:  # Python's own, closed by the caller
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    return cast(TextIO, Stream(stream))


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):
        return False


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_ASCII.get(letter) or _plain(letter) for letter in letters), error.end


def _plain(letter: str) -> str:
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode("ascii") or "?"


codecs.register_error(STAND_INS, _stand_in)
