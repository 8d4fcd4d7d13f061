"""Levels of recurrent ladders: how they are written, and how large they are.

A level is written as its convolutions, from below, and the cell that reads the last of them::

    conv:32:3:2        32 filters of 3 x 3, stride 2; batch-normalised, leaky
    lstm:32:3          a convolutional LSTM of 32 channels, all its filters 3 x 3
    gru:32:3           a convolutional GRU
    dense-lstm:256     a fully connected LSTM of 256 units; it reads a map place by place, its channels within
    dense-gru:256      a fully connected GRU
    dense-rnn:256      a fully connected layer with itself as its state, tanh
    dense:256          a fully connected layer without a state, batch-normalised, leaky
    none               no cell: the level gives what its last convolution gives

"conv:32:3:1 conv:32:3:2 lstm:32:3" is one level; on a command line that quotes nothing a + does for each space. Maps
keep their size but for strides, where a side of n becomes ceil(n / stride). A step of music is a map of one row, the
pitches; its filters are 1 x KERNEL, its strides along it.

``Size`` is (channels, height, width); units of a fully connected cell are channels of a map of one place.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ladder_search.errors import SettingError, UnknownNameError

Size = tuple[int, int, int]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LevelConvolution:
    """Filters and strides as (height, width)."""

    channels: int
    kernel: Pair
    stride: Pair

    def size(self, below: Size) -> Size:
        """Size of its map."""
        _, height, width = below
        return self.channels, -(-height // self.stride[0]), -(-width // self.stride[1])


@dataclass(frozen=True, slots=True)
class Cell:
    """What a level ends with; ``kernel`` is None where it is fully connected, and of ``none``."""

    kind: str
    units: int = 0
    kernel: Pair | None = None

    @property
    def dense(self) -> bool:
        """Whether it is fully connected."""
        return self.kind.startswith("dense")

    @property
    def recurrent(self) -> bool:
        """Whether it has a state."""
        return self.kind not in ("dense", "none")

    def size(self, features: Size) -> Size:
        """Size of its output."""
        if self.kind == "none":
            return features
        return (self.units, 1, 1) if self.dense else (self.units, *features[1:])


@dataclass(frozen=True, slots=True)
class Level:
    """One level on what is below it: ``sizes[0]`` is the map below, ``sizes[i]`` that of convolution i."""

    convolutions: tuple[LevelConvolution, ...]
    cell: Cell
    sizes: tuple[Size, ...]

    @property
    def features(self) -> Size:
        """Size of what the cell reads from below."""
        return self.sizes[-1]

    @property
    def size(self) -> Size:
        """Size of e, what the level gives up and sideways."""
        return self.cell.size(self.features)

    @property
    def stride(self) -> Pair:
        """By how much its maps are smaller than the one below."""
        strides = [layer.stride for layer in self.convolutions]
        return math.prod(s[0] for s in strides), math.prod(s[1] for s in strides)

    @property
    def decoded(self) -> Size:
        """Size of d, what its decoder cell gives: a fully connected cell's is that of its features."""
        return self.features if self.cell.dense else self.size

    @property
    def kernels(self) -> tuple[Pair, ...]:
        """Of its convolutions and, at last, of its cell; some at least."""
        own = () if self.cell.kernel is None else (self.cell.kernel,)
        return (*(layer.kernel for layer in self.convolutions), *own) or ((1, 1),)


_NUMBERS = {
    "conv": "conv:CHANNELS:KERNEL:STRIDE",
    "lstm": "lstm:CHANNELS:KERNEL",
    "gru": "gru:CHANNELS:KERNEL",
    "dense-lstm": "dense-lstm:UNITS",
    "dense-gru": "dense-gru:UNITS",
    "dense-rnn": "dense-rnn:UNITS",
    "dense": "dense:UNITS",
    "none": "none",
}
"""Word -> how it is written."""
_MAP_CELLS = ("lstm", "gru")
"""Kinds of convolutional cells, and with dense- of fully connected ones."""
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


