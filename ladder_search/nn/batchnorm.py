"""Batch normalisation as functions of the batch, without running statistics or affine parameters.

Source: Rasmus et al. 2015, section 3 and the original code; epsilon is 1e-10, the variance is biased in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ladder_search.nn.closed_form import ClosedForm, computed_once

# 1e-10 instead of the usual 1e-5: z_hat starts at zero, so in the first steps the decoder divides u by about
# sqrt(epsilon), and another epsilon would change the start.
EPSILON = 1e-10


def batch_statistics(z_pre: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance over the rows of ``z_pre``, shape (rows, units), each of shape (units,)."""
    mean = z_pre.mean(-2)
    return mean, (z_pre - mean.unsqueeze(-2)).square().mean(-2)


def normalise(z_pre: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return ``(z_pre - mean) / sqrt(variance + 1e-10)``; statistics have the shape of one row."""
    return scaled(z_pre, mean, (variance + EPSILON).rsqrt())


class _BatchNormalise(ClosedForm):
    """Normalises groups of rows (groups, rows, units); also returns mean and scale of the last group, (units,)."""

    @staticmethod
    def forward(z_pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean = z_pre.mean(-2, keepdim=True)
        variance = (z_pre - mean).square().mean(-2, keepdim=True)
        mean, scale = computed_once(mean, (variance + EPSILON).rsqrt())
        return (z_pre - mean) * scale, mean[-1, 0], scale[-1, 0], scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        z, _, _, scale = output
        ctx.mark_non_differentiable(scale)
        ctx.save_for_backward(z, scale)

    @staticmethod
    def backward(ctx: Any, dz: Tensor, d_mean: Tensor, d_scale: Tensor, _: Tensor) -> Tensor:
        z: Tensor = ctx.saved_tensors[0]
        scale: Tensor = ctx.saved_tensors[1]
        groups, rows = z.shape[:2]
        last = groups - 1
        shift = -scale * dz.mean(-2, keepdim=True)
        slope = -scale * (dz * z).mean(-2, keepdim=True)
        # Mean and scale belong to the last group; the scale's gradient is -z scale^2 / rows for every row.
        shift = torch.cat([shift[:last], shift[last:] + d_mean / rows])
        slope = torch.cat([slope[:last], slope[last:] - d_scale * scale[last:].square() / rows])
        return scale * dz + z * slope + shift


def batch_normalise(z_pre: Tensor) -> Tensor:
    """Normalise the rows of ``z_pre``, shape (rows, units), with their own statistics."""
    z: Tensor = _BatchNormalise.of(z_pre.unsqueeze(0))[0]
    return z.squeeze(0)


def scaled(z_pre: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return ``(z_pre - mean) * scale``, with the statistics of a group of rows; see ``normalise_groups``."""
    return (z_pre - mean.unsqueeze(-2)) * scale.unsqueeze(-2)


def normalise_groups(z_pre: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise consecutive groups of rows, each with its own statistics (labelled, unlabelled, clean, ...).

    Returns the normalised rows, (sum(rows), units), and the **last** group's mean and scale,
    ``1 / sqrt(variance + 1e-10)``, (units,).
    """
    if len(set(rows)) == 1:
        # Equal groups, the usual case, need one operation instead of one per group: half the launches of a step.
        grouped = z_pre.reshape(len(rows), rows[0], z_pre.shape[-1])
        z, mean, scale, _ = _BatchNormalise.of(grouped)
        return z.reshape(z_pre.shape), mean, scale
    groups = torch.split(z_pre, list(rows), dim=-2)
    parts = [_BatchNormalise.of(group.unsqueeze(0)) for group in groups]
    return torch.cat([z.squeeze(0) for z, *_ in parts], dim=-2), parts[-1][1], parts[-1][2]


class Normalised(nn.Module):
    """A module with test-time statistics of layers: buffers ``mean_l`` and ``variance_l``, (channels of layer l,)."""

    def add_statistics(self, sizes: Iterable[int]) -> None:
        """Register the buffers of layers 1..L with these channels."""
        for layer, size in enumerate(sizes, 1):
            self.register_buffer(f"mean_{layer}", torch.zeros(size))
            self.register_buffer(f"variance_{layer}", torch.ones(size))

    def stored(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"mean_{layer}"), self.get_buffer(f"variance_{layer}")
