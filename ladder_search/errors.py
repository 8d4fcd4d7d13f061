"""Every error that a user can cause, under one root.

A message is one sentence that says the rule, the value that broke it and the remedy. The command line prints it
without a traceback and exits with code 2; anything else that escapes is a defect of ours and keeps its traceback. A
remedy that is a command is made by ``command_line``.
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
    """Root of all errors that a user can cause and mend."""


class SettingError(LadderSearchError, ValueError):
    """A setting has a value that its rule does not allow."""


class UnknownNameError(LadderSearchError, LookupError):
    """A name that no table knows; the message lists the valid names and suggests the nearest.

    Shown: ``UnknownNameError("study", "mnist-10-full", ["mnist-100-full", "mnist-all-full"])`` reads
    ``unknown study 'mnist-10-full': did you mean 'mnist-100-full'? Known: mnist-100-full, mnist-all-full.``
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = nearest(name, self.known)
        hint = f"did you mean {near!r}? " if near else ""
        shown = name if len(name) <= 100 else f"{name[:99]}…"
        super().__init__(f"unknown {kind} {shown!r}: {hint}Known: {', '.join(self.known) or 'none'}.")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]:
        # An exception is rebuilt from its message by default; this one crosses process boundaries as its arguments.
        return type(self), (self.kind, self.name, self.known)


class DataError(LadderSearchError, RuntimeError):
    """A data set is absent, cannot be fetched, or is not what its digest says."""


class CheckpointError(LadderSearchError, ValueError):
    """A checkpoint or bundle is missing, cut short, or does not fit the model it is loaded into."""


class StudyFolderError(LadderSearchError, RuntimeError):
    """A study folder is in use, of another version, or cannot be written."""


class TrackingError(LadderSearchError, ConnectionError):
    """The tracking store cannot be reached or refuses what it is sent."""


class StoreBusyError(TrackingError):
    """The tracking store works, but another process has had it locked for too long."""


class ResourceError(LadderSearchError, RuntimeError):
    """The machine or cluster lacks what a search asks for."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``, or None when nothing is close enough to be meant.

    Case is ignored, and so is the section that all names share: ``model.xyz`` is not close to ``model.abc``.
    """
    wanted, folded = name.casefold(), {n.casefold(): n for n in known}
    section = wanted.rpartition(".")[0] + "."
    shared = len(section) if all(n.startswith(section) for n in folded) else 0
    by_leaf = {n[shared:]: original for n, original in folded.items()}
    found = difflib.get_close_matches(wanted[shared:], by_leaf, n=1, cutoff=0.5)
    return by_leaf[found[0]] if found else None


def command_line(command: str, *words: object, **options: object) -> str:
    """Return a command of this project, quoted for a shell: it does what it says where it is pasted.

    ``command_line("export", "first", root=Path("my results"), top=3)`` is
    ``ladder-search export first --root 'my results' --top 3``.

    Args:
        command: of ``ladder-search``; ``search`` is ``python search.py``; ``mlflow``, ``pip`` and ``ray`` are those of
            this Python.
        words: what follows it; a path is written relative to the working directory where it lies inside.
        options: name -> value; True is an option without a value. None and False are left out, and so is ``root`` where
            it is the usual one.
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
    """Return the command that installs what is missing of the pinned packages."""
    return command_line("pip", "install", "-c", _CHECKOUT / "constraints.txt", "-e", _CHECKOUT)


_CHECKOUT = Path(__file__).resolve().parents[1]


def _program(command: str) -> list[str]:
    """The words that start a command: a name where the shell finds this environment's by it, else a path."""
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
    return path if text[0] in "-~" else text  # those would be an option and a home
