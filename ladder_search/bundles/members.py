"""Members on disk, checked against the configuration of the pack that loads them."""

from __future__ import annotations

from pathlib import Path

import torch

from ladder_search.errors import CheckpointError
from ladder_search.training.pack import MemberState, parted
from ladder_search.trial import TrialSpec


def read_fitting(folder: Path, spec: TrialSpec) -> MemberState:
    """Return the member in ``folder`` with tensors that fit the network of ``spec``; raise ``CheckpointError`` if the
    member is missing, incomplete or of another configuration."""
    # Imported here, because it needs safetensors, which a final training without a folder does not.
    from ladder_search.training.checkpoint import read_member

    state, _ = read_member(folder)
    with torch.device("meta"):
        needed = {name: tuple(value.shape) for name, value in parted(spec.empty_network())[0].items()}
    for group in (state.params, state.first, state.second):
        shapes = {name: tuple(value.shape) for name, value in group.items()}
        for name in sorted(needed.keys() | shapes.keys()):
            if needed.get(name) != shapes.get(name):
                raise CheckpointError(
                    f"the checkpoint {folder} must fit the trial's settings, where {name} has shape "
                    f"{needed.get(name, 'none')}, found {shapes.get(name, 'none')}; use the checkpoint of this trial."
                )
    return state
