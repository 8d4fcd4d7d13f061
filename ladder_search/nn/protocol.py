"""Interface between a family's settings and the training program, and the inputs of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from torch import Tensor, nn

from ladder_search.errors import SettingError
from ladder_search.metrics import MEASURES, Measure

Stacking = Literal["vmap", "none"]
"""How K networks of a family become one program: with ``torch.func.vmap``, or one after another."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a step: ``x_labelled`` (labelled, ...), ``y`` (labelled,) int64 or, of images with several classes, k-hot
    (labelled, classes), ``x_unlabelled`` (unlabelled, ...).

    Inputs are pixels in 0..1 without standardisation, because the denoising weights assume raw pixels.
    """

    x_labelled: Tensor
    y: Tensor
    x_unlabelled: Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of sequences of a step, with a state that is passed from window to window.

    ``inputs`` and ``targets`` (rows, width, channels) are 0 or 1; an input is the step before its target, and zero
    before a sequence's first. ``present`` (rows, width) marks existing steps, which come first in each row, and
    ``scored`` the steps that count; ``carried`` is the rows' initial state, name -> (rows, ...).
    """

    inputs: Tensor
    targets: Tensor
    present: Tensor
    scored: Tensor
    carried: Mapping[str, Tensor]


PROGRESS = "progress"
"""Hyper-parameter added by the training program: the fraction of the run that is completed, a scalar."""

SOURCES = "sources."
"""Prefix of a module's tensors of earlier stages: constants of the program, one set per member, which steps do not
change."""


class ModelConfig(Protocol):
    """Settings of a model, a frozen dataclass; the default methods are those of a classifier of independent rows."""

    __slots__ = ()

    def signature(self) -> tuple[object, ...]:
        """Return what members of a pack must share: all settings that shape the program and not only its data."""
        ...

    def hyper(self) -> dict[str, list[float]]:
        """Return the hyper-parameters that enter the step as tensors, with their values."""
        ...

    def on_network_of(self, other: Self) -> Self:
        """Return these settings on the network of ``other``, for baselines of a study with changed sizes."""
        ...

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the operations of a step's matrix products for these rows; sequences are counted by their steps."""
        ...

    @property
    def example_shape(self) -> tuple[int, ...]: ...

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        """Raise ``SettingError`` unless the network fits the data set's ``pixels`` per example and ``classes``."""
        ...

    @property
    def measures(self) -> tuple[str, ...]:
        """What the network is judged by, as names in ``metrics``; searches minimise the first."""
        return ("error",)

    @property
    def measure(self) -> Measure:
        return MEASURES[self.measures[0]]

    @property
    def teachable(self) -> bool:
        """Whether the network can have a mean teacher; it is then a ``nn.network.Teachable``."""
        return False

    @property
    def reads_several_classes(self) -> bool:
        """Whether the classes of an image with several objects may be k-hot rows."""
        return False

    @property
    def reads_unlabelled(self) -> bool:
        return True

    @property
    def statistics_batches(self) -> int:
        """Largest number of minibatches for test-time statistics."""
        return 10**9

    @property
    def in_turn(self) -> int:
        """Number of sequential runs of the network on each row of a step, for example on frames of a video."""
        return 1

    def variation(self) -> dict[str, int | str]:
        """Return the entries of a layer notation that a search may vary; none by default."""
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
        """The layers in their notation; columns with equal ones have weights of equal shapes."""
        raise NotImplementedError

    @property
    def sizes(self) -> Sequence[tuple[int, int, int]]:
        """Channels, height and width of layers 0..L; units of a fully connected layer are channels of one position."""
        raise NotImplementedError


class WidthsConfig(ColumnConfig):
    """Settings of a network of fully connected layers."""

    __slots__ = ()

    widths: tuple[int, ...]
    """Units of layers 0..L: input, hidden layers, classes."""

    @property
    def depth(self) -> int:
        """L, the number of layers above the input."""
        return len(self.widths) - 1

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (self.widths[0],)

    @property
    def architecture(self) -> tuple[object, ...]:
        return (self.widths,)

    @property
    def sizes(self) -> Sequence[tuple[int, int, int]]:
        return [(width, 1, 1) for width in self.widths]

    def check_widths(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise SettingError(
                f"model.widths must list at least 2 positive sizes, got {list(self.widths)}; "
                "give input, hidden and class sizes."
            )

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        if (self.widths[0], self.widths[-1]) != (pixels, classes):
            raise SettingError(
                f"model.widths must start with the {pixels} pixels and end with the {classes} classes of {dataset}, "
                f"got {list(self.widths)}; correct its first and last entries."
            )


class StagedConfig(ModelConfig):
    """Settings of a network that may use or start from networks of an earlier stage, its sources."""

    __slots__ = ()

    @property
    def staged(self) -> bool:
        """Whether the network uses its sources."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """Factor applied to pixels in 0..1 before sources read them."""
        raise NotImplementedError

    def check_sources(self, models: Mapping[str, ColumnConfig]) -> None:
        """Raise ``SettingError`` if sources with these settings do not fit the network."""
        raise NotImplementedError

    def taken_over(self, sources: Sequence[nn.Module]) -> dict[str, Tensor]:
        """Return the initial values and constants taken from sources: name in the network's state -> value."""
        raise NotImplementedError
