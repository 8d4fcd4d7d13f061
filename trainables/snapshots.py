"""States of members that stay on the device when their checkpoint is written, to be copied into the slots of others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ladder_search.training.checkpoint import member_digest
from ladder_search.training.pack import MemberState


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A trial as it was when it wrote a checkpoint."""

    key: str
    """Of the trial."""
    states: list[MemberState]
    """One for each of its draws."""


class Snapshots:
    """The trials that wrote the last checkpoints of a host, as they were then.

    In population based training Ray tells a trial from which checkpoint it is to go on, and the trial that wrote it has
    trained on since: its slot is no more what is to be copied. A checkpoint's description names the bits of its
    members, so that a snapshot is either the same as the files or is not found.

    States::

        snapshots.keep("t0003", states, folders)  -> the oldest is dropped when there are too many
        snapshots.find(folders)                   -> that of "t0003"; None: the files must be read
    """

    def __init__(self, room: int) -> None:
        """Args: ``room`` for so many trials, each of which takes as much memory as a seated one, without its work."""
        self.room = room
        self._found: OrderedDict[tuple[str, ...], Snapshot] = OrderedDict()

    def keep(self, key: str, states: list[MemberState], folders: Sequence[Path]) -> None:
        """Remember a trial whose members have just been written to ``folders``."""
        digests = tuple(map(member_digest, folders))
        self._found.pop(digests, None)
        self._found[digests] = Snapshot(key=key, states=states)
        while len(self._found) > self.room:
            self._found.popitem(last=False)

    def find(self, folders: Sequence[Path]) -> Snapshot | None:
        """Return the trial that is described in ``folders``.

        Raises:
            CheckpointError: a folder holds no description of a member.
        """
        return self._found.get(tuple(map(member_digest, folders))) if self._found else None

    def clear(self) -> None:
        """Give the memory back."""
        self._found.clear()
