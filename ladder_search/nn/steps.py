"""Steps of sequences in one batch, and their batch and layer normalisation.

Maps are (rows, height, width, channels). Several steps may be concatenated along the rows, all rows of the first step
before those of the second; each step has its own batch statistics, while scale and shift are shared. At test time a
batch norm has one mean and one variance for all steps, averages over minibatches and steps, which is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.nn.levels import Size

Kind = Literal["ln", "bn"]

EPSILON = 1e-5
"""Ours, the usual value: behind bars some channels are nearly constant, and rounding must not be amplified."""


Found = dict[nn.Module, list[tuple[Tensor, Tensor, Tensor]]]


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a call, and their statistics."""

    rows: int
    """Rows of one step."""
    present: Tensor | None = None
    """0 or 1 for every row of every step, (steps * rows,): the rows used for statistics; None: all."""
    stored: bool = False
    """Whether batch norms use their stored statistics instead of the batch's."""
    found: Found | None = field(default=None, compare=False)
    """Receives each batch norm's mean, variance and number of rows by step, unless it is None."""

    def at(self, step: int) -> Steps:
        """Return a single step."""
        if self.present is None:
            return self
        return replace(self, present=self.present[step * self.rows : (step + 1) * self.rows])

    def until(self, step: int) -> Steps:
        """Return the steps before ``step``."""
        return self if self.present is None else replace(self, present=self.present[: step * self.rows])


def in_turn(x: Tensor) -> Tensor:
    """Return (rows, steps, ...) as (steps * rows, ...)."""
    return x.transpose(0, 1).flatten(0, 1)


def by_step(x: Tensor, rows: int) -> Tensor:
    """Return (steps * rows, ...) as (steps, rows, ...)."""
    return x.reshape(-1, rows, *x.shape[1:])


def as_maps(x: Tensor, size: Size) -> Tensor:
    """Return maps, step by step, from inputs (rows, steps, ...) with numbers in the order of ``size``."""
    return in_turn(x.reshape(*x.shape[:2], *size)).permute(0, 2, 3, 1)


def as_rows(maps: Tensor, like: Tensor) -> Tensor:
    """Return maps, step by step, (steps * rows, height, width, channels), in the shape of the inputs ``like``."""
    return by_step(maps, len(like)).permute(1, 0, 4, 2, 3).reshape(like.shape)


class BatchNorm(nn.Module):
    """``scale * (z - mean) / sqrt(variance + epsilon) + shift`` per channel, over a step's rows and positions."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, *, shift: Tensor | None = None, affine: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels)) if affine else None
        self.shift = nn.Parameter(torch.zeros(channels) if shift is None else shift) if affine else None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, z: Tensor, steps: Steps) -> Tensor:
        if steps.stored:
            return self._scaled(z, self.mean, self.variance)
        if steps.present is None and steps.found is None:
            return torch.cat([self._alone(each) for each in torch.split(z, steps.rows)])
        mean, variance, rows = _statistics(z, steps)
        if steps.found is not None:
            steps.found.setdefault(self, []).extend(zip(mean, variance, rows, strict=True))
        each = by_step(z, steps.rows)
        return self._scaled(each, mean[:, None, None, None], variance[:, None, None, None]).flatten(0, 1)

    def _alone(self, z: Tensor) -> Tensor:
        first = z.permute(0, 3, 1, 2)
        normalised = functional.batch_norm(first, None, None, self.scale, self.shift, True, 0.0, EPSILON)
        return normalised.permute(0, 2, 3, 1)

    def _scaled(self, z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = (variance + EPSILON).rsqrt()
        if self.scale is None or self.shift is None:
            return (z - mean) * scale
        return (z - mean) * (scale * self.scale) + self.shift


class LayerNorm(nn.Module):
    """The same over the channels and positions of each row, with scale and shift per channel."""

    def __init__(self, channels: int, *, shift: Tensor | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels) if shift is None else shift)

    def forward(self, z: Tensor, steps: Steps) -> Tensor:
        normalised = functional.group_norm(z.permute(0, 3, 1, 2), 1, self.scale, self.shift, EPSILON)
        return normalised.permute(0, 2, 3, 1)


def make_norm(kind: Kind, channels: int, *, shift: Tensor | None = None) -> BatchNorm | LayerNorm:
    """Return a norm of that kind; ``shift`` is its initial shift."""
    return LayerNorm(channels, shift=shift) if kind == "ln" else BatchNorm(channels, shift=shift)


def averages(network: nn.Module, found: Found) -> dict[str, Tensor]:
    """Return the test-time statistics of batch norms by buffer name; ``found`` steps are weighted by their rows."""
    values = {}
    for name, norm in network.named_modules():
        if norm in found:
            mean, variance, rows = (torch.stack(parts) for parts in zip(*found[norm], strict=True))
            share = (rows / rows.sum())[:, None]
            values[f"{name}.mean"], values[f"{name}.variance"] = (mean * share).sum(0), (variance * share).sum(0)
    return values


def _statistics(z: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
    """Return each step's mean and biased variance, (steps, channels), and number of rows, (steps,).

    A step without rows has mean 0 and variance 1; its outputs are not used, but must be finite.
    """
    places = by_step(z.flatten(1, 2), steps.rows)  # (steps, rows, places, channels)
    present = z.new_ones(len(z)) if steps.present is None else steps.present.to(z.dtype)
    here = by_step(present, steps.rows)
    rows = here.sum(1)
    weight = (here / rows.clamp(min=1.0).unsqueeze(1) / places.shape[2])[..., None, None]
    mean = (places * weight).sum((1, 2))
    variance = ((places - mean[:, None, None]).square() * weight).sum((1, 2))
    return mean, torch.where(rows.unsqueeze(1) > 0, variance, torch.ones_like(variance)), rows
