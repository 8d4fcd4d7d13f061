"""Steps of sequences in one batch, and their normalisation: by the batch of each step, or by the map of each row.

Maps are (rows, height, width, channels). Several steps may stand one after the other in the rows, all rows of the first
step before those of the second; each step of a batch has statistics of its own.

Scale and shift are shared by all steps. A network keeps one mean and one variance per batch norm for all steps at test
time, which are averages over minibatches and steps: that is ours.
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
"""Ours, the usual one: features behind bars are nearly constant in some channels, and their rounding is no signal."""


Found = dict[nn.Module, list[tuple[Tensor, Tensor, Tensor]]]


@dataclass(frozen=True, slots=True)
class Steps:
    """Which steps a call of a network's part is about, and what it is normalised with."""

    rows: int
    """Of one step."""
    present: Tensor | None = None
    """0 or 1 for every row of every step, (steps * rows,): which of them statistics are taken from; None: all."""
    stored: bool = False
    """Whether batch norms use the statistics that they have stored, instead of the batch's own."""
    found: Found | None = field(default=None, compare=False)
    """Where batch norms note what they find: mean, variance and the number of rows, step by step; None: nowhere."""

    def at(self, step: int) -> Steps:
        """Return one of the steps alone."""
        if self.present is None:
            return self
        return replace(self, present=self.present[step * self.rows : (step + 1) * self.rows])

    def until(self, step: int) -> Steps:
        """Return the first steps alone."""
        return self if self.present is None else replace(self, present=self.present[: step * self.rows])


def in_turn(x: Tensor) -> Tensor:
    """(rows, steps, ...) -> (steps * rows, ...)."""
    return x.transpose(0, 1).flatten(0, 1)


def by_step(x: Tensor, rows: int) -> Tensor:
    """(steps * rows, ...) -> (steps, rows, ...)."""
    return x.reshape(-1, rows, *x.shape[1:])


def as_maps(x: Tensor, size: Size) -> Tensor:
    """Inputs, (rows, steps, ...) whose numbers are in the order of ``size`` -> maps, step after step."""
    return in_turn(x.reshape(*x.shape[:2], *size)).permute(0, 2, 3, 1)


def as_rows(maps: Tensor, like: Tensor) -> Tensor:
    """Maps, step after step, (steps * rows, height, width, channels) -> the shape of the inputs ``like``."""
    return by_step(maps, len(like)).permute(1, 0, 4, 2, 3).reshape(like.shape)


class BatchNorm(nn.Module):
    """``scale * (z - mean) / sqrt(variance + epsilon) + shift`` per channel, over a step's rows and places.

    Buffers ``mean`` and ``variance`` are the test-time statistics.
    """

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
        found = functional.batch_norm(first, None, None, self.scale, self.shift, True, 0.0, EPSILON)
        return found.permute(0, 2, 3, 1)

    def _scaled(self, z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = (variance + EPSILON).rsqrt()
        if self.scale is None or self.shift is None:
            return (z - mean) * scale
        return (z - mean) * (scale * self.scale) + self.shift


class LayerNorm(nn.Module):
    """The same over the channels and places of each row, with scale and shift by channel."""

    def __init__(self, channels: int, *, shift: Tensor | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels) if shift is None else shift)

    def forward(self, z: Tensor, steps: Steps) -> Tensor:
        found = functional.group_norm(z.permute(0, 3, 1, 2), 1, self.scale, self.shift, EPSILON)
        return found.permute(0, 2, 3, 1)


def make_norm(kind: Kind, channels: int, *, shift: Tensor | None = None) -> BatchNorm | LayerNorm:
    """Return a norm of that kind; ``shift`` is where its shift starts."""
    return LayerNorm(channels, shift=shift) if kind == "ln" else BatchNorm(channels, shift=shift)


def averages(network: nn.Module, found: Found) -> dict[str, Tensor]:
    """Return the test-time statistics of a network's batch norms by the names of their buffers.

    Args:
        found: what its norms have noted; a step counts by its rows.
    """
    values = {}
    for name, norm in network.named_modules():
        if norm in found:
            mean, variance, rows = (torch.stack(parts) for parts in zip(*found[norm], strict=True))
            share = (rows / rows.sum())[:, None]
            values[f"{name}.mean"], values[f"{name}.variance"] = (mean * share).sum(0), (variance * share).sum(0)
    return values


def _statistics(z: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
    """Return each step's mean and biased variance, (steps, channels), and number of rows, (steps,).

    A step without rows has mean 0 and variance 1: nobody looks at what comes of it, as long as it is finite.
    """
    places = by_step(z.flatten(1, 2), steps.rows)  # (steps, rows, places, channels)
    present = z.new_ones(len(z)) if steps.present is None else steps.present.to(z.dtype)
    here = by_step(present, steps.rows)
    rows = here.sum(1)
    weight = (here / rows.clamp(min=1.0).unsqueeze(1) / places.shape[2])[..., None, None]
    mean = (places * weight).sum((1, 2))
    variance = ((places - mean[:, None, None]).square() * weight).sum((1, 2))
    return mean, torch.where(rows.unsqueeze(1) > 0, variance, torch.ones_like(variance)), rows
