"""Pooling of feature maps for convolutional ladders (Rasmus et al. 2015, Conv-Small and Conv-Large)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def max_pool(h: Tensor, size: int) -> Tensor:
    """Return the maxima of non-overlapping ``size`` x ``size`` windows of h (rows, channels, height, width).

    As in the original code, windows cut by the border count: 15 x 15 pooled by 2 becomes 8 x 8. Frameworks drop them by
    default and return 7 x 7, which results in another network.
    """
    return functional.max_pool2d(h, size, ceil_mode=True)
