"""What the training program requires of a family's settings, and what a step of it reads; packs call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from torch import Tensor, nn

from ladder_search.metrics import MEASURES, Measure

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

    ``inputs`` and ``targets`` (rows, width, channels) are 0 or 1; an input is the step before its target, and zero
    before a sequence's first. ``present`` (rows, width) marks where there is such a step, from each row's first on, and
    ``scored`` the steps that count; ``carried`` is the state in which rows begin, name -> (rows, ...).
    """

    inputs: Tensor
    targets: Tensor
    present: Tensor
    scored: Tensor
    carried: Mapping[str, Tensor]


PROGRESS = "progress"
"""Entry of the hyper-parameters that a step adds to the settings' own: the share of the run that is done, a scalar."""

SOURCES = "sources."
"""Prefix of a module's tensors that belong to networks of an earlier stage: constants of the program, one set per
member, which a step reads and never changes."""


class ModelConfig(Protocol):
    """Settings of a family's model: a frozen dataclass that inherits from this class.

    Members with a body are optional; their defaults are those of a classifier of rows that stand alone.
    """

    __slots__ = ()

    def signature(self) -> tuple[object, ...]:
        """Return what members of one pack must share: all that shapes the program rather than fills its tensors."""
        ...

    def hyper(self) -> dict[str, list[float]]:
        """Return the hyper-parameters that enter the step as tensors, one value per member."""
        ...

    def on_network_of(self, other: Self) -> Self:
        """Return these settings on the network of ``other``, for a baseline of a study whose sizes were changed."""
        ...

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the floating-point operations of the matrix products in one step of that many rows.

        Rows of sequences are counted as their steps.
        """
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

    @property
    def measures(self) -> tuple[str, ...]:
        """What the network is judged by, as names in ``metrics``; searches minimise the first."""
        return ("error",)

    @property
    def measure(self) -> Measure:
        """What searches minimise."""
        return MEASURES[self.measures[0]]

    @property
    def teachable(self) -> bool:
        """Whether the network can have a mean teacher; it is then a ``nn.network.Teachable``."""
        return False

    @property
    def reads_unlabelled(self) -> bool:
        """Whether a step reads unlabelled rows."""
        return True

    @property
    def statistics_batches(self) -> int:
        """Largest number of minibatches that test-time statistics are averaged over."""
        return 10**9

    @property
    def in_turn(self) -> int:
        """How many times a step runs the network one after the other on each row: on frames of a video, for example."""
        return 1

    def variation(self) -> dict[str, int | str]:
        """Return the numbers and names in a notation of layers that a search may vary; none by default."""
        return {}

    def varied(self, variation: Mapping[str, int | str]) -> Self:
        """Return these settings with some entries of ``variation`` replaced."""
        return self


class ColumnConfig(ModelConfig):
    """Settings of a network that can be an earlier stage; the network is a ``nn.network.Column``."""

    __slots__ = ()

    @property
    def activation(self) -> str:
        """Nonlinearity of the hidden layers."""
        raise NotImplementedError

    @property
    def architecture(self) -> tuple[object, ...]:
        """The layers as they are written; columns with the same ones have weights of the same shapes."""
        raise NotImplementedError

    @property
    def sizes(self) -> Sequence[tuple[int, int, int]]:
        """Channels, height and width of layers 0..L; units of a fully connected layer are channels of one place."""
        raise NotImplementedError


class StagedConfig(ModelConfig):
    """Settings of a network that may be trained beside, or from, networks of an earlier stage: its sources."""

    __slots__ = ()

    @property
    def staged(self) -> bool:
        """Whether the network uses its sources."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """What pixels in 0..1 are multiplied by before sources read them."""
        raise NotImplementedError

    def check_sources(self, models: Mapping[str, ColumnConfig]) -> None:
        """Raise ``SettingError`` when sources with these settings cannot serve the network."""
        raise NotImplementedError

    def taken_over(self, sources: Sequence[nn.Module]) -> dict[str, Tensor]:
        """Return what a network of these settings takes over from its sources: names in its state -> values."""
        raise NotImplementedError
