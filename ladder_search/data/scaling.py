"""Imputation and scaling of numbers, fitted on the training rows of a split: medians for missing values, then mean 0
and standard deviation 1, or minimum 0 and maximum 1. Fitted in double precision, applied in that of the rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Kind = Literal["standard", "unit"]
_AT_ONCE = 16
"""Columns that are copied at once, so that a fit needs little memory beside the rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """A scaling fitted by ``fit``; columns that are not scaled have median 0, centre 0 and factor 1."""

    median: Tensor
    """Replaces missing values: (d,) float64."""
    centre: Tensor
    """Mean or minimum: (d,) float64."""
    factor: Tensor
    """Inverse of the standard deviation or of the range; 1 for a constant column: (d,) float64."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return scaled rows in the type of ``x``: (..., d) -> (..., d)."""
        return scaled(x, *(value.to(x.device, x.dtype) for value in (self.median, self.centre, self.factor)))


def scaled(x: Tensor, median: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    """Return (x - centre) * factor, with ``median`` for missing numbers (NaN)."""
    return (torch.where(torch.isnan(x), median, x) - centre) * factor


def fit(x: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.bool_], kind: Kind = "standard") -> Scaling:
    """Return the scaling of ``columns``, bool (d,), fitted on ``rows`` of ``x``, (n, d); NaN is a missing number."""
    d = x.shape[1]
    median, centre, factor = np.zeros(d), np.zeros(d), np.ones(d)
    numbers = np.flatnonzero(columns)
    for begin in range(0, len(numbers), _AT_ONCE):
        block = numbers[begin : begin + _AT_ONCE]
        values = x[np.ix_(rows, block)]
        for column, number in enumerate(block):
            own = values[:, column].astype(np.float64)
            missing = np.isnan(own)
            median[number] = np.median(own[~missing]) if not missing.all() else 0.0
            own[missing] = median[number]
            centre[number] = own.mean() if kind == "standard" else own.min()
            spread = own.std() if kind == "standard" else np.ptp(own)
            # A constant column has a rounding error as its deviation.
            flat = spread <= 10 * np.finfo(np.float64).eps * max(1.0, abs(centre[number]))
            factor[number] = 1.0 if flat else 1.0 / spread
    return Scaling(*(torch.from_numpy(value) for value in (median, centre, factor)))


_kept: OrderedDict[str, tuple[Scaling, ...]] = OrderedDict()
_lock = threading.Lock()
_KEPT = 4


def kept(name: str, fitted: Callable[[], tuple[Scaling, ...]]) -> tuple[Scaling, ...]:
    """Return the result of ``fitted``, which is called once for each of the last few names."""
    with _lock:
        if name not in _kept:
            _kept[name] = fitted()
        _kept.move_to_end(name)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
        return _kept[name]


class ScaledInputs(nn.Module):
    """A network that imputes and scales its input as its training data; images are left as they are."""

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Args: ``shape`` of an input."""
        super().__init__()
        self.network = network
        self.register_buffer("median", torch.zeros(*shape))
        self.register_buffer("centre", torch.zeros(*shape))
        self.register_buffer("factor", torch.ones(*shape))

    def take(self, scaling: Scaling) -> None:
        """Use ``scaling`` from now on."""
        for name in ("median", "centre", "factor"):
            self.get_buffer(name).copy_(getattr(scaling, name))

    def prepared(self, x: Tensor) -> Tensor:
        """Return the input of ``network``: (rows, *shape) -> (rows, *shape)."""
        return scaled(x, *(self.get_buffer(name).to(x.dtype) for name in ("median", "centre", "factor")))

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities: (rows, *shape), NaN for missing numbers -> (rows, classes)."""
        probabilities: Tensor = self.network(self.prepared(x))
        return probabilities
