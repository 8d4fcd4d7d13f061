"""Measures of a classifier: error, balanced error and log-loss, from sums over rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ladder_search.metrics import BALANCED_ERROR, CLASS_MEASURES, ERROR, LOG_LOSS


def class_sums(probabilities: Tensor, y: Tensor) -> Tensor:
    """Return the wrong rows of each class, the rows of each class, and the sum of the log-losses: float64 (2 C + 1,).

    Probabilities are limited to eps .. 1 - eps with the precision's eps, as in scikit-learn's ``log_loss``, so that a
    certain and wrong network has a finite loss.

    Args:
        probabilities: (rows, C)
        y: classes, (rows,), -1 for rows that are not counted.
    """
    classes = torch.arange(probabilities.shape[-1], device=y.device)
    of_class = y.unsqueeze(-1) == classes
    wrong = of_class & (probabilities.argmax(-1) != y).unsqueeze(-1)
    eps = torch.finfo(probabilities.dtype).eps
    losses = torch.where(of_class, -probabilities.double().clamp(eps, 1.0 - eps).log(), 0.0)
    return torch.cat([wrong.sum(0).double(), of_class.sum(0).double(), losses.sum().unsqueeze(0)])


def class_measures(sums: Tensor, names: Sequence[str]) -> Tensor:
    """Return the measures ``names`` of K members, (K, len(names)) float64.

    Balanced error is the mean of the classes' errors, over classes with rows (scikit-learn's
    ``1 - balanced_accuracy_score``); log-loss is the mean over rows.

    Args:
        sums: ``class_sums``, followed by sums over rows of those ``names`` that are not of ``CLASS_MEASURES``.
    """
    further = [name for name in names if name not in CLASS_MEASURES]
    classes = (sums.shape[-1] - 1 - len(further)) // 2
    wrong, rows, rest = torch.split(sums, [classes, classes, 1 + len(further)], dim=-1)
    total, present = rows.sum(-1), (rows > 0).sum(-1)
    values = {
        ERROR.name: wrong.sum(-1) / total,
        BALANCED_ERROR.name: (wrong / rows.clamp(min=1)).sum(-1) / present,
        LOG_LOSS.name: rest[..., 0] / total,
    }
    values |= {name: rest[..., 1 + place] / total for place, name in enumerate(further)}
    return torch.stack([values[name] for name in names], dim=-1)
