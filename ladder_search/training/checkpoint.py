"""Checkpoints of members: safetensors and JSON, nothing that is executed.

A checkpoint folder contains ``tensors.safetensors``, with keys ``params/…``, ``first/…``, ``second/…`` and
``carried/…``, and ``member.json`` with the format, the step, the settings and the sha256 of the tensors. Noise and
batches need no state: they derive from (seed, step).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_file
from ladder_search.training.pack import MemberState

FORMAT = "ladder-search member 1"
TENSORS = "tensors.safetensors"
DESCRIPTION = "member.json"

_GROUPS = ("params", "first", "second", "carried")


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
    with _refused(folder):
        description = _describe(folder)
        return f"{description['sha256']} at step {description['step']}"


def member_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a member from its description; raise ``CheckpointError`` without one."""
    with _refused(folder):
        return _settings(_describe(folder))


def read_member(folder: Path) -> tuple[MemberState, dict[str, Any]]:
    """Return the member in ``folder`` and its settings; raise ``CheckpointError`` if it is incomplete or damaged."""
    with _refused(folder):
        description = _describe(folder)
        packed = read_file(folder / TENSORS, 1 << 35)
        digest = hashlib.sha256(packed).hexdigest()
        if digest != description["sha256"]:
            raise ValueError(f"tensors with sha256 {digest} instead of {description['sha256']!s:.80}")
        step = description["step"]
        if type(step) is not int or step < 0:
            raise ValueError(f"the step {step!r:.60}, which must be a whole number")
        groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
        try:
            tensors = load(packed)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        for key, value in tensors.items():
            group, _, name = key.partition("/")
            if group not in groups:
                raise ValueError(f"an unknown tensor {key!r}")
            groups[group][name] = value
        return MemberState(step=step, **groups), _settings(description)


def _refused(folder: Path) -> AbstractContextManager[None]:
    remedy = "delete this checkpoint and use an older one, or train again"
    return refused(folder, f"hold a checkpoint, with a readable {DESCRIPTION} and {TENSORS}", remedy)


def _describe(folder: Path) -> dict[str, Any]:
    return read_document(folder / DESCRIPTION, FORMAT, limit=1 << 24)


def _settings(description: Mapping[str, Any]) -> dict[str, Any]:
    settings = description["settings"]
    if not isinstance(settings, dict):
        raise ValueError(f"the settings {settings!r:.60}, which must be a mapping")
    return settings
