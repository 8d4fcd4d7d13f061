"""Costs and errors of classifiers, of images with one class or with several.

Legend: ``y`` are the classes of rows, (rows,), or, of images with k objects, k-hot rows, (rows, classes), with a one
for each different class.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def k_hot(y: Tensor, classes: int) -> Tensor:
    """Return classes (rows,) as one-hot rows, bool (rows, classes); k-hot rows stay as they are."""
    return y.unsqueeze(-1) == torch.arange(classes, device=y.device) if y.dim() == 1 else y


def shares(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return the target probabilities y / k of rows with k classes, (rows, classes) (Greff et al. 2016)."""
    target = k_hot(y, classes).to(dtype)
    return target / target.sum(-1, keepdim=True)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of rows of logits, (rows, classes), against y, or y / k; a scalar."""
    if y.dim() == 1:
        return functional.cross_entropy(logits, y)
    return functional.cross_entropy(logits, shares(y, logits.shape[-1], logits.dtype))


def wrong(probabilities: Tensor, y: Tensor) -> Tensor:
    """Return the error of each row, float64 in 0..1: the share of its k different classes that are not among the k most
    probable ones; of equally probable classes the first is taken."""
    target = k_hot(y, probabilities.shape[-1]) > 0
    count = target.sum(-1, keepdim=True)
    best_first = target.gather(-1, probabilities.argsort(dim=-1, descending=True, stable=True))
    among = torch.arange(probabilities.shape[-1], device=y.device) < count
    return 1.0 - (best_first & among).sum(-1).double() / count.squeeze(-1)
