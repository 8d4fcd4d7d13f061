"""Settings of a training run, except those of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ladder_search.config import in_range
from ladder_search.errors import SettingError

Precision = Literal["float32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Length and optimiser of a training run; the defaults are those of the ladder paper for MNIST."""

    epochs: int = 150
    """Length E of the schedule; an epoch is one pass over the unlabelled set."""
    lr: float = 0.002
    """Adam's learning rate before the decay."""
    decay_start: float = 0.67
    """Fraction of the epochs after which the rate falls linearly to zero; 1 never decays."""
    labelled_batch: int = 100
    """Labelled rows of a step; fewer if the data set has fewer."""
    unlabelled_batch: int = 100
    """Unlabelled rows of a step."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters, statistics and products."""
    precision: Precision = "float32"
    """Precision of a step's matrix products and convolutions; float32 is that of dtype. Unverified against the papers.

    bf16 rounds factors and results of products to bfloat16 and changes nothing else; evaluations are unaffected. tf32
    rounds factors to TensorFloat-32 on a CUDA device; on a CPU it is float32.
    """

    window: int = 64
    """Steps of a piece of music per window; gradients are truncated there, states are carried on."""
    clip_norm: float | None = None
    """Maximum norm of the gradient over all parameters; null disables clipping."""

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not 0.0 < self.clip_norm < math.inf:
            raise SettingError(
                f"training.clip_norm must be above 0 and finite, or null, got {self.clip_norm}; 5 is usual."
            )
        for name in ("epochs", "labelled_batch", "unlabelled_batch", "window"):
            value = getattr(self, name)
            if value < 1:
                raise SettingError(f"training.{name} must be at least 1, got {value}; give a positive whole number.")
            if value > 10**9:  # counts of updates and rows are 64-bit integers on the device
                raise SettingError(f"training.{name} must be at most 1000000000, got {value!r:.20}; give less.")
        if self.dtype == "float64" and self.precision != "float32":
            raise SettingError(
                f"training.precision must be float32 where training.dtype is float64, got {self.precision}; "
                "leave one of the two at its default."
            )
        in_range("training.lr", self.lr, 0.0, 1.0)
        in_range("training.decay_start", self.decay_start, 0.0, 1.0)
