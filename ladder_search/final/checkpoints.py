"""Checkpoints of a final training, from which a later call continues.

Below the result's folder::

    lock                            held while a process writes here
    progress/progress.json          epoch, diverged seeds, history, and the folder of the matching members
    progress/epoch-0012/seed-1001/  one member, see ``training.checkpoint``
    progress/epoch-0012/best-1001/  the same member at its best epoch, if an epoch is selected
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ladder_search.bundles.members import read_fitting
from ladder_search.config import as_mapping, build
from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.final.folder import PROGRESS
from ladder_search.training.pack import MemberState
from ladder_search.trial import TrialSpec

FORMAT = "ladder-search progress 1"

_FILE = "progress.json"


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """State of a training without its tensors."""

    settings_digest: str
    compiled: bool | None = None
    """Whether the steps are compiled; None before the start and for checkpoints of older versions."""
    epoch: int = 0
    """Epochs completed by every seed that has not diverged."""
    seconds: float = 0.0
    diverged: dict[str, int] = field(default_factory=dict)
    """Seed -> the epoch in which it diverged; keys are strings, as in JSON."""
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seed -> its best epoch so far and the validation error there, if an epoch is selected."""
    histories: dict[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)


def write_progress(
    folder: Path,
    progress: TrainingState,
    states: Mapping[int, MemberState],
    spec: TrialSpec,
    best: Mapping[int, MemberState] | None = None,
) -> None:
    """Write a checkpoint of every seed, and of its best epoch if one is selected; readers see the previous one until it
    is complete. Raise ``StudyFolderError`` if the folder cannot be written or the disk is full."""
    from ladder_search.training.checkpoint import write_member  # needs safetensors

    place = folder / PROGRESS
    members = place / _members(progress.epoch)
    text = json.dumps({"format": FORMAT, **as_mapping(progress)}, allow_nan=False)
    try:
        for kind, members_of_kind in (("seed", states), ("best", best or {})):
            for seed, state in members_of_kind.items():
                settings = {**spec.as_mapping(), "seed": seed, "label_seed": seed}
                write_member(members / f"{kind}-{seed}", state, settings)
        write_atomically(place / _FILE, text.encode())
        for old in place.glob("epoch-*"):
            if old.name != members.name:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(members, ignore_errors=True)  # an incomplete checkpoint is useless
        raise unwritable(folder, error) from error


def read_progress(folder: Path, settings_digest: str) -> TrainingState:
    """Return the state of the training in ``folder``, or a new state if there is none.

    Raises:
        StudyFolderError: the folder belongs to another training.
        CheckpointError: the file is damaged.
    """
    path = folder / PROGRESS / _FILE
    if not path.exists():
        return TrainingState(settings_digest=settings_digest)
    with refused(path, "say how far a training has come", f"delete {path.parent} to start anew"):
        state = read_document(path, FORMAT)
        del state["format"]
        progress = build(TrainingState, state)
    check_same(folder, progress.settings_digest, settings_digest)
    return progress


def read_members(
    folder: Path, progress: TrainingState, kind: Literal["seed", "best"], seeds: list[int], spec: TrialSpec
) -> dict[int, MemberState]:
    """Return the members of ``seeds`` at ``progress``, or at their best epochs; raise ``CheckpointError`` if one is
    missing, damaged, or of another network."""
    place = folder / PROGRESS / _members(progress.epoch)
    return {seed: read_fitting(place / f"{kind}-{seed}", spec) for seed in seeds}


def check_step(folder: Path, states: Mapping[int, MemberState], step: int) -> None:
    """Raise ``CheckpointError`` unless all members have made ``step`` updates."""
    for seed, state in states.items():
        if state.step != step:
            raise CheckpointError(
                f"the checkpoint of seed {seed} in {folder / PROGRESS} must be at step {step}, found {state.step}; "
                f"delete {folder / PROGRESS} to start anew."
            )


def check_same(folder: Path, found: str, expected: str) -> None:
    """Raise ``StudyFolderError`` unless both digests of settings are equal."""
    if found != expected:
        raise StudyFolderError(
            f"{folder} was started with different settings, seeds, data or kind of device (digest {found[:12]}, now "
            f"{expected[:12]}); use the same ones or another folder."
        )


def _members(epoch: int) -> str:
    return f"epoch-{epoch:04d}"
