"""Evaluation of members with test-time statistics; most are judged by their classification error.

Source: the paper's section 4 and the original code. The clean path classifies by argmax, normalised with averages over
labelled training minibatches; running averages and the evaluated batch's own statistics are never used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ladder_search.nn.judging import class_measures
from ladder_search.nn.network import Network
from ladder_search.nn.protocol import Stacking
from ladder_search.training.feeds import Feed
from ladder_search.training.program import Stack, in_turn, over_members
from ladder_search.training.stepping import Capture

# Limits on the activations of one call: rows times members, and numbers in the widest layer (32 MB in float32). A CUDA
# device takes eight times as many, because launches dominate its time.
_ROWS_AT_ONCE = 8192
_NUMBERS_AT_ONCE = 8192 * 1000
_ON_CUDA = 8


class _Method(nn.Module):
    """Makes a method of a model callable through ``functional_call``."""

    def __init__(self, model: Network, name: str) -> None:
        super().__init__()
        self.model, self._name = model, name

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.model, self._name)(*inputs)


def labelled_statistics(
    model: Network, params: Stack, feed: Feed, rows: Tensor, *, stacking: Stacking = "vmap"
) -> Stack:
    """Return the test-time statistics of K members, buffer name -> (K, units).

    ``rows`` are each member's labelled minibatches of an epoch, (K, minibatches, rows) indices into the data.
    """
    call, dtype = _over_members(_Method(model, "statistics"), stacking), _dtype(params)
    members, minibatches, size = rows.shape
    at_once = max(1, _rows_at_once(model, feed.x) // (members * size))
    total: Stack = {}
    with torch.no_grad():
        for chunk in torch.split(rows, at_once, dim=1):
            averages = call(params, *feed.minibatches(chunk, dtype))
            for name, value in averages.items():
                weighted = value * (chunk.shape[1] / minibatches)
                total[name] = total[name] + weighted if name in total else weighted
    return total


def scores(
    model: Network,
    state: Stack,
    feed: Feed,
    rows: Tensor | None = None,
    *,
    stacking: Stacking = "vmap",
    measures: Sequence[str] = (),
) -> Tensor:
    """Return each of the network's ``measures`` for each member, (K, measures) float64.

    Args:
        state: parameters and statistics.
        rows: indices of examples, (K, m), -1 for places without one; None: all examples.
        measures: those of a classifier, see ``nn.judging``, instead of the network's.
    """
    if rows is None:
        rows = feed.everything().expand(_count(state), -1)
    sums = _sums(model, state, feed, rows, stacking, measures)
    return sums[:, :-1] / sums[:, -1:]


class Evaluation:
    """Validation scores of a pack's members: statistics and classification in one call.

    Eager, it serves the requested members; captured, it is one program for all slots. It is never compiled: that would
    reduce its share of an epoch of digits from 6 to 3 % and cost some seconds.
    """

    def __init__(
        self,
        model: Network,
        params: Stack,
        feed: Feed,
        labelled: Tensor,
        rows: Tensor,
        *,
        capture: Capture | None = None,
        stacking: Stacking = "vmap",
        measures: Sequence[str] = (),
    ) -> None:
        """Args:
        params: of all slots; they and both tables of rows must not move in memory, their values may change.
        labelled: minibatches of the test-time statistics, (K, minibatches, rows) indices into the data.
        rows: validation examples, (K, m) indices into the data, -1 for places without one.
        measures: those of a classifier, instead of the network's.
        """
        self._params, self._labelled, self._rows = params, labelled, rows
        n_measures = len(measures or model.measures)
        self._sums = torch.zeros((len(rows), n_measures + 1), dtype=torch.float64, device=rows.device)
        self._capture = capture
        self._into_place: Callable[[], None] | None = None

        def sums(params: Stack, labelled: Tensor, rows: Tensor) -> Tensor:
            statistics = labelled_statistics(model, params, feed, labelled, stacking=stacking)
            return _sums(model, {**params, **statistics}, feed, rows, stacking, measures)

        self._sum = sums

    def scores(self, slots: list[int]) -> list[list[float]]:
        """Return the mean of each measure of each of ``slots``, (slots, measures)."""
        if self._capture is not None:
            if self._into_place is None:
                self._into_place = self._capture(self._one, ())
            self._into_place()
            sums = self._sums[slots]
        elif len(slots) == len(self._rows):
            sums = self._sum(self._params, self._labelled, self._rows)
        else:
            params = {name: stacked[slots] for name, stacked in self._params.items()}
            sums = self._sum(params, self._labelled[slots], self._rows[slots])
        means: list[list[float]] = [[one / row[-1] for one in row[:-1]] for row in sums.tolist()]
        return means

    def _one(self) -> None:
        self._sums.copy_(self._sum(self._params, self._labelled, self._rows))


def _sums(
    model: Network, state: Stack, feed: Feed, rows: Tensor, stacking: Stacking, measures: Sequence[str] = ()
) -> Tensor:
    """Return the sums of each measure and their divisor, (K, measures + 1); for ``measures`` values and 1."""
    call = _over_members(_Method(model, "class_sums" if measures else "scores"), stacking)
    dtype, members = _dtype(state), len(rows)
    total = torch.zeros((members, 1), dtype=torch.float64, device=rows.device)
    at_once = model.scored_rows or _rows_at_once(model, feed.x) // members
    with torch.no_grad():
        for chunk in feed.chunks(rows, at_once, dtype):
            total = total + call(state, *chunk)
    if not measures:
        return total
    values = class_measures(total, measures)
    return torch.cat([values, torch.ones_like(values[:, :1])], dim=1)


def _rows_at_once(model: Network, x: Tensor) -> int:
    return min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // model.widest) * (_ON_CUDA if x.device.type == "cuda" else 1)


def _count(state: Stack) -> int:
    return len(next(iter(state.values())))


def _dtype(state: Stack) -> torch.dtype:
    return next(iter(state.values())).dtype


def _over_members(module: nn.Module, stacking: Stacking) -> Callable[..., Any]:
    def call(state: Stack, *inputs: Tensor) -> Any:
        return functional_call(module, {"model." + name: value for name, value in state.items()}, inputs)

    return over_members(call) if stacking == "vmap" else in_turn(over_members(call))
