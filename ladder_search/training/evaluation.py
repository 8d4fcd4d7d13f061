"""Classification error of members under test-time statistics.

Source: the paper's section 4 and the original code: the clean path classifies by argmax, normalised with averages
over labelled training minibatches; running averages and the evaluated batch's own statistics are never used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ladder_search.training.program import Stack

# Bounds the activations of one call: rows times members. 8,192 rows of the widest layer are 32 MB in float32.
_ROWS_AT_ONCE = 8192


class _Statistics(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.model.statistics(x)  # type: ignore[no-any-return, operator]


def labelled_statistics(model: nn.Module, params: Stack, x: Tensor, rows: Tensor, full_scale: float) -> Stack:
    """Return the test-time statistics of K members.

    Args:
        x: training data, (n, ...) uint8.
        rows: each member's labelled minibatches of an epoch, (K, minibatches, rows) indices into ``x``.

    Returns:
        buffer name -> (K, units).
    """
    call = _over_members(_Statistics(model), "model.")
    members, minibatches, size = rows.shape
    at_once = max(1, _ROWS_AT_ONCE // (members * size))
    total: Stack = {}
    with torch.no_grad():
        for chunk in torch.split(rows, at_once, dim=1):
            found = call(params, _pixels(x[chunk], params, full_scale))
            for name, value in found.items():
                weighted = value * (chunk.shape[1] / minibatches)
                total[name] = total[name] + weighted if name in total else weighted
    return total


def classification_errors(
    model: nn.Module, state: Stack, x: Tensor, y: Tensor, full_scale: float, rows: Tensor | None = None
) -> list[float]:
    """Return each member's fraction of wrongly classified examples.

    Args:
        state: parameters and statistics of K members.
        x, y: examples (n, ...) uint8 and their classes (n,).
        rows: each member's own examples, (K, m) indices into ``x``; None for all of ``x``.
    """
    call = _over_members(model, "")
    members = len(next(iter(state.values())))
    if rows is None:
        rows = torch.arange(len(x), device=x.device).expand(members, -1)
    wrong = torch.zeros(members, dtype=torch.int64, device=x.device)
    with torch.no_grad():
        for chunk in torch.split(rows, max(1, _ROWS_AT_ONCE // members), dim=1):
            probabilities = call(state, _pixels(x[chunk], state, full_scale))
            wrong += (probabilities.argmax(-1) != y[chunk]).sum(-1)
    return [count / rows.shape[1] for count in wrong.tolist()]


def _pixels(x: Tensor, like: Stack, full_scale: float) -> Tensor:
    return x.to(next(iter(like.values())).dtype) / full_scale


def _over_members(module: nn.Module, prefix: str) -> Callable[[Stack, Tensor], Any]:
    def call(state: Stack, x: Tensor) -> Any:
        return functional_call(module, {prefix + name: value for name, value in state.items()}, (x,))

    return vmap(call)
