"""Dropout with the rate as a tensor, and masks derived from given draws."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(x: Tensor, normals: Tensor, rate: Tensor) -> Tensor:
    """Return ``x`` with inverted dropout of a scalar ``rate``, 0 <= rate < 1.

    An entry is kept if its standard normal draw is below the quantile of 1 - rate.
    """
    keep = 1.0 - rate
    return torch.where(normals < torch.special.ndtri(keep), x / keep, 0.0)
