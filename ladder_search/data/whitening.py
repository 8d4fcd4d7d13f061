"""Contrast normalisation and ZCA whitening of images, as Rasmus et al. 2015 prepared CIFAR-10.

Legend: ``x`` pixels 0..255 or whatever the data set counts in, d numbers a row; ``E D E^T`` the eigenvectors and
eigenvalues of the covariance; ``P = E D^(-1/2) E^T``. Everything is fitted in double precision and given in single.

Source: the original code, options ``--contrast-norm 55 --whiten-zca 3072``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CONTRAST = 55.0
"""Length of a row after contrast normalisation."""
FILTER_BIAS = 0.1
"""Added to every variance before the eigenvalues are inverted: directions of next to no variance stay small."""
_FLAT = 1e-8
"""A row whose length is below this many ``CONTRAST`` has no contrast and is left as it is."""
_ROWS_AT_ONCE = 4096
"""Of double precision, which for CIFAR-10's rows are 100 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """What ``fit`` found; it is applied to rows of any origin."""

    mean: Tensor
    """Of the rows it was fitted on, after contrast normalisation: (d,) float64."""
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
    """Return rows less their own mean, at the length 55: (n, d) of any type -> (n, d) float64."""
    centred = x.double()
    centred = centred - centred.mean(1, keepdim=True)
    scale = centred.norm(dim=1, keepdim=True) / CONTRAST
    return centred / torch.where(scale < _FLAT, 1.0, scale)


def fit(x: Tensor) -> Whitening:
    """Return the whitening of contrast-normalised rows that are like ``x``, (n, d): all d components, none dropped."""
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
    """A network that is handed pixels and prepares them as those were that it was trained on.

    Pixels may be in 0..1 as well as in 0..255: contrast normalisation takes any factor away.
    """

    def __init__(self, network: nn.Module, inputs: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("P", torch.eye(inputs))

    def take(self, whitening: Whitening) -> None:
        """Prepare by ``whitening`` from now on."""
        self.get_buffer("mean").copy_(whitening.mean)
        self.get_buffer("P").copy_(whitening.P)

    def prepared(self, x: Tensor) -> Tensor:
        """What ``network`` is handed for these pixels: (rows, d) -> (rows, d)."""
        rows = Whitening(self.get_buffer("mean").double(), self.get_buffer("P").double())(x)
        return rows.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Class probabilities: (rows, d) -> (rows, classes)."""
        probabilities: Tensor = self.network(self.prepared(x))
        return probabilities
