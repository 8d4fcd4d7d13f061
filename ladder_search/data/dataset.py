"""A data set in memory: rows with classes, or what moves and sounds and is made into rows step by step."""

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
    from ladder_search.data.occluded import Scene  # it imports torch, and thin trials import this file

PRESENT, FETCHABLE, ABSENT = "present", "can be fetched", "cannot be had here"
"""The states of a data set on this machine."""


class Source(Protocol):
    """A row of the table of data sets."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def sources(self) -> tuple[str, ...]:
        """In words, in the order in which they are tried."""
        ...

    @property
    def identity(self) -> str:
        """Names the content before it is loaded."""
        ...

    @property
    def examples(self) -> str:
        """Names the examples, whatever models see of them: the rows of equal ones are about the same things."""
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
    """Models see what the frames have shown of the digit, an image of d x d pixels, and not the frames."""

    @property
    def example_shape(self) -> tuple[int, ...]:
        scene = self.scene
        return (1, scene.digit, scene.digit) if self.reconstructed else (scene.frames, scene.side, scene.side)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """Rows are steps, ``train_x`` (1 + steps, 88) behind one of silence; examples are pieces of many steps."""

    first: NDArray[np.int64]
    """[pieces]: each piece's first row; training pieces, then those that searches go by."""
    lengths: NDArray[np.int64]
    """[pieces]"""
    training: int
    """How many of them are trained on."""
    test_first: NDArray[np.int64]
    """[test pieces], in ``test_x``"""
    test_lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set in memory-mapped arrays. They are read-only: copy them before writing."""

    name: str

    train_x: NDArray[Any]
    """[n_train, *shape], pixels in the canonical order: uint8, or int16 where a pixel is a sum of some."""

    train_y: NDArray[np.uint8]
    """[n_train], classes 0..n_classes-1."""

    test_x: NDArray[Any]
    """[n_test, *shape]. Read by final training alone: searches go by validation error."""

    test_y: NDArray[np.uint8]
    """[n_test]."""

    full_scale: float
    """x = pixel / full_scale lies in 0..1: what the models are trained on."""

    n_classes: int

    digest: str
    """sha256 of the four arrays (``content_digest``), verified by every load; goes into a run's provenance."""

    moving: Moving | None = None
    """Rows are not what models see: they are made to move."""

    pieces: Pieces | None = None
    """Rows are steps of music, and classes have no meaning."""

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of what a model is shown of one example, of music of one step."""
        return self.train_x.shape[1:] if self.moving is None else self.moving.example_shape

    @property
    def numbers(self) -> int:
        """How many numbers ``example_shape`` has."""
        return math.prod(self.example_shape)

    @property
    def held_out(self) -> int:
        """Examples for validation that are the data's own, and are held out of final trainings, too."""
        return 0 if self.pieces is None else len(self.pieces.lengths) - self.pieces.training

    def split(self, *, n_labelled: int | None, n_validation: int, seed: int) -> Split:
        """Return which training examples are labelled, unlabelled and held out, see ``make_split``.

        Music has parts of its own, the same for every seed: its pieces have no labels, and those for validation are
        all held out or none.

        Raises:
            SettingError: a number that breaks its rule.
        """
        pieces = self.pieces
        if pieces is None:
            return make_split(
                self.train_y, n_labelled=n_labelled, n_validation=n_validation, n_classes=self.n_classes, seed=seed
            )
        own = self.held_out
        if n_labelled is not None or n_validation not in (0, own):
            raise SettingError(
                f"{self.name} has no labels and {own} validation pieces of its own, got data.labels={n_labelled} and "
                f"data.validation={n_validation}; set them to null and {own}."
            )
        training = np.arange(pieces.training)
        held = np.arange(pieces.training, pieces.training + n_validation)
        return Split(labelled=training, unlabelled=training.copy(), validation=held)
