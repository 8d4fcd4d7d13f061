"""A probe of a recurrent ladder's lowest decoder cell: one convolution that decodes the frame without its bars.

The probe reads ``d^1`` without propagating gradients to the network; its logits are sub-pixels of ``d^1``'s positions.
The paper does not describe its probe, so this design is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.data.permutation import permutations

_KERNEL = 3
_RATE = 0.1
_BATCH = 64
"""Maps of a step."""
_ORDER = 4
"""Tag of the order of maps, distinct from those of other permutations."""


class Probe(NamedTuple):
    """Parameters of a trained probe."""

    W: Tensor  # (stride * stride, channels, 3, 3)
    b: Tensor  # (stride * stride,)
    stride: int

    def __call__(self, d: Tensor, side: int) -> Tensor:
        """Return the decoded frames of maps, (n, channels, height, width): pixels in 0..1, (n, side, side)."""
        return torch.sigmoid(self.logits(d, side))

    def logits(self, d: Tensor, side: int) -> Tensor:
        places = functional.conv2d(d, self.W, self.b, padding=_KERNEL // 2)
        return functional.pixel_shuffle(places, self.stride)[:, 0, :side, :side]


def fit_probe(d: Tensor, wanted: Tensor, *, stride: int, steps: int, seed: int) -> Probe:
    """Train a probe for ``steps`` steps, in passes over the maps in orders drawn with ``seed``.

    Args:
        d: maps of the network, (n, channels, height, width).
        wanted: frames without bars, (n, side, side), 0..1; side is at most stride times height and width.
        stride: pixels of a frame per position of a map, in both directions.
    """
    n, side = len(d), wanted.shape[-1]
    mean = wanted.mean().clamp(1e-4, 1 - 1e-4)
    W = d.new_zeros(stride**2, d.shape[1], _KERNEL, _KERNEL).requires_grad_()
    b = torch.logit(mean).expand(stride**2).clone().requires_grad_()
    adam = torch.optim.Adam([W, b], lr=_RATE)
    size = min(_BATCH, n)
    in_pass = n // size
    probe = Probe(W, b, stride)
    with torch.enable_grad():
        for step in range(steps):
            number, place = divmod(step, in_pass)
            if place == 0:
                order = torch.from_numpy(permutations(n, seed=seed, tag=_ORDER, first=number)[0]).to(d.device)
            rows = order[place * size : (place + 1) * size]
            for group in adam.param_groups:
                group["lr"] = _RATE * (1.0 - step / steps)
            adam.zero_grad()
            cost = functional.binary_cross_entropy_with_logits(probe.logits(d[rows].detach(), side), wanted[rows])
            cost.backward()  # type: ignore[no-untyped-call]
            adam.step()
    return Probe(W.detach(), b.detach(), stride)
