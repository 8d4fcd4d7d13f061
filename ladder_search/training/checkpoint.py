"""Checkpoints of members: safetensors and JSON, nothing that is executed.

A checkpoint folder contains ``tensors.safetensors``, with keys ``params/…``, ``first/…``, ``second/…`` and
``carried/…``, and ``member.json`` with the format, the step, the settings and the sha256 of the tensors. Noise and
batches need no state: they derive from (seed, step).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_file, read_json
from ladder_search.errors import CheckpointError
from ladder_search.training.pack import MemberState

FORMAT = "ladder-search member 1"
TENSORS = "tensors.safetensors"
DESCRIPTION = "member.json"

_GROUPS = ("params", "first", "second", "carried")
_REMEDY = "delete this checkpoint and use an older one, or train again"


def write_member(folder: Path, state: MemberState, settings: Mapping[str, Any]) -> None:
    """Write a member into ``folder``, the description last: after an ``OSError``, as of a full disk, there is none."""
    tensors = {
        f"{group}/{name}": value.cpu().contiguous()
        for group in _GROUPS
        for name, value in getattr(state, group).items()
    }
    packed = save(tensors)
    write_atomically(folder / TENSORS, packed)
    description = {
        "format": FORMAT,
        "step": state.step,
        "settings": dict(settings),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    text = json.dumps(description, indent=1).encode()
    write_atomically(folder / DESCRIPTION, text)


def member_digest(folder: Path) -> str:
    """Return a string that identifies all bits of a member; raise ``CheckpointError`` without a description."""
    description = _describe(folder)
    return f"{description.get('sha256')} at step {description.get('step')}"


def member_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a member from its description; raise ``CheckpointError`` without one."""
    settings = _describe(folder).get("settings")
    if not isinstance(settings, dict):
        raise CheckpointError(f"the checkpoint in {folder} must have settings, found {settings!r:.60}; {_REMEDY}.")
    return settings


def read_member(folder: Path) -> tuple[MemberState, dict[str, Any]]:
    """Return the member in ``folder`` and its settings; raise ``CheckpointError`` if it is incomplete or damaged."""
    description, remedy = _describe(folder), _REMEDY
    try:
        packed = read_file(folder / TENSORS, 1 << 35)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    digest = hashlib.sha256(packed).hexdigest()
    if digest != description.get("sha256"):
        raise CheckpointError(
            f"the tensors in {folder} must have sha256 {description.get('sha256')!s:.80}, found {digest}; {remedy}."
        )
    try:
        tensors = load(packed)
        step, settings = description["step"], description["settings"]
        if type(step) is not int or step < 0 or not isinstance(settings, dict):
            raise ValueError(f"its step must be a whole number and its settings a mapping, found {step!r:.60}")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint in {folder} cannot be read: {error}; {remedy}.") from error
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        if group not in groups:
            raise CheckpointError(f"the checkpoint in {folder} has an unknown tensor {key!r}; {remedy}.")
        groups[group][name] = value
    return MemberState(step=step, **groups), settings


def _describe(folder: Path) -> dict[str, Any]:
    try:
        description = read_json(folder / DESCRIPTION, 1 << 24)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    actual = description.get("format") if isinstance(description, dict) else None
    if actual != FORMAT:
        raise CheckpointError(f"checkpoints have the format {FORMAT!r}, {folder} has {actual!r:.80}; {_REMEDY}.")
    return dict(description)


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"a checkpoint needs a readable {DESCRIPTION} and {TENSORS}, in {folder} that failed: {error}; {_REMEDY}."
    )
