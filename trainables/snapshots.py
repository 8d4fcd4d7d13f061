"""Snapshots of members on the device, taken with their checkpoints and copied into the slots of other trials."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ladder_search.training.checkpoint import member_digest
from ladder_search.training.pack import MemberState


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A trial's state at a checkpoint."""

    key: str
    states: list[MemberState]


class Snapshots:
    """The states of the trials that wrote a host's latest checkpoints, the oldest dropped beyond the limit.

    In population based training a trial resumes from another trial's checkpoint. That trial has trained since, so its
    slot no longer holds the weights to copy. Snapshots are keyed by the members' digests: one is either identical to
    the files or not found.
    """

    def __init__(self, room: int) -> None:
        """Args: ``room``: number of snapshots; each uses the memory of a seated trial without its workspace."""
        self.room = room
        self._found: OrderedDict[tuple[str, ...], Snapshot] = OrderedDict()

    def keep(self, key: str, states: list[MemberState], folders: Sequence[Path]) -> None:
        """Store a trial whose members have just been written to ``folders``."""
        digests = tuple(map(member_digest, folders))
        self._found.pop(digests, None)
        self._found[digests] = Snapshot(key=key, states=states)
        while len(self._found) > self.room:
            self._found.popitem(last=False)

    def find(self, folders: Sequence[Path]) -> Snapshot | None:
        """Return the snapshot of the checkpoint in ``folders``, or raise ``CheckpointError`` without a description."""
        return self._found.get(tuple(map(member_digest, folders))) if self._found else None

    def clear(self) -> None:
        """Drop all snapshots to free their memory."""
        self._found.clear()
