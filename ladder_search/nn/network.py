"""What most networks have in common in the eyes of the training program: they classify rows that stand alone."""

from __future__ import annotations

from collections.abc import Container, Mapping

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A ``nn.protocol.PackModel`` that is judged by its classification errors, and carries nothing between steps."""

    @property
    def carried(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of what a row's next window needs to know of this one, without the row's axis; by names."""
        return {}

    @property
    def followers(self) -> Mapping[str, str]:
        """Parameters and buffers that no gradient moves, and what each of them follows."""
        return {}

    def follow_rate(self, hyper: Mapping[str, Tensor]) -> Tensor:
        """Return which share of its way a follower goes in a step, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no followers")

    @property
    def measures(self) -> tuple[str, ...]:
        """What the network is judged by, the first entry by searches; see ``scores``."""
        return ("error",)

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """Return a sum over rows for every entry of ``measures``, and at last what they are to be divided by.

        Args:
            x: inputs, (rows, ...).
            y: classes, (rows,).
        """
        wrong = (self(x).argmax(-1) != y).sum()
        return torch.stack([wrong, torch.full_like(wrong, len(y))])

    def half_squares(self, names: Container[str]) -> Tensor:
        """Return what weight decay weighs: half the sum of the squared parameters whose own names are among these."""
        named = self.named_parameters()
        squares = [value.square().sum() for name, value in named if name.rpartition(".")[2] in names]
        return 0.5 * torch.stack(squares).sum()
