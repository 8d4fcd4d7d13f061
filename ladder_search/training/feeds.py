"""Feeds: the data of a pack on its device, and how a step's batch is made from row indices.

On the host a member's *stream* returns the row indices of many steps as tables; on the device ``gather`` turns one line
of these tables into tensors, within the step's program. Batches are functions of (data, rows, key of the step) without
generators, so that members can join, move and pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.occluded import Renderer, Scene, seen_so_far
from ladder_search.data.occluded_sets import step_keys
from ladder_search.data.scaling import Scaling, scaled
from ladder_search.data.streams import LABELLED, UNLABELLED, BalancedStream, Batches, BatchStream
from ladder_search.nn.protocol import Batch, Windows
from ladder_search.training.member import MemberSpec


class Stream(Protocol):
    """The rows that a member reads, as a pure function of its seed and the step."""

    def tables(self, start: int, count: int) -> tuple[NDArray[np.int64], ...]:
        """Return the tables of ``count`` steps from ``start``, each [count, ...], with equal shapes for all members."""
        ...

    def statistics_rows(self) -> NDArray[np.int64]:
        """Return the minibatches of training rows for the test-time statistics, [minibatches, rows]."""
        ...


class Feed(Protocol):
    """Data on a device; ``x`` and ``y`` are arguments of a step, because a captured program contains no data."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor: ...

    def stream(self, spec: MemberSpec) -> Stream: ...

    def rows(self, spec: MemberSpec) -> tuple[int, int]:
        """Return the labelled and unlabelled rows of a step, for a network's ``noise_size``."""
        ...

    def gather(
        self, x: Tensor, y: Tensor, rows: Sequence[Tensor], keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Return the inputs of ``batch`` for K members; rows are one line of each table, (K, ...), and keys (K,)."""
        ...

    def batch(self, gathered: Sequence[Tensor], carried: Mapping[str, Tensor]) -> Batch | Windows:
        """Return one member's batch; ``carried`` is the state of its last step, usually empty."""
        ...

    def minibatches(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return the input of a network's ``statistics``, (K, minibatches, ...), for rows (K, minibatches, rows)."""
        ...

    def chunks(self, rows: Tensor, at_once: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        """Yield inputs of a network's ``scores``, (K, ...), for rows (K, m), at most ``at_once`` per member. A row -1
        fills a place and has the class -1, which is not counted."""
        ...

    def everything(self) -> Tensor:
        """Return the indices of all examples, (m,)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """A data set with classes: ``x`` (n, ...), ``y`` (n,) int64, -1 without a class; models are trained on
    ``x / full_scale``.

    ``x`` contains whole numbers, with the quotient in 0..1, or float32 numbers.
    """

    x: Tensor
    y: Tensor
    full_scale: float

    def stream(self, spec: MemberSpec) -> BatchRows:
        return BatchRows(spec)

    def rows(self, spec: MemberSpec) -> tuple[int, int]:
        return spec.labelled_rows, spec.unlabelled_rows

    def gather(
        self, x: Tensor, y: Tensor, rows: Sequence[Tensor], keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        labelled, unlabelled = rows
        n = labelled.shape[-1]
        x_labelled = self.drawn(x, labelled, keys, 0, dtype)
        return x_labelled, self.classes(y, labelled), self.drawn(x, unlabelled, keys, n, dtype)

    def batch(self, gathered: Sequence[Tensor], carried: Mapping[str, Tensor]) -> Batch:
        return Batch(*gathered)

    def minibatches(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (self.fixed(rows, dtype),)

    def chunks(self, rows: Tensor, at_once: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        for chunk in torch.split(rows, max(1, at_once), dim=1):
            existing = chunk.clamp(min=0)
            yield self.fixed(existing, dtype), torch.where(chunk < 0, -1, self.classes(self.y, existing))

    def everything(self) -> Tensor:
        return torch.arange(len(self.x), device=self.x.device)

    def classes(self, y: Tensor, rows: Tensor) -> Tensor:
        """Return the classes of rows (...)."""
        return y[rows]

    def drawn(self, x: Tensor, rows: Tensor, keys: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        """Return the inputs of a training step, (K, n, ...), for rows (K, n); ``first`` counts earlier rows."""
        return x[rows].to(dtype) / self.full_scale

    def fixed(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the inputs for evaluation, (..., *shape), for rows (...); identical in every call."""
        return self.x[rows].to(dtype) / self.full_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledRows(TrainingData):
    """Rows of numbers that are imputed and scaled when they are read: row i * n + r is row r of the n rows of ``x``,
    scaled by scaling i, so that members with other training rows share one copy of the data."""

    median: Tensor
    """(scalings, d), as the next two; see ``data.scaling.Scaling``."""
    centre: Tensor
    factor: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, full_scale: float, scalings: Sequence[Scaling]) -> ScaledRows:
        median, centre, factor = (
            torch.stack([getattr(scaling, name) for scaling in scalings]).to(x.device, torch.float32)
            for name in ("median", "centre", "factor")
        )
        return cls(x=x, y=y, full_scale=full_scale, median=median, centre=centre, factor=factor)

    def classes(self, y: Tensor, rows: Tensor) -> Tensor:
        return y[rows % len(y)]

    def drawn(self, x: Tensor, rows: Tensor, keys: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        return self._scaled(x, rows, dtype)

    def fixed(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        return self._scaled(self.x, rows, dtype)

    def _scaled(self, x: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        which = rows // len(x)
        values = (value[which].to(dtype) for value in (self.median, self.centre, self.factor))
        return scaled(x[rows % len(x)].to(dtype), *values)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingDigits(TrainingData):
    """Digits that move behind bars: ``x`` is (n, d, d), and the network sees frames or the parts that they showed.

    Each training step draws new trajectories; evaluations use a fixed one per row.
    """

    renderer: Renderer
    fixed_key: int
    """Key of the fixed trajectories, see ``data.occluded_sets.stream_key``."""
    reconstructed: bool = False
    """Inputs are the visible parts of the digits, d x d pixels, instead of the T frames of S x S."""
    numbers: Tensor
    """0, 1, ... for the rows of a step, stored as a tensor instead of computed by the program, see
    ``Renderer.positions``."""
    shape: tuple[int, ...]
    """Shape of a network input."""

    @property
    def scene(self) -> Scene:
        return self.renderer.scene

    def drawn(self, x: Tensor, rows: Tensor, keys: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        members, n = rows.shape
        numbers = self.numbers[first : first + n].repeat(members)
        return self._inputs(x[rows], step_keys(keys).repeat_interleave(n), numbers, dtype)

    def fixed(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        return self._inputs(self.x[rows], self.fixed_key, rows.flatten(), dtype)

    def _inputs(self, digits: Tensor, key: int | Tensor, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        flat = digits.flatten(0, -3)
        positions = self.renderer.positions(key, numbers)
        if self.reconstructed:
            visible = seen_so_far(self.renderer.visible(positions))[:, -1]
            inputs = flat * visible
        else:
            inputs = self.renderer.frames(flat, positions)
        return inputs.view(*digits.shape[:-2], *self.shape).to(dtype) / self.full_scale


class BatchRows:
    """The stream of a data set with classes: a batch of labelled and one of unlabelled rows per step."""

    def __init__(self, spec: MemberSpec) -> None:
        self._spec = spec
        training, split = spec.training, spec.split
        labelled = min(training.labelled_batch, split.sizes.labelled)
        unlabelled = min(training.unlabelled_batch, split.sizes.unlabelled)
        self._labelled: Batches
        if spec.classes is None:
            self._labelled = BatchStream(split.labelled, labelled, seed=spec.seed, tag=LABELLED)
        else:
            self._labelled = BalancedStream(split.labelled, spec.classes, labelled, seed=spec.seed)
        self._unlabelled = BatchStream(split.unlabelled, unlabelled, seed=spec.seed, tag=UNLABELLED)

    def tables(self, start: int, count: int) -> tuple[NDArray[np.int64], ...]:
        labelled = self._labelled.batches(start, count)
        if not self._spec.unlabelled_rows:
            return labelled, np.empty((count, 0), np.int64)
        return labelled, self._unlabelled.batches(start, count)

    def statistics_rows(self) -> NDArray[np.int64]:
        # If one minibatch is the whole labelled set, all minibatches of the epoch have the same statistics.
        stream, spec = self._labelled, self._spec
        one_batch = stream.constant and spec.split.sizes.equal
        return stream.batches(0, 1 if one_batch else min(spec.model.statistics_batches, spec.steps_per_epoch))
