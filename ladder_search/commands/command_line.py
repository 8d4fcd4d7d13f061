"""Shared parts of the commands: parser, types of options, common options, and exit codes."""

from __future__ import annotations

import argparse
import atexit
import gc
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ladder_search import environment
from ladder_search.console import guard_standard_streams
from ladder_search.errors import LadderSearchError, SettingError, UnknownNameError, command_line
from ladder_search.paths import expanded, expanded_address
from ladder_search.signals import Interruption, listening


class Parser(argparse.ArgumentParser):
    """Parser of one command's options that reports a mistake in one sentence, like other errors."""

    def __init__(self, command: str, description: str, **settings: Any) -> None:
        """Args:
        command: command of ``ladder-search``; "search" is ``search.py``, "" is ``ladder-search`` itself.
        """
        self._command = command
        prog = "search.py" if command == "search" else f"ladder-search {command}".strip()
        super().__init__(prog=prog, description=description, allow_abbrev=False, **settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an argument; its help shows the default, and must describe the behaviour if there is none."""
        if settings.get("default") not in (None, argparse.SUPPRESS, []):
            settings["help"] = f"{settings.get('help', '')} (default: %(default)s)"
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ")
        option, _, problem = text.partition(": ")
        choice = re.fullmatch(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", problem)
        if choice:
            raise UnknownNameError(option.lstrip("-").lower(), choice[1], re.findall(r"[\w-]+", choice[2]))
        if option == "unrecognized arguments" and problem.startswith("-"):
            options = re.findall(r"--[a-z-]+", self.format_usage())
            raise UnknownNameError("option", problem.split()[0].partition("=")[0], options)
        if problem.startswith(("must ", "may ")):
            raise SettingError(f"{option} {problem}")
        usage = command_line(self._command, help=True) if self._command else command_line("--help")
        raise SettingError(f"invalid command line: {text}; see `{usage}`.")


def number(kind: type[float] = int, *, least: float | None = 1, auto: bool = False) -> Callable[[str], Any]:
    """Return the type of an option for a number of type ``kind`` that is at least ``least``, or the word "auto"."""
    rule = ("a whole number" if kind is int else "a number") + " or auto" * auto

    def read(text: str) -> float | str:
        if auto and text == "auto":
            return text
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text!r}; correct it.") from None
        if least is not None and not value >= least:
            raise argparse.ArgumentTypeError(f"must be at least {least:g}, got {value}; give a larger number.")
        return value

    return read


def place(text: str, expand: Callable[[str, str], str] = expanded) -> str:
    """Convert an option's path, or name of a study or folder: ``~`` and variables are expanded."""
    try:
        return expand(text, "")
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from error


def address(text: str) -> str:
    """Convert an option's address: ``~`` and variables of a path in it are expanded."""
    return place(text, expanded_address)


def path(text: str) -> Path:
    """Convert an option's path: ``~`` and variables are expanded."""
    return Path(place(text))


def add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=path, default=Path("results"), metavar="FOLDER", help="folder of the study folders"
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    text = "Python file that registers families or studies; may be repeated"
    parser.add_argument("--plugin", type=path, action="append", default=[], metavar="FILE", help=text)


def add_output(parser: argparse.ArgumentParser, text: str, default: Path | None = None) -> None:
    parser.add_argument("-o", "--output", type=path, default=default, metavar="FOLDER", help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device of the networks")


def add_tracking(parser: argparse.ArgumentParser) -> None:
    text = "MLflow store (default: MLFLOW_TRACKING_URI, else the SQLite file in the root folder)"
    parser.add_argument("--tracking", type=address, metavar="URI", help=text)


def add_training(parser: argparse.ArgumentParser, *, epochs: str, seeds: int | None = 10) -> None:
    """Add the options of commands that train on fresh seeds; ``epochs`` is the help of ``--epochs``. Without ``seeds``,
    the default of ``--seeds`` is 5, and the parsed value shows whether the option was given."""
    text = "number of fresh seeds" if seeds else "number of fresh seeds (default: 5)"
    parser.add_argument("--seeds", type=number(), default=seeds, metavar="N", help=text)
    parser.add_argument("--epochs", type=number(), metavar="N", help=epochs)
    add_device(parser)
    add_root(parser)


def add_curve(parser: argparse.ArgumentParser) -> None:
    text = "also measure the test error every N epochs, for the curve (default: only at the end)"
    parser.add_argument("--curve", type=number(), metavar="N", help=text)


def run_command(command: Callable[[], int | None]) -> int:
    """Run the body of a command and return its exit code.

    User errors print one sentence to standard error and return 2; a signal returns 128 plus its number. At exit, Python
    scans all objects for garbage, which takes a second or more with PyTorch and Ray loaded; frozen objects are skipped.
    """
    environment.start_anew_unoptimised()
    atexit.register(gc.freeze)
    guard_standard_streams()
    with listening():
        try:
            with environment.ours():  # before the command imports libraries that read variables at import
                return command() or 0
        except LadderSearchError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as interruption:
            print(f"interrupted: {str(interruption) or 'what was finished is kept'}", file=sys.stderr)
            return 128 + (interruption.number if isinstance(interruption, Interruption) else signal.SIGINT)
