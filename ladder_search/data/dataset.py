"""A data set in memory: rows with classes, or rows that become sequences of images or music."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Arrays, Notify, content_digest
from ladder_search.data.splits import Split, fold_splits, make_split, stratified_split
from ladder_search.errors import DataError, SettingError

if TYPE_CHECKING:  # they import PyTorch or PyArrow, and thin trials import this file without them
    from ladder_search.data.drawing import Grouped
    from ladder_search.data.files.schema import RowSchema
    from ladder_search.data.occluded import Scene

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
    """[n_train, *shape], pixels in the canonical order: uint8, or int16 for sums of pixels; or float32 numbers."""
    train_y: NDArray[np.integer]
    """[n_train], classes 0..n_classes-1; -1: no label."""
    test_x: NDArray[Any]
    """[n_test, *shape]. Read by final training only; searches use the validation error."""
    test_y: NDArray[np.integer]
    """[n_test], rows of class -1 are not counted."""
    full_scale: float
    """Models are trained on x = pixel / full_scale, in 0..1; 1 for numbers."""
    n_classes: int
    digest: str
    """sha256 of the four arrays (``content_digest``), verified by every load; part of a run's provenance."""
    moving: Moving | None = None
    """Set if rows are digits that move."""
    pieces: Pieces | None = None
    """Set if rows are steps of music; classes then have no meaning."""

    grouped: Grouped | None = None
    """Set if rows are drawn as images of several objects with true segments."""
    classes: tuple[str | int, ...] = ()
    """Names of the classes; empty: their numbers."""
    stratified: bool = False
    """Whether label draws keep the shares of the classes and validation rows come out of the labelled rows, as suits
    data of one's own; False: the rule of the published experiments, see ``splits.make_split``."""

    schema: RowSchema | None = None
    """Columns of the raw rows and how they become ``train_x``; set for data from files."""
    scaled: NDArray[np.bool_] | None = None
    """[inputs], the columns of numbers, which are imputed (NaN: missing) and scaled by what is fitted on the training
    rows of each split, see ``data.scaling``; None: inputs are ``x / full_scale``."""

    @classmethod
    def of_arrays(
        cls,
        x: NDArray[Any],
        y: NDArray[np.integer],
        *,
        classes: Sequence[str | int] = (),
        test_x: NDArray[Any] | None = None,
        test_y: NDArray[np.integer] | None = None,
        full_scale: float = 1.0,
        name: str = "arrays",
        **more: Any,
    ) -> Dataset:
        """Return a data set of arrays in memory, with stratified draws.

        Args:
            x: rows, [n, *shape]: numbers, which become float32, or uint8 pixels.
            y: classes 0..C-1 as integers, [n]; -1: no label.
            classes: names of the C classes; empty: their numbers, and C is one more than the largest.
            test_x: test rows, [m, *shape]; None: there are none.
            test_y: their classes, [m].
            full_scale: models are trained on ``x / full_scale``.
            more: further fields of the data set.

        Raise ``DataError`` if shapes differ, no row has a label, or a class is out of range.
        """
        x, y = _inputs(x), _classes(y)
        test_x = np.zeros((0, *x.shape[1:]), x.dtype) if test_x is None else _inputs(test_x)
        test_y = np.zeros(0, np.int64) if test_y is None else _classes(test_y)
        for part, rows, labels in (("training", x, y), ("test", test_x, test_y)):
            if labels.shape != rows.shape[:1] or rows.shape[1:] != x.shape[1:]:
                raise DataError(
                    f"the {part} part needs one class per row and rows of the shape {x.shape[1:]}, got rows "
                    f"{rows.shape} and classes {labels.shape}; correct the arrays."
                )
        n_classes = len(classes) or int(y.max(initial=-1)) + 1
        if n_classes < 2:
            raise DataError(f"a classifier needs labelled rows of 2 classes or more, got {n_classes}; label more rows.")
        for labels in (y, test_y):
            if labels.min(initial=0) < -1 or labels.max(initial=0) >= n_classes:
                raise DataError(
                    f"classes are whole numbers from 0 to {n_classes - 1}, or -1 for a row without a label, got "
                    f"{int(labels.min())} to {int(labels.max())}; correct them."
                )
        arrays = Arrays(x, y, test_x, test_y)
        return cls(
            name=name,
            **arrays._asdict(),
            full_scale=full_scale,
            n_classes=n_classes,
            digest=content_digest(arrays),
            classes=tuple(classes),
            stratified=True,
            **more,
        )

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
    def facts(self) -> dict[str, Any]:
        """Name, digest, number of training examples and number of columns, as ``provenance.collect`` takes them."""
        columns = self.numbers if self.schema is None else len(self.schema.names)
        return {
            "data_name": self.name,
            "data_digest": self.digest,
            "data_rows": len(self.train_x),
            "data_columns": columns,
        }

    def check_unchanged(self, digest: object, what: str) -> None:
        """Raise ``DataError`` if ``what`` was made from other content of the same files.

        Data sets of the table are identified by their name: their content is fixed, or depends on a font or a decoder.
        Args: ``digest`` is the one that ``what`` recorded; None: unknown.
        """
        if self.schema is not None and digest not in (None, self.digest):
            raise DataError(
                f"{what} belongs to the data that it was made from, and {self.name} has changed since (digest "
                f"{str(digest)[:12]} then, {self.digest[:12]} now); restore the data, or start a new search."
            )

    @property
    def held_out(self) -> int:
        """Number of the data set's own validation examples, which final trainings hold out too."""
        return 0 if self.pieces is None else len(self.pieces.lengths) - self.pieces.training

    def split(
        self, *, n_labelled: int | None, validation: int | float, seed: int, folds: int = 0, fold: int = 0
    ) -> Split:
        """Return the labelled, unlabelled and held-out training examples.

        The rule of the published experiments (``make_split``) holds if the data set is not ``stratified`` and a number
        of rows is held out. A share, folds, and everything of a stratified data set come out of the labelled rows
        (``stratified_split``, ``fold_splits``). Music has fixed parts and no labels; its validation pieces are all held
        out or none, else this raises ``SettingError``.

        Args:
            n_labelled: number of labels; None: all.
            validation: number of held-out examples, or share in 0..1 of the labelled ones.
            seed: of the label draw.
            folds: number of folds; 0: none, and ``validation`` holds.
            fold: the held-out fold, 0 .. folds-1.
        """
        pieces = self.pieces
        if pieces is not None:
            return self._split_of_pieces(pieces, n_labelled, validation, folds)
        draw: dict[str, Any] = {"n_labelled": n_labelled, "n_classes": self.n_classes, "seed": seed}
        if not (self.stratified or folds or isinstance(validation, float)):
            return make_split(self.train_y, n_validation=validation, **draw)
        draw |= {"balanced": not self.stratified, "names": self.classes}
        if folds:
            return fold_splits(self.train_y, folds=folds, **draw)[fold]
        return stratified_split(self.train_y, validation=validation, **draw)

    def _split_of_pieces(self, pieces: Pieces, n_labelled: int | None, validation: int | float, folds: int) -> Split:
        n_own = self.held_out
        if n_labelled is not None or validation not in (0, n_own) or folds:
            raise SettingError(
                f"{self.name} has no labels and {n_own} validation pieces of its own, got data.labels={n_labelled}, "
                f"data.validation={validation} and data.folds={folds}; set them to null, {n_own} and 0."
            )
        training = np.arange(pieces.training)
        held_out = np.arange(pieces.training, pieces.training + int(validation))
        return Split(labelled=training, unlabelled=training.copy(), validation=held_out)


def _inputs(x: NDArray[Any]) -> NDArray[Any]:
    x = np.ascontiguousarray(x)
    return x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)


def _classes(y: NDArray[np.integer]) -> NDArray[np.integer]:
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"classes must be whole numbers, got an array of {y.dtype}; number them from 0.")
    return y.astype(np.int64, copy=False)
