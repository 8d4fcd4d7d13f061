"""Mark in a trial's checkpoint with the search that wrote it."""

from __future__ import annotations

import json
from pathlib import Path

from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.files import write_atomically
from ladder_search.errors import CheckpointError

CHECKPOINT = "trial.json"
"""Name of the mark's file in a checkpoint."""
CHECKPOINT_FORMAT = "ladder-search trial 1"


class ForeignCheckpointError(CheckpointError):
    """A checkpoint belongs to another search."""


def mark_checkpoint(folder: Path, search: str, key: str) -> None:
    """Write the id of the search and the key of the trial into a checkpoint. Raises ``OSError``."""
    text = json.dumps({"format": CHECKPOINT_FORMAT, "search": search, "key": key}).encode()
    write_atomically(folder / CHECKPOINT, text)


def check_checkpoint(folder: Path, search: str | None, where: str = "") -> None:
    """Raise ``CheckpointError`` if the checkpoint in ``folder`` belongs to another search than this id.

    Checkpoints of earlier versions have no mark. Args: ``where`` names the folder in messages; "": its path.
    """
    rule = f"say in {CHECKPOINT} whose checkpoint it is"
    with refused(where or folder, rule, "copy it again or train the trial again"):
        if not (folder / CHECKPOINT).exists():
            return
        mark = read_document(folder / CHECKPOINT, CHECKPOINT_FORMAT, limit=1 << 16)
    if mark.get("search") != search:
        raise ForeignCheckpointError(
            f"a search uses its own checkpoints and {where or folder} is of another one, which has the same name and "
            "--storage; start a new search with another --name."
        )
