"""The notation of a recurrent ladder's levels, and their sizes.

A level is written as its convolutions, from below, and its cell, which reads the last of them::

    conv:32:3:2        32 filters of 3 x 3, stride 2; batch-normalised, leaky
    lstm:32:3          a convolutional LSTM of 32 channels with 3 x 3 filters
    gru:32:3           a convolutional GRU
    dense-lstm:256     a fully connected LSTM of 256 units; it reads a map position by position, channels innermost
    dense-gru:256      a fully connected GRU
    dense-rnn:256      a fully connected layer with its output as its state, tanh
    dense:256          a fully connected layer without a state, batch-normalised, leaky
    none               no cell: the level returns the output of its last convolution

"conv:32:3:1 conv:32:3:2 lstm:32:3" is one level; on an unquoted command line a + can replace each space. A stride
reduces a side of n to ceil(n / stride); otherwise maps keep their size. A step of music is a map with one row, the
pitches; its filters are 1 x KERNEL, with strides along it. ``Size`` is (channels, height, width); units of a fully
connected cell are channels of a map of one position.
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
    """A convolution, with kernel and stride as (height, width)."""

    channels: int
    kernel: Pair
    stride: Pair

    def size(self, below: Size) -> Size:
        _, height, width = below
        return self.channels, -(-height // self.stride[0]), -(-width // self.stride[1])


@dataclass(frozen=True, slots=True)
class Cell:
    """The cell of a level; ``kernel`` is None for fully connected cells and for ``none``."""

    kind: str
    units: int = 0
    kernel: Pair | None = None

    @property
    def dense(self) -> bool:
        return self.kind.startswith("dense")

    @property
    def recurrent(self) -> bool:
        return self.kind not in ("dense", "none")

    def size(self, features: Size) -> Size:
        if self.kind == "none":
            return features
        return (self.units, 1, 1) if self.dense else (self.units, *features[1:])


@dataclass(frozen=True, slots=True)
class Level:
    """A level; ``sizes[0]`` is the size of the map below and ``sizes[i]`` that of convolution i."""

    convolutions: tuple[LevelConvolution, ...]
    cell: Cell
    sizes: tuple[Size, ...]

    @property
    def features(self) -> Size:
        """Size of the cell's input from below."""
        return self.sizes[-1]

    @property
    def size(self) -> Size:
        """Size of the level's output e."""
        return self.cell.size(self.features)

    @property
    def stride(self) -> Pair:
        """Ratio of the size of the map below to that of the level's maps."""
        strides = [layer.stride for layer in self.convolutions]
        return math.prod(s[0] for s in strides), math.prod(s[1] for s in strides)

    @property
    def decoded(self) -> Size:
        """Size of d, the output of its decoder cell; for a fully connected cell that of its features."""
        return self.features if self.cell.dense else self.size

    @property
    def kernels(self) -> tuple[Pair, ...]:
        """Kernels of its convolutions and of its cell; at least one."""
        cell = () if self.cell.kernel is None else (self.cell.kernel,)
        return (*(layer.kernel for layer in self.convolutions), *cell) or ((1, 1),)


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
"""Word -> notation."""
_MAP_CELLS = ("lstm", "gru")
"""Kinds of convolutional cells; with the prefix dense- of fully connected ones."""
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


@functools.lru_cache(maxsize=256)
def read_levels(levels: tuple[str, ...], frame: tuple[int, ...]) -> tuple[Level, ...]:
    """Return the parsed ``levels`` on frames of channels, height and width, or channels and width.

    Raises ``UnknownNameError`` for words outside the notation and ``SettingError`` for levels that do not fit.
    """
    if len(frame) not in (2, 3) or min(frame) < 1:
        raise SettingError(
            f"model.frame must be channels, height and width, or channels and pitches, each at least 1, got "
            f"{list(frame)}; write for example [1, 32, 32]."
        )
    if not levels:
        raise SettingError("model.levels must list at least 1 level, got none; write for example dense-lstm:200.")
    below: Size = (frame[0], 1, frame[1]) if len(frame) == 2 else (frame[0], frame[1], frame[2])
    parsed: list[Level] = []
    for text in levels:
        level = _read_level(text, below, flat=len(frame) == 2)
        if parsed and parsed[-1].cell.dense and (level.convolutions or not level.cell.dense):
            raise SettingError(
                f"in model.levels only a fully connected cell may follow a fully connected one, got {text!r:.80}; put "
                "it below."
            )
        parsed.append(level)
        below = level.size
    return tuple(parsed)


def variation_of(levels: tuple[str, ...]) -> dict[str, int | str]:
    """Return the entries that a search may vary.

    These are ``channels`` of the lowest convolution (default 1), ``kernel`` and ``cell`` of the lowest convolutional
    cell (0 and lstm), and ``top``, the units of the highest fully connected layer (0).
    """
    words = [word.split(":") for level in levels for word in _words(level)]
    channels = next((int(word[1]) for word in words if word[0] == "conv"), 1)
    kind, _, kernel = next((word for word in words if word[0] in _MAP_CELLS), ("lstm", "", "0"))
    top = next((int(word[1]) for word in reversed(words) if word[0].startswith("dense")), 0)
    return {"channels": channels, "kernel": int(kernel), "cell": kind, "top": top}


def vary_levels(levels: tuple[str, ...], variation: Mapping[str, int | str]) -> tuple[str, ...]:
    """Return levels with some entries of ``variation_of`` replaced; all channels are scaled in proportion."""
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
    notation = _NUMBERS[kind]
    if len(numbers) != notation.count(":") or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise SettingError(
            f"a {kind} in model.levels is written {notation}, with whole numbers above 0, got {word!r:.60}; correct it."
        )
    sizes = list(map(int, numbers))
    if "KERNEL" in notation and sizes[1] % 2 == 0:
        raise SettingError(
            f"filters in model.levels have an odd size, so that they have a middle, got {word!r:.60}; write "
            f"{sizes[1] + 1} or {sizes[1] - 1}."
        )
    if kind == "conv":
        channels, kernel, stride = sizes
        return LevelConvolution(channels, _pair(kernel, flat=flat), _pair(stride, flat=flat))
    return Cell(kind, sizes[0] if sizes else 0, _pair(sizes[1], flat=flat) if len(sizes) == 2 else None)


def _pair(number: int, *, flat: bool) -> Pair:
    return (1, number) if flat else (number, number)
