"""Pooling of feature maps, for the convolutional ladders (Rasmus et al. 2015, Conv-Small and Conv-Large)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def max_pool(h: Tensor, size: int) -> Tensor:
    """Return the maxima of ``size`` by ``size`` windows that do not overlap; windows cut by the border count.

    A map of 15 by 15 pooled by 2 gives 8 by 8, as the original code's pooling did; frameworks drop the rest by default
    and give 7, which is another network from there on.

    Args:
        h: activations, shape (rows, channels, height, width).

    Returns:
        shape (rows, channels, ceil(height / size), ceil(width / size)).
    """
    return functional.max_pool2d(h, size, ceil_mode=True)
