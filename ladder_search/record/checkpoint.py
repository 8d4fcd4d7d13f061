"""Files of a trial's checkpoint beside its members: the search that wrote it, and the label draws that are complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_json
from ladder_search.errors import CheckpointError

CHECKPOINT = "trial.json"
"""Name of the mark's file in a checkpoint."""
CHECKPOINT_FORMAT = "ladder-search trial 1"


DRAWS = "draws.json"
"""Name of the file with the scores of complete label draws, if they are trained in turn."""


class ForeignCheckpointError(CheckpointError):
    """A checkpoint belongs to another search."""


def mark_checkpoint(folder: Path, search: str, key: str) -> None:
    """Write the id of the search and the key of the trial into a checkpoint. Raises ``OSError``."""
    text = json.dumps({"format": CHECKPOINT_FORMAT, "search": search, "key": key}).encode()
    write_atomically(folder / CHECKPOINT, text)


def write_draws(folder: Path, draw: int, complete: Sequence[Mapping[str, float]]) -> None:
    """Write the number of the draw of ``member-0``, from 0, and the scores of the complete draws. Raises
    ``OSError``."""
    write_atomically(folder / DRAWS, json.dumps({"draw": draw, "complete": list(complete)}).encode())


def read_draws(folder: Path) -> tuple[int, list[dict[str, float]]]:
    """Return what ``write_draws`` has written; draw 0 and no scores without the file. Raise ``CheckpointError`` if it
    is damaged."""
    with refused(
        folder / DRAWS, "hold the scores of label draws", "copy the checkpoint again or train the trial again"
    ):
        if not (folder / DRAWS).exists():
            return 0, []
        content = read_json(folder / DRAWS, 1 << 20)
        draw, complete = content["draw"], [dict(scores) for scores in content["complete"]]
        if type(draw) is not int or draw not in (len(complete) - 1, len(complete)):
            raise ValueError(f"draw {draw!r:.60} after {len(complete)} complete ones")
        return draw, complete


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
