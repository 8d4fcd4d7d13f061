"""Classification error of members under test-time statistics.

Source: the paper's section 4 and the original code: the clean path classifies by argmax, normalised with averages
over labelled training minibatches; running averages and the evaluated batch's own statistics are never used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ladder_search.nn.protocol import Stacking
from ladder_search.training.program import Stack, in_turn, over_members
from ladder_search.training.stepping import Capture

# Bounds the activations of one call: rows times members, and numbers of the widest layer, which are 32 MB in float32. A
# CUDA device takes eight times as many: its time goes into launches.
_ROWS_AT_ONCE = 8192
_NUMBERS_AT_ONCE = 8192 * 1000
_ON_CUDA = 8


class _Statistics(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.model.statistics(x)  # type: ignore[no-any-return, operator]


def labelled_statistics(
    model: nn.Module, params: Stack, x: Tensor, rows: Tensor, full_scale: float, *, stacking: Stacking = "vmap"
) -> Stack:
    """Return the test-time statistics of K members.

    Args:
        x: training data, (n, ...), see ``TrainingData``.
        rows: each member's labelled minibatches of an epoch, (K, minibatches, rows) indices into ``x``.
        stacking: the family's, see ``models.Family``.

    Returns:
        buffer name -> (K, units).
    """
    call = _over_members(_Statistics(model), "model.", stacking)
    members, minibatches, size = rows.shape
    at_once = max(1, _rows_at_once(model, x) // (members * size))
    total: Stack = {}
    with torch.no_grad():
        for chunk in torch.split(rows, at_once, dim=1):
            found = call(params, _pixels(x[chunk], params, full_scale))
            for name, value in found.items():
                weighted = value * (chunk.shape[1] / minibatches)
                total[name] = total[name] + weighted if name in total else weighted
    return total


def classification_errors(
    model: nn.Module,
    state: Stack,
    x: Tensor,
    y: Tensor,
    full_scale: float,
    rows: Tensor | None = None,
    *,
    stacking: Stacking = "vmap",
) -> list[float]:
    """Return each member's fraction of wrongly classified examples.

    Args:
        state: parameters and statistics of K members.
        x, y: examples (n, ...), as the training data, and their classes (n,).
        rows: each member's own examples, (K, m) indices into ``x``; None for all of ``x``.
        stacking: the family's, see ``models.Family``.
    """
    members = len(next(iter(state.values())))
    if rows is None:
        rows = torch.arange(len(x), device=x.device).expand(members, -1)
    wrong = _wrong_counts(model, state, x, y, full_scale, rows, stacking)
    return [count / rows.shape[1] for count in wrong.tolist()]


class Evaluation:
    """Validation errors of a pack's members: statistics and classification in one call.

    Eager it serves the members that are asked for; captured it is one program over all slots. It is never compiled:
    that would take its time from 6 to 3 % of an epoch of digits and cost some seconds.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Stack,
        x: Tensor,
        y: Tensor,
        full_scale: float,
        labelled: Tensor,
        rows: Tensor,
        *,
        capture: Capture | None = None,
        stacking: Stacking = "vmap",
    ) -> None:
        """Args:
        params: of all slots; they and the two tables of rows stay where they are, their values may change.
        labelled: minibatches of the test-time statistics, (K, minibatches, rows) indices into ``x``.
        rows: examples to classify, (K, m) indices into ``x``.
        stacking: the family's, see ``models.Family``.
        """
        self._params, self._labelled, self._rows = params, labelled, rows
        self._wrong = torch.zeros(len(rows), dtype=torch.int64, device=x.device)
        self._capture = capture
        self._into_place: Callable[[], None] | None = None

        def count(params: Stack, labelled: Tensor, rows: Tensor) -> Tensor:
            statistics = labelled_statistics(model, params, x, labelled, full_scale, stacking=stacking)
            return _wrong_counts(model, {**params, **statistics}, x, y, full_scale, rows, stacking)

        self._count = count

    def errors(self, slots: list[int]) -> list[float]:
        """Return the fraction of wrongly classified examples of each of ``slots``."""
        if self._capture is not None:
            if self._into_place is None:
                self._into_place = self._capture(self._one, ())
            self._into_place()
            wrong = self._wrong[slots].tolist()
        elif len(slots) == len(self._rows):
            wrong = self._count(self._params, self._labelled, self._rows).tolist()
        else:
            params = {name: stacked[slots] for name, stacked in self._params.items()}
            wrong = self._count(params, self._labelled[slots], self._rows[slots]).tolist()
        return [count / self._rows.shape[1] for count in wrong]

    def _one(self) -> None:
        self._wrong.copy_(self._count(self._params, self._labelled, self._rows))


def _wrong_counts(
    model: nn.Module, state: Stack, x: Tensor, y: Tensor, full_scale: float, rows: Tensor, stacking: Stacking
) -> Tensor:
    call = _over_members(model, "", stacking)
    members = len(rows)
    wrong = torch.zeros(members, dtype=torch.int64, device=x.device)
    with torch.no_grad():
        for chunk in torch.split(rows, max(1, _rows_at_once(model, x) // members), dim=1):
            probabilities = call(state, _pixels(x[chunk], state, full_scale))
            wrong += (probabilities.argmax(-1) != y[chunk]).sum(-1)
    return wrong


def _rows_at_once(model: nn.Module, x: Tensor) -> int:
    widest: int = model.widest  # type: ignore[assignment]
    return min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // widest) * (_ON_CUDA if x.device.type == "cuda" else 1)


def _pixels(x: Tensor, like: Stack, full_scale: float) -> Tensor:
    return x.to(next(iter(like.values())).dtype) / full_scale


def _over_members(module: nn.Module, prefix: str, stacking: Stacking) -> Callable[[Stack, Tensor], Any]:
    def call(state: Stack, x: Tensor) -> Any:
        return functional_call(module, {prefix + name: value for name, value in state.items()}, (x,))

    return over_members(call) if stacking == "vmap" else in_turn(over_members(call))
