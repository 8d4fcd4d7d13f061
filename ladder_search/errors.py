"""All errors that a user can cause.

A message is one sentence with the rule, the invalid value and the remedy, in which ``command_line`` formats commands.
The command line prints it without a traceback and exits with code 2; other exceptions are bugs and keep their
traceback.
"""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path


class LadderSearchError(Exception):
    """Base class of all errors that a user can cause and fix."""


class SettingError(LadderSearchError, ValueError):
    """A setting has an invalid value."""


MOST_NAMES = 24
"""Valid names in a message, the most similar ones."""


class UnknownNameError(LadderSearchError, LookupError):
    """An unknown name; the message suggests the nearest valid name and lists at most ``MOST_NAMES`` of them.

    ``UnknownNameError("study", "mnist-10-full", ["mnist-100-full", "mnist-all-full"])`` reads
    ``unknown study 'mnist-10-full': did you mean 'mnist-100-full'? Known: mnist-100-full, mnist-all-full.``
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = nearest(name, self.known)
        hint = f": did you mean {near!r}?" if near else "."
        text = name if len(name) <= 100 else f"{name[:99]}…"
        shown, more = self.known, len(self.known) - MOST_NAMES
        if more > 0:
            shown = (*sorted(difflib.get_close_matches(text, self.known, n=MOST_NAMES, cutoff=0.0)), f"{more} more")
        super().__init__(f"unknown {kind} {text!r}{hint} Known: {', '.join(shown) or 'none'}.")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]:
        # Pickle from the arguments, as the default would pass the message.
        return type(self), (self.kind, self.name, self.known)


class DataError(LadderSearchError, RuntimeError):
    """A data set is missing, cannot be downloaded, or has the wrong digest."""


class CheckpointError(LadderSearchError, ValueError):
    """A checkpoint or bundle is missing, truncated, or does not fit the model."""


class PluginError(LadderSearchError, ImportError):
    """A plugin cannot be imported, breaks the contract of a family, registers a taken name, or is missing."""


class StudyFolderError(LadderSearchError, RuntimeError):
    """A study folder is in use, of another version, or not writable."""


class TrackingError(LadderSearchError, ConnectionError):
    """The tracking store cannot be reached or refuses the data."""


class StoreBusyError(TrackingError):
    """The tracking store works, but another process holds its lock for too long."""


class ResourceError(LadderSearchError, RuntimeError):
    """The machine or cluster lacks the resources that a search requests."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``; None if none is close.

    Case and a section that all names share are ignored: ``model.xyz`` is not close to ``model.abc``.
    """
    wanted, folded = name.casefold(), {n.casefold(): n for n in known}
    section = wanted.rpartition(".")[0] + "."
    shared = len(section) if all(n.startswith(section) for n in folded) else 0
    by_leaf = {n[shared:]: original for n, original in folded.items()}
    matches = difflib.get_close_matches(wanted[shared:], by_leaf, n=1, cutoff=0.5)
    return by_leaf[matches[0]] if matches else None


def command_line(command: str, *words: object, **options: object) -> str:
    """Return a command of this project, quoted for a shell.

    For example, ``command_line("export", "first", root=Path("my results"), top=3)`` is
    ``ladder-search export first --root 'my results' --top 3``.

    Args:
        command: of ``ladder-search``; ``search`` is ``python search.py``; ``mlflow``, ``pip`` and ``ray`` are those of
            this Python.
        words: positional arguments; paths inside the working directory become relative.
        options: name -> value; True is an option without a value. None, False and the default ``root`` are omitted.
    """
    line = [*_program(command), *map(_shown, words)]
    for name, value in options.items():
        usual = name == "root" and os.path.abspath(str(value)) == os.path.abspath("results")
        if value is None or value is False or usual:
            continue
        option, text = "--" + name.replace("_", "-"), _shown(value)
        line += [option] if value is True else [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(line)


def installation() -> str:
    """Return the command that installs missing pinned packages."""
    return command_line("pip", "install", "-c", _CHECKOUT / "constraints.txt", "-e", _CHECKOUT)


_CHECKOUT = Path(__file__).resolve().parents[1]


def _program(command: str) -> list[str]:
    """Return the start of a command: its name if the shell finds it in this environment, otherwise a path."""
    python = _found(Path(sys.executable))
    if command in ("mlflow", "pip"):
        return [python, "-m", command]
    if command == "search":
        started = Path(sys.argv[0])
        script = started if started.name == "search.py" and started.is_file() else _CHECKOUT / "search.py"
        return [python, _shown(script)]
    name, module = ("ray", "ray.scripts.scripts") if command == "ray" else ("ladder-search", "ladder_search.cli")
    script = Path(sys.executable).with_name(name)
    program = [_found(script)] if script.is_file() else [python, "-m", module]
    return program if command == "ray" else [*program, command]


def _found(program: Path) -> str:
    return program.name if shutil.which(program.name) == str(program) else _shown(program)


def _shown(word: object) -> str:
    if not isinstance(word, Path):
        return str(word)
    path, here = os.path.abspath(word), os.getcwd()
    text = os.path.relpath(path) if path == here or path.startswith(here.rstrip("/") + "/") else path
    return path if text[0] in "-~" else text  # these would be read as an option or a home folder
