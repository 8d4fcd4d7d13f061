"""Dropout with the rate as a tensor, and masks derived from given draws."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(x: Tensor, normals: Tensor, rate: Tensor) -> Tensor:
    """Return ``x`` with inverted dropout: entries are zero with probability ``rate``, others scaled to keep the mean.

    Args:
        x: of any shape.
        normals: standard normal draws of that shape; an entry is kept if its draw is below the quantile of 1 - rate.
        rate: probability of zero, a scalar, 0 <= rate < 1.
    """
    keep = 1.0 - rate
    return torch.where(normals < torch.special.ndtri(keep), x / keep, 0.0)
