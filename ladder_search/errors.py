"""Every error that a user can cause, under one root.

A message is one sentence that says the rule, the value that broke it and the remedy. The command line prints it
without a traceback and exits with code 2; anything else that escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import atexit
import difflib
import gc
import sys
from collections.abc import Callable, Iterable


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


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command line's body and return its exit code: a user's mistake is one sentence on stderr and code 2.

    The process ends soon after. Python would then look through all objects once more for what can be freed, a second
    and more where PyTorch and Ray are loaded; it leaves out what is frozen.
    """
    atexit.register(gc.freeze)
    try:
        return command() or 0
    except LadderSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept", file=sys.stderr)
        return 130
