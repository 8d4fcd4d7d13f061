"""Learning-rate and optimiser schedules as pure functions of the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

BETA1 = 0.9
BETA2 = 0.999
ADAM_EPSILON = 1e-8


def learning_rate(epoch: int, *, base: float, epochs: int, decay_start: float) -> float:
    """Return the learning rate after ``epoch`` completed of ``epochs`` (E) epochs: constant, then linear to zero.

    It is ``base`` while ``epoch <= D``, with ``D = decay_start * E``, then ``base * (E - epoch) / (E - D)``; from E on
    it is zero, or ``base`` if it never decays. Source: the original code's per-epoch decay (paper, section 4.1: 100
    epochs, then 50 of linear annealing).
    """
    start = decay_start * epochs
    if epoch <= start or start >= epochs:
        return base
    return base * max(epochs - epoch, 0) / (epochs - start)


def adam_scale(step: NDArray[np.int64], lr: Numbers) -> tuple[Numbers, Numbers]:
    """Return Adam's bias-corrected rates and the roots of its second correction for update numbers ``step`` >= 1.

    Kingma and Ba 2015, Algorithm 1: ``lr / (1 - beta1^t)`` and ``sqrt(1 - beta2^t)``, elementwise.
    """
    rate: Numbers = lr / (1.0 - BETA1**step)
    root: Numbers = np.sqrt(1.0 - BETA2**step)
    return rate, root
