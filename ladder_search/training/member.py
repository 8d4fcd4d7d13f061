"""One member of a pack: what it trains, and its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.splits import Split
from ladder_search.nn.protocol import ModelConfig
from ladder_search.training.schedules import learning_rate
from ladder_search.training.settings import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpec:
    """One member: what it trains, on which rows, from which seed."""

    model: ModelConfig
    training: TrainingConfig
    split: Split
    seed: int
    """Seed of weights, noise and batch order; the label draw is in ``split``."""
    data: str = ""
    """Names what was made of the data set for it; a pack holds one data set, made in one way."""
    lengths: NDArray[np.int64] | None = field(default=None, compare=False)
    """Steps of each piece of music that is trained on; None: examples are rows."""
    stages: tuple[object, ...] = ()
    """Signatures of the networks of earlier stages."""
    taken_over: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    """Values from networks of an earlier stage by their names in the network's state: initial ones of parameters, and
    the constants of source columns (``nn.protocol.SOURCES``)."""

    def signature(self) -> tuple[object, ...]:
        """What members of one pack must share."""
        training, split = self.training, self.split
        sizes = (len(split.labelled), len(split.unlabelled), len(split.validation))
        batches = (training.labelled_batch, training.unlabelled_batch, training.dtype, training.precision)
        windows = () if self.lengths is None else (training.window,)
        clipping = () if training.clip_norm is None else ("clipping",)
        made = (self.data,) if self.data else ()
        return (
            type(self.model).__name__,
            *self.model.signature(),
            *sizes,
            *batches,
            *windows,
            *clipping,
            *made,
            *self.stages,
        )

    @property
    def labelled_rows(self) -> int:
        """Labelled rows of a step."""
        if self.lengths is not None:
            return self.training.labelled_batch  # each plays piece after piece
        return min(self.training.labelled_batch, len(self.split.labelled))

    @property
    def unlabelled_rows(self) -> int:
        """Unlabelled rows of a step; 0 where the network reads none."""
        if not self.model.reads_unlabelled:
            return 0
        return min(self.training.unlabelled_batch, len(self.split.unlabelled))

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches in one pass over the unlabelled set, or over all windows of music."""
        if self.lengths is not None:
            windows = -(-self.lengths // self.training.window)
            return -(-int(windows.sum()) // self.training.labelled_batch)
        return len(self.split.unlabelled) // min(self.training.unlabelled_batch, len(self.split.unlabelled))

    @property
    def flops(self) -> float:
        """Floating-point operations of one step's matrix products."""
        if self.lengths is not None:
            return self.model.flops(self.labelled_rows * self.training.window, 0)
        return self.model.flops(self.labelled_rows, self.unlabelled_rows)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.steps_per_epoch * self.training.epochs


class Clock:
    """Where a member stands, and what its schedules say."""

    def __init__(self, spec: MemberSpec) -> None:
        self.spec = spec
        self.step = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        training = self.spec.training
        epoch = min(step // self.spec.steps_per_epoch, training.epochs - 1)
        return learning_rate(epoch, base=training.lr, epochs=training.epochs, decay_start=training.decay_start)

    def rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """``rate`` of consecutive steps."""
        length = self.spec.steps_per_epoch
        epochs = steps // length
        of_epoch = [self.rate(epoch * length) for epoch in range(epochs[0], epochs[-1] + 1)]
        found: NDArray[np.float64] = np.array(of_epoch)[epochs - epochs[0]]
        return found

    def progress(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the whole run that is done before each of ``steps``, 1 past its end."""
        found: NDArray[np.float64] = np.minimum(steps / self.spec.total_steps, 1.0)
        return found
