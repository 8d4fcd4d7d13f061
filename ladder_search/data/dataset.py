"""A data set in memory: rows with classes, or rows that become sequences of images or music."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Notify
from ladder_search.data.splits import Split, make_split
from ladder_search.errors import SettingError

if TYPE_CHECKING:
    from ladder_search.data.drawing import Grouped
    from ladder_search.data.occluded import Scene  # these import torch, and thin trials import this file

PRESENT, FETCHABLE, ABSENT = "present", "can be fetched", "not available here"
"""States of a data set on this machine."""


class Source(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def sources(self) -> tuple[str, ...]:
        """Descriptions of the sources, in order of precedence."""
        ...

    @property
    def identity(self) -> str:
        """Identity of the content, known before it is loaded."""
        ...

    @property
    def examples(self) -> str:
        """Identity of the examples, regardless of their presentation: equal values mean corresponding rows."""
        ...

    def load(self, notify: Notify) -> Dataset: ...

    def state(self) -> str:
        """``PRESENT``, ``FETCHABLE`` or ``ABSENT``; nothing is fetched, read in full or written."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """Rows are digits, (n, d, d), that move in a scene; models see sequences of them."""

    scene: Scene
    reconstructed: bool = False
    """Models see the part of the digit that the frames have shown, an image of d x d pixels, instead of the frames."""

    @property
    def example_shape(self) -> tuple[int, ...]:
        scene = self.scene
        return (1, scene.digit, scene.digit) if self.reconstructed else (scene.frames, scene.side, scene.side)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """Rows are steps, ``train_x`` (1 + steps, 88) after one of silence; examples are pieces of many steps."""

    first: NDArray[np.int64]
    """[pieces]: first row of each piece; training pieces, then validation pieces."""
    lengths: NDArray[np.int64]
    """[pieces]"""
    training: int
    """Number of training pieces."""
    test_first: NDArray[np.int64]
    """[test pieces], in ``test_x``"""
    test_lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set in memory-mapped, read-only arrays."""

    name: str
    train_x: NDArray[Any]
    """[n_train, *shape], pixels in the canonical order: uint8, or int16 for sums of pixels."""
    train_y: NDArray[np.uint8]
    """[n_train], classes 0..n_classes-1."""
    test_x: NDArray[Any]
    """[n_test, *shape]. Read by final training only; searches use the validation error."""
    test_y: NDArray[np.uint8]
    """[n_test]."""
    full_scale: float
    """Models are trained on x = pixel / full_scale, in 0..1."""
    n_classes: int
    digest: str
    """sha256 of the four arrays (``content_digest``), verified by every load; part of a run's provenance."""
    moving: Moving | None = None
    """Set if rows are digits that move."""
    pieces: Pieces | None = None
    """Set if rows are steps of music; classes then have no meaning."""

    grouped: Grouped | None = None
    """Set if rows are drawn as images of several objects with true segments."""

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of a model's input for one example, or for one step of music."""
        drawn = self.moving or self.grouped
        return self.train_x.shape[1:] if drawn is None else drawn.example_shape

    @property
    def numbers(self) -> int:
        """Number of elements of ``example_shape``."""
        return math.prod(self.example_shape)

    @property
    def held_out(self) -> int:
        """Number of the data set's own validation examples, which final trainings hold out too."""
        return 0 if self.pieces is None else len(self.pieces.lengths) - self.pieces.training

    def split(self, *, n_labelled: int | None, n_validation: int | float, seed: int) -> Split:
        """Return the labelled, unlabelled and held-out training examples; see ``make_split``. Music has fixed parts and
        no labels; its validation pieces are all held out or none, else this raises ``SettingError``."""
        if not isinstance(n_validation, int):
            raise SettingError(
                f"{self.name} holds out a whole number of rows, got data.validation={n_validation}; give a number."
            )
        pieces = self.pieces
        if pieces is None:
            return make_split(
                self.train_y, n_labelled=n_labelled, n_validation=n_validation, n_classes=self.n_classes, seed=seed
            )
        n_own = self.held_out
        if n_labelled is not None or n_validation not in (0, n_own):
            raise SettingError(
                f"{self.name} has no labels and {n_own} validation pieces of its own, got data.labels={n_labelled} and "
                f"data.validation={n_validation}; set them to null and {n_own}."
            )
        training = np.arange(pieces.training)
        validation = np.arange(pieces.training, pieces.training + n_validation)
        return Split(labelled=training, unlabelled=training.copy(), validation=validation)
