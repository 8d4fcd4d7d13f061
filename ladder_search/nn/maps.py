"""Layers of networks for images: notation, sizes, encoder and decoder operations.

A layer is written in the notation of Rasmus et al.'s code::

    convv:64:3:1     64 filters of 3 x 3, stride 1, without padding ("valid"): a map shrinks by 2
    convf:64:3:1     the same with full padding ("full"): a map grows by 2
    maxpool:2:2      maxima of 2 x 2, stride 2; windows cut by the border count, so 15 becomes 8
    globalmeanpool   mean over all positions, one number per channel
    fc:10            10 units, each connected to all numbers below

The decoder inverts a valid convolution with a full one and vice versa, with its own filters, a stride with zeros in
between, a pool with repetition, and a mean with broadcasting; positions beyond the size of the layer below are cut.

Maps have the shape (rows, height, width, channels); a vector is a map of one position. ``Size`` is (channels, height,
width). Encoder filters are not flipped as in the original code, which is equivalent up to the naming of weights.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.nn.protocol import ColumnConfig

Size = tuple[int, int, int]
Shape = tuple[int, ...]


class Layer:
    """A layer on a map of size ``below``, see ``read_network``; the defaults are those of a layer without weights."""

    __slots__ = ()

    pools: ClassVar[bool] = False
    """Whether the layer has neither weights nor, unless it is the last, a nonlinearity."""

    def size(self, below: Size) -> Size:
        raise NotImplementedError

    def shape(self, below: Size) -> Shape:
        """Return the shape of its weights, (out, in, ...); () without weights."""
        return ()

    def shape_down(self, below: Size) -> Shape:
        """Return the shape of the decoder's weights, likewise."""
        return ()

    def flops(self, below: Size) -> float:
        """Return the floating-point operations of one row's product in the encoder."""
        return 0.0

    def flops_down(self, below: Size) -> float:
        """Return those of one row's product in the decoder."""
        return self.flops(below)

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        """Return the layer's pre-activations from the map below, both (rows, height, width, channels)."""
        raise NotImplementedError

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        """Return the signal for the layer below from the estimate: a map, or (rows, units) if fully connected."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """``channels`` filters of ``kernel`` x ``kernel``, valid or full as described in the module."""

    channels: int
    kernel: int
    stride: int
    full: bool

    def size(self, below: Size) -> Size:
        _, height, width = below
        edge = self.kernel - 1
        if not self.full and min(height, width) <= edge:
            raise SettingError(
                f"a valid convolution needs a map at least as large as its {self.kernel} x {self.kernel} filters, "
                f"got {height} x {width} below it in model.layers; make them smaller or write convf."
            )
        grown = edge if self.full else -edge
        return self.channels, -(-(height + grown) // self.stride), -(-(width + grown) // self.stride)

    def shape(self, below: Size) -> Shape:
        return self.channels, below[0], self.kernel, self.kernel

    def shape_down(self, below: Size) -> Shape:
        return below[0], self.channels, self.kernel, self.kernel

    def flops(self, below: Size) -> float:
        return 2.0 * math.prod(self.shape(below)) * math.prod(self.size(below)[1:])

    def flops_down(self, below: Size) -> float:
        _, height, width = self.size(below)
        if self.full:
            height, width = (n * self.stride - self.kernel + 1 for n in (height, width))
        return 2.0 * math.prod(self.shape_down(below)) * height * width

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        padding = self.kernel - 1 if self.full else 0
        return _last(functional.conv2d(_first(h), weight, stride=self.stride, padding=padding))

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        assert weight is not None
        u, s = _first(z_hat), self.stride
        if not self.full:
            # Each value adds a filter, which equals the full convolution without its zeros: a hundredth of the products
            # for Conv-FC's 26 x 26 filters on a 3 x 3 map. Positions that no filter reaches, if s > 1, are zero.
            short = tuple((n - self.kernel) % s for n in below[1:])
            return _last(functional.conv_transpose2d(u, weight.transpose(0, 1), stride=s, output_padding=short))
        if s > 1:
            # Insert an axis of length s after height and width, zero except for its first entry.
            u = functional.pad(u[:, :, :, None, :, None], (0, s - 1, 0, 0, 0, s - 1))
            u = u.flatten(4, 5).flatten(2, 3)
        return _last(functional.conv2d(u, weight))[:, : below[1], : below[2]]


@dataclass(frozen=True, slots=True)
class MaxPool(Layer):
    """Maxima over non-overlapping windows of ``window`` x ``window`` positions.

    As in the original code, windows cut by the border count: 15 x 15 pooled by 2 becomes 8 x 8. Frameworks drop them by
    default and return 7 x 7, which results in another network.
    """

    window: int
    pools: ClassVar[bool] = True

    def size(self, below: Size) -> Size:
        channels, height, width = below
        return channels, -(-height // self.window), -(-width // self.window)

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        return _last(functional.max_pool2d(_first(h), self.window, ceil_mode=True))

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        repeated = z_hat[:, :, None, :, None].expand(-1, -1, self.window, -1, self.window, -1)
        return repeated.flatten(3, 4).flatten(1, 2)[:, : below[1], : below[2]]


@dataclass(frozen=True, slots=True)
class GlobalMeanPool(Layer):
    """Mean over all positions times width * sqrt(3), the original scale, which batch normalisation mostly removes."""

    pools: ClassVar[bool] = True

    def size(self, below: Size) -> Size:
        return below[0], 1, 1

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        return h.mean((1, 2), keepdim=True) * (h.shape[2] * math.sqrt(3.0))

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        return z_hat.expand(-1, below[1], below[2], -1)


@dataclass(frozen=True, slots=True)
class FullyConnected(Layer):
    """``units`` units; a map below is read position by position, channels innermost."""

    units: int

    def size(self, below: Size) -> Size:
        return self.units, 1, 1

    def shape(self, below: Size) -> Shape:
        return self.units, math.prod(below)

    def shape_down(self, below: Size) -> Shape:
        return math.prod(below), self.units

    def flops(self, below: Size) -> float:
        return 2.0 * math.prod(self.shape(below))

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return functional.linear(h.flatten(1), weight)[:, None, None]

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        assert weight is not None
        return functional.linear(z_hat.flatten(1), weight)


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers 1..L, and the sizes of layers 0..L: layer l is ``layers[l - 1]`` and has size ``sizes[l]``."""

    layers: tuple[Layer, ...]
    sizes: tuple[Size, ...]


