"""Likelihoods of corrupted pixels under the estimates of several groups (Greff et al. 2016), see ``nn.grouping``.

Legend: ``x`` clean and ``x_tilde`` corrupted pixels, (rows, D); ``z`` each group's estimate of the pixels and ``m`` the
probability that a pixel belongs to the group, (K, rows, D); ``delta_z`` the gradient of the corrupted pixels'
log-likelihood and ``L`` the likelihood of each group, normalised over groups; ``q`` the probability of a flipped bit,
``sigma`` the standard deviation of Gaussian noise.

Source: the equations of the paper, with these properties of the authors' code where the two differ:

* The binary cost is that of the mixture's mean, ``sum_g m_g z_g``, instead of the mixture; all probabilities in
  cross-entropies are compressed to [1e-4, 1 - 1e-4].
* The continuous likelihood has one learned number ``v``. It is the variance in the cost, and its square is the variance
  in ``L``. The cost has no constant 0.5 ln(2 pi), and each ``m_g`` in it is increased by 1e-5.
* ``delta_z`` of continuous pixels is ``m (x_tilde - z)``, without the variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from statistics import NormalDist
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Pixels = Literal["binary", "continuous"]

_COMPRESSION = 1e-4
_LEAST_SHARE = 1e-5


class Likelihood(nn.Module, ABC):
    """The noise of an image, and the likelihood of its pixels under the groups' estimates."""

    combinator: ClassVar[str]
    """Combinator of the ladder in the authors' code, a key of ``nn.combinators.COMBINATORS``."""

    def __init__(self, noise: float, initial_w: float = 1.0, w_rate: float = 1.0) -> None:
        super().__init__()
        self.noise = noise

    @abstractmethod
    def corrupted(self, x: Tensor, draws: Tensor) -> Tensor:
        """Return x_tilde, in the shape of x and of the standard normal ``draws``."""

    @abstractmethod
    def evidence(self, x_tilde: Tensor, z: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Return delta_z and L, (K, rows, D) each."""

    @abstractmethod
    def cost(self, x: Tensor, z: Tensor, m: Tensor) -> Tensor:
        """Return the cost, averaged over pixels and rows, a scalar."""

    @abstractmethod
    def estimate(self, z_pre: Tensor) -> Tensor:
        """Return z from the output of the network."""

    @abstractmethod
    def read(self, z_pre: Tensor) -> Tensor:
        """Return what the next iteration reads of z."""


class Binary(Likelihood):
    """Pixels of 0 or 1, flipped with probability ``q``; z is the probability of a 1, and iterations read its logit."""

    combinator = "gauss"

    def corrupted(self, x: Tensor, draws: Tensor) -> Tensor:
        return torch.where(draws < NormalDist().inv_cdf(self.noise), 1.0 - x, x)

    def evidence(self, x_tilde: Tensor, z: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        contrast = 1.0 - 2.0 * self.noise
        p = contrast * z + self.noise
        delta_z = contrast * m / ((m * p).sum(0) - 1.0 + x_tilde)
        return delta_z, torch.softmax(-_cross_entropy(p, x_tilde), dim=0)

    def cost(self, x: Tensor, z: Tensor, m: Tensor) -> Tensor:
        return _cross_entropy((m * z).sum(0), x).mean()

    def estimate(self, z_pre: Tensor) -> Tensor:
        return torch.sigmoid(z_pre)

    def read(self, z_pre: Tensor) -> Tensor:
        return z_pre


class Continuous(Likelihood):
    """Pixels with Gaussian noise ``sigma``. ``v = r w + sqrt((r w)^2 + 1)`` with one parameter ``w`` and a constant
    ``r``, 1 in the authors' code; Adam changes ``r w`` by at most r times the learning rate per step."""

    combinator = "gated-gauss"

    def __init__(self, noise: float, initial_w: float = 1.0, w_rate: float = 1.0) -> None:
        super().__init__(noise)
        self.rate = w_rate
        self.w = nn.Parameter(torch.tensor(initial_w / w_rate))

    def v(self) -> Tensor:
        w = self.rate * self.w
        return w + (w.square() + 1.0).sqrt()

    def corrupted(self, x: Tensor, draws: Tensor) -> Tensor:
        return x + self.noise * draws

    def evidence(self, x_tilde: Tensor, z: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        tau = self.noise**2 + self.v().square()
        loss = 0.5 * torch.log(tau) + (z - x_tilde).square() / (2.0 * tau)
        return m * (x_tilde - z), torch.softmax(-loss, dim=0)

    def cost(self, x: Tensor, z: Tensor, m: Tensor) -> Tensor:
        v = self.v()
        exponents = -(x - z).square() / (2.0 * v) - 0.5 * torch.log(v)
        return -torch.logsumexp(torch.log(m + _LEAST_SHARE) + exponents, dim=0).mean()

    def estimate(self, z_pre: Tensor) -> Tensor:
        return z_pre

    def read(self, z_pre: Tensor) -> Tensor:
        return z_pre


LIKELIHOODS: dict[str, type[Likelihood]] = {"binary": Binary, "continuous": Continuous}


def _cross_entropy(p: Tensor, x: Tensor) -> Tensor:
    """Return the cross-entropy of each pixel, with compressed probabilities."""
    p = p * (1.0 - 2.0 * _COMPRESSION) + _COMPRESSION
    return -(x * torch.log(p) + (1.0 - x) * torch.log(1.0 - p))
