"""The console that every command prints to.

Printing never raises: if a terminal disappears, a disk is full or a pipe is closed, the text is lost. Characters
missing from the console's encoding are replaced by ASCII. Files always receive plain lines without colours or
redrawing.
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
"""Name of the error handler that replaces characters missing from an encoding."""

_ASCII = {"–": "-", "−": "-", "±": "+/-", "·": "|", "×": "x", "λ": "lambda_", "σ": "noise", "→": "->", "─": "-"}
_TERMINAL_VARIABLES = ("TERM", "COLORTERM", "NO_COLOR")
"""Environment variables passed on to Rich. Others (FORCE_COLOR, TTY_COMPATIBLE, TTY_INTERACTIVE, those of Jupyter)
would put control codes into files."""


class Stream:
    """A text stream that never raises: text that the underlying stream refuses is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=STAND_INS)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed stream
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
    """Prints texts verbatim, without markup, emoji codes or highlighting."""

    def __init__(self, file: IO[str] | None = None, *, width: int | None = None, terminal: bool | None = None) -> None:
        """Args:
        file: output; None: standard output.
        width: columns; None: those of COLUMNS or of the terminal, else 80.
        terminal: whether the file is a terminal; None: as reported by the file.
        """
        stream = _unfailing(sys.stdout if file is None else cast(TextIO, file))
        terminal = _is_terminal(stream) if terminal is None else terminal
        variables = {name: os.environ[name] for name in _TERMINAL_VARIABLES if name in os.environ}
        for name in ("COLUMNS", "LINES"):  # both can be 0 in a container
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
        """Whether a line can be overwritten, as on any but dumb terminals."""
        return self.is_terminal and not self.is_dumb_terminal

    def say(self, text: str, *, mark: tuple[str, str] = ("", "")) -> None:
        """Print a line without wrapping, so that paths and commands can be copied; ``mark`` is a prefix word and its
        colour."""
        self.print(Text.assemble(mark, self.printable(text)), soft_wrap=True)

    def update(self, text: str) -> None:
        """Overwrite the last updated line with ``text``, if the console ``redraws``."""
        self.print(f"{text:<{self.width - 1}}", end="\r", no_wrap=True)

    def wide(self, columns: int) -> Console:
        """Return a console for tables of ``columns`` columns: files need not fit a terminal."""
        return self if self.is_terminal else Console(self.file, width=max(self.width, columns), terminal=False)

    def printable(self, text: str) -> str:
        """Return ``text`` in characters of the console's encoding: ``+/-`` for ``±`` in ASCII."""
        try:
            return text.encode(self.encoding, STAND_INS).decode(self.encoding)
        except LookupError:  # unknown encoding
            return text.encode("ascii", STAND_INS).decode("ascii")

    def render_str(self, text: str, **options: Any) -> Text:
        """Replace characters before measuring; Rich calls this for every string, including cells of tables."""
        return super().render_str(self.printable(text), **options)


def guard_standard_streams() -> None:
    """Guard the standard streams by a ``Stream``, including output of argparse, warnings and tracebacks, until the
    process ends, because Python flushes them last."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed by the caller; the next opened file would become standard output
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)


def _unfailing(stream: TextIO | None) -> TextIO:
    if isinstance(stream, Stream):
        return cast(TextIO, stream)
    if stream is None:  # Python's own stream, closed by the caller
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
