"""The cores and the share of a GPU required by a trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ladder_search.nn.protocol import ModelConfig, Stacking
from ladder_search.training.settings import TrainingConfig

LARGE_STEP = 128e9
"""Floating-point operations, of independent products, at which one step occupies a whole GPU."""
SMALLEST_SHARE = 0.125


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Resources of a trial, or of a pack of trials."""

    cpus: float = 1.0
    gpus: float = 1.0
    """Share of a GPU, if there are any."""


def request_of(model: ModelConfig, training: TrainingConfig, stacking: Stacking) -> Request:
    """Return the requirements of a trial of a family with this ``stacking``: one core, and a GPU or a share of it.

    Stacked trials share a whole GPU as one program, see ``--slots``. Others get a share of 1/8 to 1, a power of two in
    proportion to the operations of one step; this rule is ours and was not measured.
    """
    if stacking != "none":
        return Request()
    flops = model.flops(training.labelled_batch, training.unlabelled_batch) / model.in_turn
    share = 2.0 ** round(math.log2(max(flops, 1.0) / LARGE_STEP))
    return Request(gpus=min(1.0, max(SMALLEST_SHARE, share)))
