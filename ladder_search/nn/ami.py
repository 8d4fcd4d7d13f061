"""Adjusted mutual information of two partitions of an image's pixels (Vinh, Epps and Bailey 2010), for many images.

The value is 1 for equal partitions and about 0 for independent ones; larger is better. It equals scikit-learn's
``adjusted_mutual_info_score``, but all images are one program of fixed shapes on their device, which can be stacked
with ``vmap`` and captured.

Legend: U true segments, V groups; N scored pixels, ``a`` and ``b`` sizes of segments and groups, ``n`` pixels in both.

    AMI = (I(U, V) - E[I]) / (normaliser(H(U), H(V)) - E[I])

The normaliser is the larger entropy or their arithmetic mean. The papers on Tagger use the larger one, ``max``, which
was scikit-learn's default before release 0.22; the present default ``arithmetic`` gives larger values where the AMI is
positive.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_EPSILON = torch.finfo(torch.float64).eps
_NATS = 40.0
"""Terms of the expectation are omitted where Hoeffding's inequality bounds their total probability by 2 exp(-40)."""


class Agreement(NamedTuple):
    """Adjusted mutual information with both normalisers, (...) float64 each."""

    max: Tensor
    arithmetic: Tensor


def agreement(labels: Tensor, groups: Tensor, *, n_labels: int, n_groups: int) -> Agreement:
    """Return the adjusted mutual information of each image.

    Special cases are scikit-learn's: 1 if both partitions have one part or no pixel is scored, 0 if only one of them
    has one part. Where the expectation is the normaliser (for example if each pixel is a part of both partitions),
    the quotient is one of rounding errors, there as here.

    Args:
        labels: true segment of each pixel, int64 (..., pixels) in 0..n_labels-1, or negative: the pixel is not scored.
        groups: group of each pixel, int64 (..., pixels) in 0..n_groups-1; groups of unscored pixels are ignored.
        n_labels: number of possible segments; absent ones are allowed.
        n_groups: number of possible groups.
    """
    both = _contingency(labels, groups, n_labels, n_groups)  # (..., U, V)
    a, b = both.sum(-1), both.sum(-2)
    total = a.sum(-1)
    mutual, expected = _mutual_information(both, a, b, total), _expectation(a, b, total, labels.shape[-1])
    entropies = _entropy(a, total), _entropy(b, total)
    parts = (a > 0).sum(-1), (b > 0).sum(-1)

    def adjusted(normaliser: Tensor) -> Tensor:
        value = _nonzero(mutual - expected) / _nonzero(normaliser - expected)
        value = torch.where((parts[0] == 1) | (parts[1] == 1), 0.0, value)
        return torch.where((parts[0] <= 1) & (parts[1] <= 1), 1.0, value)

    return Agreement(adjusted(torch.maximum(*entropies)), adjusted((entropies[0] + entropies[1]) / 2))


def _contingency(labels: Tensor, groups: Tensor, n_labels: int, n_groups: int) -> Tensor:
    """Return the number of pixels in each segment and group, (..., U, V) float64."""
    # Unscored pixels are counted in an additional place.
    place = torch.where(labels >= 0, labels * n_groups + groups, n_labels * n_groups)
    counts = place.new_zeros((*place.shape[:-1], n_labels * n_groups + 1)).scatter_add(
        -1, place, torch.ones_like(place)
    )
    return counts[..., :-1].reshape(*counts.shape[:-1], n_labels, n_groups).double()


def _mutual_information(both: Tensor, a: Tensor, b: Tensor, total: Tensor) -> Tensor:
    size = total[..., None, None].clamp(min=1)
    expected = (a.unsqueeze(-1) * b.unsqueeze(-2)).clamp(min=1)
    terms = both / size * (_log(both) - torch.log(size)) + both / size * (-torch.log(expected) + 2 * torch.log(size))
    return torch.where(terms.abs() < _EPSILON, 0.0, terms).sum((-2, -1)).clamp(min=0)


def _entropy(sizes: Tensor, total: Tensor) -> Tensor:
    total = total.unsqueeze(-1).clamp(min=1)
    return -(sizes / total * (_log(sizes) - torch.log(total))).sum(-1)


def _expectation(a: Tensor, b: Tensor, total: Tensor, pixels: int) -> Tensor:
    """Return the expected mutual information of random partitions with these sizes, (...): ``n`` of each pair of parts
    has a hypergeometric distribution, of which at most ``pixels // 2 + 1`` values are possible."""
    log_factorial = torch.lgamma(torch.arange(1, pixels + 2, dtype=torch.float64, device=a.device))
    reach = math.ceil(math.sqrt(_NATS * (pixels // 2) / 2)) + 1
    width = min(pixels // 2 + 1, 2 * reach + 1)
    offsets = torch.arange(width, device=a.device)
    N, size = total.long().unsqueeze(-1), total.unsqueeze(-1).clamp(min=1)
    expected = torch.zeros_like(total)
    for i in range(a.shape[-1]):
        for j in range(b.shape[-1]):
            a_i, b_j = a[..., i : i + 1].long(), b[..., j : j + 1].long()
            lowest, highest = (a_i + b_j - N).clamp(min=0), torch.minimum(a_i, b_j)
            mean = torch.div(a_i * b_j, N.clamp(min=1), rounding_mode="floor")
            # A window around the mean; it is the whole range if that is narrow enough.
            first = torch.minimum((mean - reach).clamp(min=0), highest - width + 1)
            n = torch.maximum(first, lowest) + offsets  # (..., width)
            valid = (n <= highest) & (n >= 1)
            n = torch.where(valid, n, highest)
            # In scikit-learn's order, so that roundings differ as little as possible.
            log_probability = log_factorial[a_i] + log_factorial[b_j] + log_factorial[N - a_i] + log_factorial[N - b_j]
            log_probability = log_probability - (log_factorial[n] + log_factorial[N])
            log_probability = log_probability - log_factorial[a_i - n] - log_factorial[b_j - n]
            log_probability = log_probability - log_factorial[N - a_i - b_j + n]
            information = _log(N) + _log(n) - _log(a_i) - _log(b_j)
            terms = n.double() / size * information * torch.exp(log_probability)
            expected = expected + torch.where(valid, terms, 0.0).sum(-1)
    return expected


def _log(counts: Tensor) -> Tensor:
    """Return the logarithm of counts, with 0 for 0."""
    return torch.log(counts.double().clamp(min=1))


def _nonzero(value: Tensor) -> Tensor:
    """Move a value away from zero by the rounding of float64, with its sign."""
    return torch.where(value < 0, value.clamp(max=-_EPSILON), value.clamp(min=_EPSILON))