@functools.lru_cache(maxsize=256)
def read_levels(levels: tuple[str, ...], frame: tuple[int, ...]) -> tuple[Level, ...]:
    """Return the levels that are written as ``levels``, on frames of channels, height and width, or channels and width.

    Raises:
        UnknownNameError: a word that is none of the notation.
        SettingError: a level that cannot be read, or that does not fit on the one below.
    """
    if len(frame) not in (2, 3) or min(frame) < 1:
        raise SettingError(
            f"model.frame must be channels, height and width, or channels and pitches, each at least 1, got "
            f"{list(frame)}; write for example [1, 32, 32]."
        )
    if not levels:
        raise SettingError("model.levels must list at least 1 level, got none; write for example dense-lstm:200.")
    below: Size = (frame[0], 1, frame[1]) if len(frame) == 2 else (frame[0], frame[1], frame[2])
    found: list[Level] = []
    for text in levels:
        level = _read_level(text, below, flat=len(frame) == 2)
        if found and found[-1].cell.dense and (level.convolutions or not level.cell.dense):
            raise SettingError(
                f"in model.levels only a fully connected cell may follow a fully connected one, got {text!r:.80}; put "
                "it below."
            )
        found.append(level)
        below = level.size
    return tuple(found)


def variation_of(levels: tuple[str, ...]) -> dict[str, int | str]:
    """Return what a search may vary of levels.

    That is ``channels`` of the lowest convolution (1 without one), ``kernel`` and ``cell`` of the lowest convolutional
    cell (0 and lstm), and ``top``, the units of the highest fully connected layer (0).
    """
    words = [word.split(":") for level in levels for word in _words(level)]
    channels = next((int(word[1]) for word in words if word[0] == "conv"), 1)
    kind, _, kernel = next((word for word in words if word[0] in _MAP_CELLS), ("lstm", "", "0"))
    top = next((int(word[1]) for word in reversed(words) if word[0].startswith("dense")), 0)
    return {"channels": channels, "kernel": int(kernel), "cell": kind, "top": top}


def vary_levels(levels: tuple[str, ...], variation: Mapping[str, int | str]) -> tuple[str, ...]:
    """Return levels with some entries of ``variation_of`` replaced; all channels stay in proportion."""
    lowest = int(variation_of(levels)["channels"])
    channels = int(variation.get("channels", lowest))

    def varied(word: str) -> str:
        kind, *numbers = word.split(":")
        if kind == "conv" or kind in _MAP_CELLS:
            numbers[0] = str(int(numbers[0]) * channels // lowest)
        if kind in _MAP_CELLS:
            kind, numbers[1] = str(variation.get("cell", kind)), str(variation.get("kernel", numbers[1]))
        elif kind.startswith("dense"):
            numbers[0] = str(variation.get("top", numbers[0]))
            if kind.removeprefix("dense-") in _MAP_CELLS:
                kind = f"dense-{variation.get('cell', kind.removeprefix('dense-'))}"
        return ":".join((kind, *numbers))

    return tuple(" ".join(map(varied, _words(level))) for level in levels)


def _words(level: str) -> list[str]:
    return level.replace("+", " ").split()


def _read_level(text: str, below: Size, *, flat: bool) -> Level:
    words = [_read_word(word, flat=flat) for word in _words(text)]
    convolutions = tuple(word for word in words if isinstance(word, LevelConvolution))
    if not words or not isinstance(words[-1], Cell) or len(convolutions) < len(words) - 1:
        raise SettingError(
            f"a level in model.levels is written as convolutions and then one cell, or none, got {text!r:.80}; write "
            "for example 'conv:32:3:2 lstm:32:3'."
        )
    sizes = [below]
    for convolution in convolutions:
        sizes.append(convolution.size(sizes[-1]))
    if words[-1].kind == "none" and not convolutions:
        raise SettingError(
            f"a level in model.levels without a cell has convolutions, got {text!r:.80}; write some, or leave it out."
        )
    return Level(convolutions, words[-1], tuple(sizes))


def _read_word(word: str, *, flat: bool) -> LevelConvolution | Cell:
    kind, *numbers = word.split(":")
    if kind not in _NUMBERS:
        raise UnknownNameError("word in model.levels", kind, _NUMBERS)
    written = _NUMBERS[kind]
    if len(numbers) != written.count(":") or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise SettingError(
            f"a {kind} in model.levels is written {written}, with whole numbers above 0, got {word!r:.60}; correct it."
        )
    found = list(map(int, numbers))
    if "KERNEL" in written and found[1] % 2 == 0:
        raise SettingError(
            f"filters in model.levels have an odd size, so that they have a middle, got {word!r:.60}; write "
            f"{found[1] + 1} or {found[1] - 1}."
        )
    if kind == "conv":
        channels, kernel, stride = found
        return LevelConvolution(channels, _pair(kernel, flat=flat), _pair(stride, flat=flat))
    return Cell(kind, found[0] if found else 0, _pair(found[1], flat=flat) if len(found) == 2 else None)


def _pair(number: int, *, flat: bool) -> Pair:
    return (1, number) if flat else (number, number)
