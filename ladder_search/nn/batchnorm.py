"""Batch normalisation as plain functions of the batch: no running statistics, no affine part.

Source: Rasmus et al. 2015, section 3 and the original code; epsilon 1e-10, variance biased while training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# 1e-10, not the usual 1e-5: z_hat starts at zero, so the decoder's normalisation of u divides by about
# sqrt(epsilon) in the first steps and another epsilon is another start.
EPSILON = 1e-10


def batch_statistics(z_pre: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance over the rows of ``z_pre``.

    Args:
        z_pre: pre-activations, shape (rows, units).

    Returns:
        mean and variance, each of shape (units,).
    """
    mean = z_pre.mean(-2)
    return mean, (z_pre - mean.unsqueeze(-2)).square().mean(-2)


def normalise(z_pre: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return ``(z_pre - mean) / sqrt(variance + 1e-10)``; statistics have the shape of one row."""
    return (z_pre - mean.unsqueeze(-2)) * (variance.unsqueeze(-2) + EPSILON).rsqrt()


def batch_normalise(z_pre: Tensor) -> Tensor:
    """Normalise the rows of ``z_pre``, shape (rows, units), with their own statistics."""
    return normalise(z_pre, *batch_statistics(z_pre))


def normalise_groups(z_pre: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise consecutive groups of rows, each with its own statistics (labelled, unlabelled, clean, ...).

    Args:
        z_pre: pre-activations of all groups, shape (sum(rows), units).
        rows: number of rows of each group.

    Returns:
        the normalised rows, shape (sum(rows), units), and mean and variance of the **last** group, shape (units,).
    """
    if len(set(rows)) == 1:
        # Equal groups, the usual case: one operation for all instead of one per group, half the launches of a step.
        grouped = z_pre.reshape(len(rows), rows[0], z_pre.shape[-1])
        mean, variance = batch_statistics(grouped)
        return normalise(grouped, mean, variance).reshape(z_pre.shape), mean[-1], variance[-1]
    groups = torch.split(z_pre, list(rows), dim=-2)
    statistics = [batch_statistics(group) for group in groups]
    z = torch.cat([normalise(g, *s) for g, s in zip(groups, statistics, strict=True)], dim=-2)
    return z, *statistics[-1]
