"""Contrast normalisation and ZCA whitening of images, as for CIFAR-10 by Rasmus et al. 2015.

Legend: ``x`` pixels, d numbers per row; ``E D E^T`` eigenvectors and eigenvalues of the covariance; the whitening is
``P = E D^(-1/2) E^T``. Fitted in double precision, applied in single. Source: the original code, options
``--contrast-norm 55 --whiten-zca 3072``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONTRAST = 55.0
"""Length of a row after contrast normalisation."""
FILTER_BIAS = 0.1
"""Added to every variance before the eigenvalues are inverted, so that directions with little variance stay small."""
_FLAT = 1e-8
"""A row with a length below this multiple of ``CONTRAST`` has no contrast and is left unchanged."""
_ROWS_AT_ONCE = 4096
"""Rows in double precision, 100 MB for CIFAR-10."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """A whitening fitted by ``fit``, for rows of any origin."""

    mean: Tensor
    """Mean of the fitted rows after contrast normalisation: (d,) float64."""
    P: Tensor
    """(d, d) float64, symmetric."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows prepared for training: (n, d) of any type -> (n, d) float32, on the device of ``x``."""
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        for begin in range(0, len(x), _ROWS_AT_ONCE):
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            out[rows] = (contrast_normalised(x[rows]) - self.mean) @ self.P
        return out


def contrast_normalised(x: Tensor) -> Tensor:
    """Return rows minus their mean, scaled to length 55: (n, d) of any type -> (n, d) float64."""
    centred = x.double()
    centred = centred - centred.mean(1, keepdim=True)
    scale = centred.norm(dim=1, keepdim=True) / CONTRAST
    return centred / torch.where(scale < _FLAT, 1.0, scale)


def fit(x: Tensor) -> Whitening:
    """Return the whitening of contrast-normalised rows like ``x``, (n, d), with all d components."""
    n, d = x.shape
    total = torch.zeros(d, dtype=torch.float64, device=x.device)
    products = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    for begin in range(0, n, _ROWS_AT_ONCE):
        rows = contrast_normalised(x[begin : begin + _ROWS_AT_ONCE])
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / n
    covariance = products / n - torch.outer(mean, mean)
    eigenvalues, E = torch.linalg.eigh(covariance + FILTER_BIAS * torch.eye(d, dtype=torch.float64, device=x.device))
    return Whitening(mean, (E * eigenvalues.rsqrt()) @ E.T)


class Prepared(nn.Module):
    """A network that applies the preparation of its training data to its input. Pixels may be in 0..1 or in 0..255,
    because contrast normalisation removes any factor."""

    def __init__(self, network: nn.Module, inputs: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("P", torch.eye(inputs))

    def take(self, whitening: Whitening) -> None:
        """Use ``whitening`` from now on."""
        self.get_buffer("mean").copy_(whitening.mean)
        self.get_buffer("P").copy_(whitening.P)

    def prepared(self, x: Tensor) -> Tensor:
        """Return the input of ``network`` for these pixels: (rows, d) -> (rows, d)."""
        rows = Whitening(self.get_buffer("mean").double(), self.get_buffer("P").double())(x)
        return rows.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities: (rows, d) -> (rows, classes)."""
        probabilities: Tensor = self.network(self.prepared(x))
        return probabilities