def start(shape: Shape, generator: torch.Generator) -> Tensor:
    """Return initial weights with variance 1/fan_in, uniform for filters and normal for full connections."""
    fan_in = math.prod(shape[1:])
    if len(shape) == 4:
        return (2.0 * torch.rand(shape, generator=generator) - 1.0) * math.sqrt(3.0 / fan_in)
    return torch.randn(shape, generator=generator) / math.sqrt(fan_in)


# kind: its notation and its constructor
_KINDS: dict[str, tuple[str, Callable[..., Layer]]] = {
    "convv": ("convv:CHANNELS:KERNEL:STRIDE", lambda c, k, s: Convolution(c, k, s, full=False)),
    "convf": ("convf:CHANNELS:KERNEL:STRIDE", lambda c, k, s: Convolution(c, k, s, full=True)),
    "maxpool": ("maxpool:STRIDE:SIZE", lambda stride, size: MaxPool(size)),
    "globalmeanpool": ("globalmeanpool", GlobalMeanPool),
    "fc": ("fc:UNITS", FullyConnected),
}
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def read_layer(text: str) -> Layer:
    """Return the layer with the notation ``text``, or raise ``UnknownNameError`` or ``SettingError``."""
    kind, *numbers = text.split(":")
    if kind not in _KINDS:
        raise UnknownNameError("layer in model.layers", kind, _KINDS)
    notation, make = _KINDS[kind]
    if len(numbers) != notation.count(":") or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise SettingError(
            f"a layer {kind} in model.layers is written {notation}, with whole numbers above 0, got {text!r:.60}; "
            "correct it."
        )
    if kind == "maxpool" and (numbers[0] != numbers[1] or numbers[0] == "1"):
        raise SettingError(
            f"a maxpool in model.layers has windows of 2 or more that do not overlap, got {text!r:.60}; "
            "give stride and size the same number."
        )
    return make(*map(int, numbers))


@functools.lru_cache(maxsize=256)
def read_network(layers: tuple[str, ...], image: Size) -> Stack:
    """Return the network with the notation ``layers`` on images of size ``image``.

    Raises ``UnknownNameError`` or ``SettingError`` unless the layers fit and the last one returns one number per class.
    """
    if min(image) < 1:
        raise SettingError(
            f"model.image must be channels, height and width, each at least 1, got {list(image)}; correct it."
        )
    if not layers:
        raise SettingError("model.layers must list at least 1 layer, got none; end them with fc:CLASSES.")
    parsed, sizes, connected = [], [image], False
    for text in layers:
        layer = read_layer(text)
        if connected and not isinstance(layer, FullyConnected):
            raise SettingError(
                f"in model.layers only fc may follow fc, got {text!r}; put it before the first fully connected layer."
            )
        connected = isinstance(layer, FullyConnected)
        parsed.append(layer)
        sizes.append(layer.size(sizes[-1]))
    channels, height, width = sizes[-1]
    if (height, width) != (1, 1):
        raise SettingError(
            f"the last of model.layers must leave one number per class, got {channels} x {height} x {width} from "
            f"{layers[-1]!r}; end with globalmeanpool or fc:CLASSES."
        )
    return Stack(tuple(parsed), tuple(sizes))


CONV_SMALL = (
    "convf:32:5:1", "maxpool:2:2", "convv:64:3:1", "convf:64:3:1", "maxpool:2:2", "convv:128:3:1", "convv:10:1:1",
    "globalmeanpool", "fc:10",
)  # fmt: skip
"""Layers of the ladder paper's Conv-Small."""


class LayersConfig(ColumnConfig):
    """Settings of a network of ``layers`` for images."""

    __slots__ = ()

    image: tuple[int, int, int]
    """Channels, height and width; pixels of an example are in this order."""
    layers: tuple[str, ...]
    """Layers 1..L, in the notation of this module."""

    @property
    def network(self) -> Stack:
        return read_network(self.layers, self.image)

    @property
    def depth(self) -> int:
        """L, the number of layers above the input."""
        return len(self.layers)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (math.prod(self.image),)

    @property
    def architecture(self) -> tuple[object, ...]:
        return (self.image, self.layers)

    @property
    def sizes(self) -> Sequence[Size]:
        return self.network.sizes

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        top = self.sizes[-1][0]
        if (math.prod(self.image), top) != (pixels, classes):
            raise SettingError(
                f"model.image must hold the {pixels} numbers and model.layers end with the {classes} classes of "
                f"{dataset}, got {list(self.image)} and {top}; correct them."
            )


def as_map(x: Tensor, size: Size) -> Tensor:
    """Return maps (rows, height, width, channels) from rows of pixels in the order of ``size``, (rows, d)."""
    return _last(x.reshape(-1, *size)).contiguous()


def _first(h: Tensor) -> Tensor:
    """Return (rows, height, width, channels) as (rows, channels, height, width), in the same memory."""
    return h.permute(0, 3, 1, 2)


def _last(h: Tensor) -> Tensor:
    return h.permute(0, 2, 3, 1)
