"""What a pack reads: the data on its device, and the way from the rows that a step's tables name to a batch.

A feed has two halves. On the host a member's *stream* tells which rows a step reads, as tables that are made for many
steps at once; on the device ``gather`` turns one line of those tables into tensors, inside the step's program. Nothing
there is a generator: a batch is a function of (data, rows, key of the step), so members may join, move and stand still.
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
from ladder_search.data.streams import LABELLED, UNLABELLED, BatchStream
from ladder_search.nn.protocol import Batch, Windows
from ladder_search.training.member import MemberSpec


class Stream(Protocol):
    """Which rows a member reads, a pure function of its seed and the step."""

    def tables(self, start: int, count: int) -> tuple[NDArray[np.int64], ...]:
        """Return the tables of steps from ``start`` on, each [count, ...], of the same shape for all members."""
        ...

    def statistics_rows(self) -> NDArray[np.int64]:
        """Return the minibatches of training rows that the test-time statistics average, [minibatches, rows]."""
        ...


class Feed(Protocol):
    """Data on a device; ``x`` and ``y`` go through a step's arguments, because a captured program holds no data."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor: ...

    def stream(self, spec: MemberSpec) -> Stream: ...

    def rows(self, spec: MemberSpec) -> tuple[int, int]:
        """Labelled and unlabelled rows of a step, as ``noise_size`` of a network counts them."""
        ...

    def gather(
        self, x: Tensor, y: Tensor, rows: Sequence[Tensor], keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Return what ``batch`` needs of K members; rows are one line of each table, (K, ...), and keys (K,)."""
        ...

    def batch(self, gathered: Sequence[Tensor], carried: Mapping[str, Tensor]) -> Batch | Windows:
        """Return one member's batch; ``carried`` is what its last step left, empty for most."""
        ...

    def minibatches(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return what a network's ``statistics`` takes: (K, minibatches, ...), of rows (K, minibatches, rows)."""
        ...

    def chunks(self, rows: Tensor, at_once: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        """Yield what a network's ``scores`` takes, (K, ...), of rows (K, m), at most so many of a member at a time."""
        ...

    def everything(self) -> Tensor:
        """Return all rows, (m,)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """A data set of rows with classes: ``x`` (n, ...), ``y`` (n,) int64; models are trained on ``x / full_scale``.

    ``x`` is of whole numbers and the quotient in 0..1, or float32 and whitened.
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
        return x_labelled, y[labelled], self.drawn(x, unlabelled, keys, n, dtype)

    def batch(self, gathered: Sequence[Tensor], carried: Mapping[str, Tensor]) -> Batch:
        return Batch(*gathered)

    def minibatches(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (self.fixed(rows, dtype),)

    def chunks(self, rows: Tensor, at_once: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        for chunk in torch.split(rows, max(1, at_once), dim=1):
            yield self.fixed(chunk, dtype), self.y[chunk]

    def everything(self) -> Tensor:
        return torch.arange(len(self.x), device=self.x.device)

    def drawn(self, x: Tensor, rows: Tensor, keys: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        """Return the inputs of a training step, (K, n, ...) of rows (K, n); ``first`` counts the rows before them."""
        return x[rows].to(dtype) / self.full_scale

    def fixed(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the inputs that networks are evaluated on, (..., *shape) of rows (...): the same in every call."""
        return self.x[rows].to(dtype) / self.full_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingDigits(TrainingData):
    """Digits that move behind bars: a row is a digit, ``x`` (n, d, d); the network sees frames, or what they showed.

    In training each step draws trajectories of its own; evaluations have a fixed one for every row.
    """

    renderer: Renderer
    fixed_key: int
    """Of the stream of fixed trajectories, see ``data.occluded_sets.stream_key``."""
    reconstructed: bool = False
    """Inputs are what the frames have shown of the digits, d x d pixels, in place of the T frames of S x S."""
    numbers: Tensor
    """0, 1, ... as many as a step has rows: a table in memory and no arithmetic of a program, see
    ``Renderer.positions``."""
    shape: tuple[int, ...]
    """Of an input, as the network takes it."""

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
            seen = seen_so_far(self.renderer.visible(positions))[:, -1]
            found = flat * seen
        else:
            found = self.renderer.frames(flat, positions)
        return found.view(*digits.shape[:-2], *self.shape).to(dtype) / self.full_scale


class BatchRows:
    """The stream of a data set of rows: a batch of labelled and one of unlabelled rows for each step."""

    def __init__(self, spec: MemberSpec) -> None:
        self._spec = spec
        training, split = spec.training, spec.split
        self._labelled = BatchStream(split.labelled, training.labelled_batch, seed=spec.seed, tag=LABELLED)
        self._unlabelled = BatchStream(split.unlabelled, training.unlabelled_batch, seed=spec.seed, tag=UNLABELLED)

    def tables(self, start: int, count: int) -> tuple[NDArray[np.int64], ...]:
        labelled = self._labelled.batches(start, count)
        if not self._spec.unlabelled_rows:
            return labelled, np.empty((count, 0), np.int64)
        return labelled, self._unlabelled.batches(start, count)

    def statistics_rows(self) -> NDArray[np.int64]:
        # Where one minibatch is the whole labelled set, every minibatch of the epoch has the same statistics.
        stream, spec = self._labelled, self._spec
        whole = stream.batches_per_pass == 1 and stream.batch_size == len(spec.split.labelled)
        return stream.batches(0, 1 if whole else min(spec.model.statistics_batches, spec.steps_per_epoch))
