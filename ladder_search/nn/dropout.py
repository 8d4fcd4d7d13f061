"""Dropout whose rate is a tensor and whose masks are given, as every draw of a step is."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(x: Tensor, normals: Tensor, rate: Tensor) -> Tensor:
    """Return ``x`` with a share of its entries zero and the others larger, so that the mean stays (inverted dropout).

    Args:
        x: of any shape.
        normals: standard normal draws of that shape; an entry is kept where its draw is below the quantile of 1 - rate.
        rate: probability of zero, a scalar, 0 <= rate < 1.
    """
    kept = 1.0 - rate
    return torch.where(normals < torch.special.ndtri(kept), x / kept, 0.0)
