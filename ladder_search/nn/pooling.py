"""Pooling of feature maps for convolutional ladders (Rasmus et al. 2015, Conv-Small and Conv-Large)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def max_pool(h: Tensor, size: int) -> Tensor:
    """Return the maxima of non-overlapping ``size`` x ``size`` windows, including windows cut by the border.

    As in the original code, a 15 x 15 map pooled by 2 becomes 8 x 8; frameworks drop the rest by default and return
    7 x 7, which results in another network.

    Args:
        h: activations, shape (rows, channels, height, width).

    Returns:
        shape (rows, channels, ceil(height / size), ceil(width / size)).
    """
    return functional.max_pool2d(h, size, ceil_mode=True)
