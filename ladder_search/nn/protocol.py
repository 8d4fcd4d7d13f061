"""What the training program asks of a model family; families implement it, packs call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from torch import Tensor

Stacking = Literal["vmap", "none"]
"""How K networks of a family become one program: ``torch.func.vmap`` over the model, or not at all, one by one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows: ``x_labelled`` (labelled, ...), ``y`` (labelled,) int64, ``x_unlabelled`` (unlabelled, ...).

    Inputs are pixels in 0..1; they are never standardised, the denoising weights assume raw pixels.
    """

    x_labelled: Tensor
    y: Tensor
    x_unlabelled: Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """One step's windows of sequences, whose state goes on from window to window.

    ``inputs`` and ``targets`` (rows, width, channels) are 0 or 1, an input being the step before its target and zero
    before a sequence's first; ``present`` (rows, width) tells where there is such a step, from each row's first on, and
    ``scored`` which of them count; ``carried`` is the state in which rows begin, name -> (rows, ...).
    """

    inputs: Tensor
    targets: Tensor
    present: Tensor
    scored: Tensor
    carried: Mapping[str, Tensor]


PROGRESS = "progress"
"""Entry of the hyper-parameters that a step adds to the settings' own: the share of the run that is done, a scalar."""


class ModelConfig(Protocol):
    """Settings of a family's model, a frozen dataclass."""

    def signature(self) -> tuple[object, ...]:
        """What members of one pack must share: all that shapes the program rather than fills its tensors."""
        ...

    def hyper(self) -> dict[str, list[float]]:
        """Hyper-parameters that enter the step as tensors, one value per member."""
        ...

    def on_network_of(self, other: Self) -> Self:
        """These settings on the network of ``other``: how a baseline follows a study whose sizes were changed."""
        ...

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Floating-point operations of the matrix products in one step of that many rows."""
        ...

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        ...

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        """Raise ``SettingError``, naming the settings to correct, unless the network suits the data set.

        Args:
            pixels: numbers in one example.
            classes: of the examples.
            dataset: its name, for the message.
        """
        ...


class Column(Protocol):
    """A trained network whose activations a later one reads."""

    def features(self, x: Tensor, *, noise: Mapping[int, Tensor] | None = None) -> list[Tensor]:
        """Activations h_0..h_L of clean inputs under the stored statistics; the last are the logits.

        ``noise`` is added to the activations of the layers that it names, and the layers above read the sum.
        """
        ...


class Columns(Protocol):
    """A network of several columns, whose activations an analysis looks at and disturbs."""

    def source_features(self, x: Tensor) -> list[list[Tensor]]:
        """Activations of every source column on the target's inputs."""
        ...

    def features(self, x: Tensor, *, noise: Mapping[tuple[int, int], Tensor] | None = None) -> list[Tensor]:
        """Activations h_0..h_L of the target column; ``noise`` is by (column, layer), the target being the last."""
        ...


SOURCES = "sources."
"""Prefix of a module's tensors that belong to networks of an earlier stage: constants of the program, one set per
member, which a step reads and never changes."""


class PackModel(Protocol):
    """An ordinary ``nn.Module`` for one trial; a pack stacks K of them along a leading axis.

    A step may compute the layers of ``torch.nn.functional`` (linear, convolutions) in a lower precision; see
    ``training.program.Bfloat16Products``. Networks of an earlier stage are its submodule ``sources``.
    """

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names of the entries of ``cost``'s second result."""
        ...

    @property
    def carried(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of what a row's next window needs to know of this one, without the row's axis; by names."""
        ...

    @property
    def followers(self) -> Mapping[str, str]:
        """Parameters and buffers that no gradient moves, and what each of them follows.

        That is a parameter, or what a step has found: an entry of ``cost``'s third result.
        """
        ...

    def follow_rate(self, hyper: Mapping[str, Tensor]) -> Tensor:
        """Which share of its way a follower goes in a step, a scalar."""
        ...

    @property
    def measures(self) -> tuple[str, ...]:
        """What the network is judged by; searches go by the first."""
        ...

    @property
    def widest(self) -> int:
        """Numbers in the largest layer of one row: of a large network an evaluation takes fewer rows at once."""
        ...

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        """Number of standard normal draws that one step takes for that many rows; windows count as their steps."""
        ...

    def cost(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The scalar that a step differentiates, and its terms, shape (len(term_names),).

        A network that takes ``Windows`` instead of a ``Batch`` returns the new state besides, by the same names; one
        whose followers follow what a step finds returns that.
        """
        ...

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """A sum over rows for every entry of ``measures``, and at last what they are to be divided by.

        Of sequences: ``scores(inputs, targets, scored)``, as in ``Windows``, from their beginning.
        """
        ...

    def statistics(self, x_labelled: Tensor) -> dict[str, Tensor]:
        """Test-time statistics from labelled minibatches, (minibatches, rows, ...): buffer name -> value.

        Of sequences: ``statistics(inputs, present)``, as in ``Windows`` behind an axis of minibatches.
        """
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Class probabilities of clean inputs under the stored statistics."""
        ...
