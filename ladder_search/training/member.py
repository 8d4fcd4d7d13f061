"""The specification of a member of a pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.scaling import Scaling
from ladder_search.data.splits import Split
from ladder_search.nn.protocol import ModelConfig
from ladder_search.training.settings import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpec:
    """One member: model, training settings, rows and seed."""

    model: ModelConfig
    training: TrainingConfig
    split: Split
    """Rows of the feed; those of scaling i of several are offset by i times the rows of the data."""
    seed: int
    """Seed of weights, noise and batch order; the label draw is in ``split``."""
    data: str = ""
    """Name of the preparation of the data set; all members of a pack share one prepared data set."""
    scalings: tuple[Scaling, ...] = field(default=(), compare=False)
    """Scalings of the numbers for each label draw, which ``data`` names; one if all draws train on the same rows."""
    classes: NDArray[np.int64] | None = field(default=None, compare=False)
    """Classes of the labelled rows if batches are balanced, [labelled]; None: batches are drawn as the rows are."""
    measures: tuple[str, ...] = ()
    """What a classifier is judged by, names in ``metrics``; empty: the ``measures`` of its network."""
    lengths: NDArray[np.int64] | None = field(default=None, compare=False)
    """Steps of each training piece of music; None if examples are rows."""
    stages: tuple[object, ...] = ()
    """Signatures of the earlier stages' networks."""
    taken_over: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    """Tensors from an earlier stage by name in the network's state: initial parameters, and the constants of source
    columns (``nn.protocol.SOURCES``)."""

    def signature(self) -> tuple[object, ...]:
        """Return the values that all members of a pack share."""
        training, rows = self.training, self.split.sizes
        sizes = (rows.labelled, rows.unlabelled, rows.validation, *(() if rows.equal else ("unequal folds",)))
        batches = (training.labelled_batch, training.unlabelled_batch, training.dtype, training.precision)
        windows = () if self.lengths is None else (training.window,)
        clipping = () if training.clip_norm is None else ("clipping",)
        preparation = (self.data,) if self.data else ()
        return (
            type(self.model).__name__,
            *self.model.signature(),
            *sizes,
            *batches,
            *windows,
            *clipping,
            *preparation,
            *(() if self.classes is None else ("balanced",)),
            *(("judged by", *self.measures) if self.measures else ()),
            *self.stages,
        )

    @property
    def labelled_rows(self) -> int:
        if self.lengths is not None:
            return self.training.labelled_batch  # each row plays one piece after another
        return min(self.training.labelled_batch, self.split.sizes.labelled)

    @property
    def unlabelled_rows(self) -> int:
        """Unlabelled rows of a step; 0 if the network reads none."""
        if not self.model.reads_unlabelled:
            return 0
        return min(self.training.unlabelled_batch, self.split.sizes.unlabelled)

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches in one pass over the unlabelled set, or over all windows of music."""
        if self.lengths is not None:
            windows = -(-self.lengths // self.training.window)
            return -(-int(windows.sum()) // self.training.labelled_batch)
        unlabelled = self.split.sizes.unlabelled
        return unlabelled // min(self.training.unlabelled_batch, unlabelled)

    @property
    def flops(self) -> float:
        if self.lengths is not None:
            return self.model.flops(self.labelled_rows * self.training.window, 0)
        return self.model.flops(self.labelled_rows, self.unlabelled_rows)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.training.epochs
