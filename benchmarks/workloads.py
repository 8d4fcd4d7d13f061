"""The two ladder networks that the benchmarks train, on random pixels: speed does not depend on what they show.

Needs torch and numpy and nothing else that this project uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ladder_search.data.splits import make_split
from ladder_search.models import find_family
from ladder_search.models.ladder import LadderConfig
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig

WIDTHS = {
    "mnist": (784, 1000, 500, 250, 250, 250, 10),
    "digits": (64, 200, 100, 50, 50, 50, 10),
}
"""Size -> units of layers 0..L: the full ladder of the paper, and the one of the studies on digits."""

BUILD = find_family("ladder").build
FULL_SCALE = 255.0
_ROWS = {"mnist": 20_000, "digits": 1_297}
_CLASSES = 10


def member(size: str, seed: int = 1) -> MemberSpec:
    """A member of that size: 100 labels, 100 labelled and 100 unlabelled rows in a step."""
    rows = _ROWS[size]
    split = make_split(
        np.arange(rows) % _CLASSES, n_labelled=100, n_validation=rows // 5, n_classes=_CLASSES, seed=seed
    )
    return MemberSpec(model=LadderConfig(widths=WIDTHS[size]), training=TrainingConfig(), split=split, seed=seed)


def training_data(size: str, device: torch.device) -> TrainingData:
    """Random images on the device."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (_ROWS[size], WIDTHS[size][0]), dtype=np.uint8)
    classes = torch.from_numpy(np.arange(_ROWS[size]) % _CLASSES)
    return TrainingData(x=torch.from_numpy(pixels).to(device), y=classes.to(device), full_scale=FULL_SCALE)


def full_pack(size: str, data: TrainingData, slots: int, *, compiled: bool, precision: str = "float32") -> Pack:
    """A pack whose slots are all taken, by members of seeds 1..slots on one split."""
    first = member(size)
    first = replace(first, training=replace(first.training, precision=precision))  # type: ignore[arg-type]
    pack = Pack(first, BUILD, data, slots=slots, compiled=compiled)
    for seed in range(1, slots + 1):
        pack.join(replace(first, seed=seed))
    return pack


def runner(pack: Pack, steps: int) -> Callable[[], object]:
    """What a trial does between two evaluations: batches, noise, steps, report."""
    return lambda: pack.run(steps)
