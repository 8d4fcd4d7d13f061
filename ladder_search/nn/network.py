"""Base classes of networks: the interface between families and the training program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ladder_search.nn.classes import wrong
from ladder_search.nn.judging import class_sums
from ladder_search.nn.protocol import Batch, ColumnConfig


class Network(nn.Module, ABC):
    """A module for one trial; a pack stacks K of them along a leading axis.

    The defaults are those of a network that is judged by its classification error and carries no state between steps.
    A step may compute the layers of ``torch.nn.functional`` (linear, convolutions) in a lower precision; see
    ``training.program.Bfloat16Products``. Networks of an earlier stage are the submodule ``sources``. Calling a network
    returns class probabilities of clean inputs with the stored statistics.
    """

    @property
    @abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """Names of the entries of ``cost``'s second result."""

    @property
    @abstractmethod
    def widest(self) -> int:
        """Numbers in the largest layer of one row, which limits the rows of an evaluation's calls."""

    @property
    def scored_rows(self) -> int | None:
        """Rows of each call of ``scores``, if scores depend on them, as with the statistics of the evaluated batch;
        None: any number."""
        return None

    @property
    def carried(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes, without the row's axis, of a row's state at the start of a window."""
        return {}

    @property
    def followers(self) -> Mapping[str, str]:
        """Parameters and buffers without a gradient, and what each follows: a parameter or an entry of ``cost``'s third
        result."""
        return {}

    def follow_rate(self, hyper: Mapping[str, Tensor]) -> Tensor:
        """Return the fraction by which followers move in a step, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no followers")

    @property
    def measures(self) -> tuple[str, ...]:
        """What the network is judged by, as names in ``metrics``; searches minimise the first."""
        return ("error",)

    @abstractmethod
    def noise_size(self, labelled: int, unlabelled: int) -> int:
        """Return the number of standard normal draws of a step with these rows; windows count as their steps."""

    @abstractmethod
    def cost(
        self, batch: Any, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the scalar cost of a step, and its terms, shape (len(term_names),).

        Third, a network for ``Windows`` returns its new state, and one with followers the values that they follow.
        """

    def scores(self, *examples: Any, **named: Any) -> Tensor:
        """Return a sum over rows for every entry of ``measures``, followed by their common divisor.

        The arguments are inputs (rows, ...) and classes (rows,), -1 for rows that are not counted, or k-hot classes
        (rows, classes); for sequences inputs, targets and scored steps of whole sequences, as in ``Windows``.
        """
        x, y = examples
        found = self(x)
        if y.dim() > 1:
            errors = wrong(found, y)
            return torch.stack([errors.sum(), torch.full_like(errors[0], len(y))])
        counted = y >= 0
        return torch.stack([((found.argmax(-1) != y) & counted).sum(), counted.sum()])

    def class_sums(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sums of ``judging.class_sums``, then those of further ``measures`` besides the error, float64.
        Arguments as for ``scores`` of a classifier."""
        return class_sums(self(x), y)

    @abstractmethod
    def statistics(self, *minibatches: Any, **named: Any) -> dict[str, Tensor]:
        """Return test-time statistics of labelled minibatches, (minibatches, rows, ...): buffer name -> value.

        For sequences the arguments are inputs and present steps, as in ``Windows`` with a leading axis of minibatches.
        """

    def half_squares(self, names: Container[str]) -> Tensor:
        """Return half the sum of the squared parameters with one of these names, for weight decay."""
        named = self.named_parameters()
        squares = [value.square().sum() for name, value in named if name.rpartition(".")[2] in names]
        return 0.5 * torch.stack(squares).sum()


class Teachable(Network):
    """A classifier that can have a mean teacher, see ``nn.mean_teacher``. Its buffers are test-time statistics."""

    @abstractmethod
    def cost_with_logits(
        self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the cost of one step, its terms, and the logits of all classified rows."""

    @abstractmethod
    def noisy_logits(
        self, x: Tensor, noise: Tensor, hyper: Mapping[str, Tensor], found: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Return the logits of inputs under noise, normalised by their own statistics: (rows, ...) -> (rows, classes).

        ``x`` is normalised as one group of 2 or more rows; ``noise`` are standard normal draws, (logits_noise_size,);
        ``found`` receives the statistics of this path, named as in ``statistics``, unless it is None.
        """

    @abstractmethod
    def logits_noise_size(self, rows: int) -> int:
        """Return the number of standard normal draws of ``noisy_logits``."""


class Column(Network):
    """A network whose activations a network of a later stage can read."""

    config: ColumnConfig

    @abstractmethod
    def features(self, x: Tensor, *, noise: Mapping[int, Tensor] | None = None) -> list[Tensor]:
        """Return the activations h_0..h_L of clean inputs with the stored statistics; the last are the logits.

        ``noise``, layer -> values, is added to the layer's activations for the layers above.
        """


class Columns(Network):
    """A network of several columns, whose activations an analysis can read and perturb."""

    @abstractmethod
    def source_features(
        self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None
    ) -> list[list[Tensor]]:
        """Return the activations of every source column on the target's inputs; ``noise`` as for ``features``."""

    @abstractmethod
    def features(self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None) -> list[Tensor]:
        """Return the target column's activations h_0..h_L with the stored statistics; the last are the logits.

        ``noise``, (column, layer) -> values in the layer's shape, is added and propagated in its own column and through
        the laterals; columns are the sources from 0, then the target.
        """
