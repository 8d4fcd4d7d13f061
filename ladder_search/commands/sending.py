"""How a command ends what it sends to the tracking store: nothing that the store does not take costs the command."""

from __future__ import annotations

from pathlib import Path

from ladder_search.console import Console
from ladder_search.tracking import SpoolTracker
from ladder_search.tracking.address import check_or_wait, redacted

AGAIN = "the same command sends it again"


def send_files(tracker: SpoolTracker, key: str, folder: Path) -> None:
    """Log the files of a folder, without its subfolders."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        tracker.log_artifact(key, path)


def say_if_busy(store: str) -> None:
    """Check a store; print a note where another process has it locked, for the results are sent at the end.

    Raises:
        TrackingError: the store cannot be used.
    """
    busy = check_or_wait(store)
    if busy is not None:
        Console().say(f"note: {busy}")


def close(tracker: SpoolTracker, store: str, console: Console) -> bool:
    """Send what is left, say what was not taken, and return whether everything was."""
    stored = tracker.close()
    for problem in tracker.problems():
        console.say(f"note: {problem}")
    if not stored:
        note = f"note: {redacted(store)} did not take everything; {AGAIN}."
        console.say(note)
    return stored
