"""Conversion of colour images for columns that read grey pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LUMINANCE = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue in the published preprocessing of street digits."""
_COLOUR_SIDE, _GREY_SIDE = 32, 28
COLOUR_PIXELS, GREY_PIXELS = 3 * _COLOUR_SIDE**2, _GREY_SIDE**2


def grey_of(x: Tensor) -> Tensor:
    """Return the luminance of colour images at 28 x 28: (..., 3 * 32 * 32), channels first -> (..., 784)."""
    images = x.reshape(-1, 3, _COLOUR_SIDE, _COLOUR_SIDE)
    weights = torch.tensor(LUMINANCE, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    grey = (images * weights).sum(1, keepdim=True)
    small = functional.interpolate(grey, size=(_GREY_SIDE, _GREY_SIDE), mode="bilinear", align_corners=False)
    return small.reshape(*x.shape[:-1], _GREY_SIDE * _GREY_SIDE)
