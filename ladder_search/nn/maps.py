"""Layers of networks on images: how they are written, how large they are, their way up and a decoder's way down.

A layer is written in the notation of Rasmus et al.'s code::

    convv:64:3:1     64 filters of 3 x 3, stride 1, only where they fit ("valid"): a map shrinks by 2
    convf:64:3:1     the same wherever they touch the map ("full"): it grows by 2
    maxpool:2:2      maxima of 2 x 2, stride 2; windows cut by the border count, so 15 becomes 8
    globalmeanpool   mean over all places, one number per channel
    fc:10            10 units, each connected with everything below

A decoder inverts them: a valid convolution by a full one and the reverse, with filters of its own, a stride by zeros in
between; a pool by repeating; a mean by spreading; what stands out over the layer below is cut off at the far sides.

Maps have the shape (rows, height, width, channels), so that a channel's places are to batch statistics and combinators
what a unit's rows are; a vector is a map of one place. ``Size`` is (channels, height, width), as images are told.
On their way up filters are compared and not flipped; the original flipped them, which only names other filters.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.nn.pooling import max_pool

Size = tuple[int, int, int]
Shape = tuple[int, ...]


class Layer:
    """One layer between a map of size ``below`` and the next; ``read_network`` makes them, models call them.

    The defaults are those of a layer without weights.
    """

    __slots__ = ()

    pools: ClassVar[bool] = False
    """Whether it has neither weights nor, unless it is the last, a nonlinearity."""

    def size(self, below: Size) -> Size:
        """Size of the layer's own map."""
        raise NotImplementedError

    def shape(self, below: Size) -> Shape:
        """Shape of its weights, (out, in, ...); () without weights."""
        return ()

    def shape_down(self, below: Size) -> Shape:
        """Shape of the decoder's weights, the same way."""
        return ()

    def flops(self, below: Size) -> float:
        """Floating-point operations of one row's product on the way up."""
        return 0.0

    def flops_down(self, below: Size) -> float:
        """The same on the way down."""
        return self.flops(below)

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        """Map below -> pre-activations of the layer, both (rows, height, width, channels)."""
        raise NotImplementedError

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        """The layer's estimate -> signal for the layer below: a map, or (rows, units) where it is fully connected."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """``channels`` filters of ``kernel`` x ``kernel``; see the module for valid and full."""

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
            # Each value spreads a filter, which is the full convolution without its zeros: for Conv-FC's filters of
            # 26 x 26 on a map of 3 x 3 a hundredth of the products. What no filter reaches, if s > 1, is zero.
            short = tuple((n - self.kernel) % s for n in below[1:])
            return _last(functional.conv_transpose2d(u, weight.transpose(0, 1), stride=s, output_padding=short))
        if s > 1:
            # An axis of length s after each of the two, zero but for its first entry.
            u = functional.pad(u[:, :, :, None, :, None], (0, s - 1, 0, 0, 0, s - 1))
            u = u.flatten(4, 5).flatten(2, 3)
        return _last(functional.conv2d(u, weight))[:, : below[1], : below[2]]


@dataclass(frozen=True, slots=True)
class MaxPool(Layer):
    """Maxima of ``window`` x ``window`` places that do not overlap."""

    window: int
    pools: ClassVar[bool] = True

    def size(self, below: Size) -> Size:
        channels, height, width = below
        return channels, -(-height // self.window), -(-width // self.window)

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        return _last(max_pool(_first(h), self.window))

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        repeated = z_hat[:, :, None, :, None].expand(-1, -1, self.window, -1, self.window, -1)
        return repeated.flatten(3, 4).flatten(1, 2)[:, : below[1], : below[2]]


@dataclass(frozen=True, slots=True)
class GlobalMeanPool(Layer):
    """Mean over all places, times width * sqrt(3): the original's scale, of which batch statistics take most away."""

    pools: ClassVar[bool] = True

    def size(self, below: Size) -> Size:
        return below[0], 1, 1

    def up(self, h: Tensor, weight: Tensor | None) -> Tensor:
        return h.mean((1, 2), keepdim=True) * (h.shape[2] * math.sqrt(3.0))

    def down(self, z_hat: Tensor, weight: Tensor | None, below: Size) -> Tensor:
        return z_hat.expand(-1, below[1], below[2], -1)


@dataclass(frozen=True, slots=True)
class FullyConnected(Layer):
    """``units`` units; a map below is read place by place, its channels within."""

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
    """Return initial weights of that shape: variance 1/fan_in, uniform for filters and normal for full connections."""
    fan_in = math.prod(shape[1:])
    if len(shape) == 4:
        return (2.0 * torch.rand(shape, generator=generator) - 1.0) * math.sqrt(3.0 / fan_in)
    return torch.randn(shape, generator=generator) / math.sqrt(fan_in)


# kind: how it is written with an example's numbers, and what makes it of them
_KINDS: dict[str, tuple[str, Callable[..., Layer]]] = {
    "convv": ("convv:CHANNELS:KERNEL:STRIDE", lambda c, k, s: Convolution(c, k, s, full=False)),
    "convf": ("convf:CHANNELS:KERNEL:STRIDE", lambda c, k, s: Convolution(c, k, s, full=True)),
    "maxpool": ("maxpool:STRIDE:SIZE", lambda stride, size: MaxPool(size)),
    "globalmeanpool": ("globalmeanpool", GlobalMeanPool),
    "fc": ("fc:UNITS", FullyConnected),
}
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def read_layer(text: str) -> Layer:
    """Return the layer that is written as ``text``.

    Raises:
        UnknownNameError: no such kind of layer.
        SettingError: other numbers than its kind has.
    """
    kind, *numbers = text.split(":")
    if kind not in _KINDS:
        raise UnknownNameError("layer in model.layers", kind, _KINDS)
    written, make = _KINDS[kind]
    if len(numbers) != written.count(":") or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise SettingError(
            f"a layer {kind} in model.layers is written {written}, with whole numbers above 0, got {text!r:.60}; "
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
    """Return the network of the layers that are written as ``layers``, on images of size ``image``.

    Raises:
        UnknownNameError, SettingError: a layer that cannot be read, that does not fit on the one below, or a last
            layer that is not one number per class.
    """
    if min(image) < 1:
        raise SettingError(
            f"model.image must be channels, height and width, each at least 1, got {list(image)}; correct it."
        )
    if not layers:
        raise SettingError("model.layers must list at least 1 layer, got none; end them with fc:CLASSES.")
    found, sizes, connected = [], [image], False
    for text in layers:
        layer = read_layer(text)
        if connected and not isinstance(layer, FullyConnected):
            raise SettingError(
                f"in model.layers only fc may follow fc, got {text!r}; put it before the first fully connected layer."
            )
        connected = isinstance(layer, FullyConnected)
        found.append(layer)
        sizes.append(layer.size(sizes[-1]))
    channels, height, width = sizes[-1]
    if (height, width) != (1, 1):
        raise SettingError(
            f"the last of model.layers must leave one number per class, got {channels} x {height} x {width} from "
            f"{layers[-1]!r}; end with globalmeanpool or fc:CLASSES."
        )
    return Stack(tuple(found), tuple(sizes))


def as_map(x: Tensor, size: Size) -> Tensor:
    """Rows of an image's numbers in the order of ``size``, (rows, d) -> maps, (rows, height, width, channels)."""
    return _last(x.reshape(-1, *size)).contiguous()


def _first(h: Tensor) -> Tensor:
    """(rows, height, width, channels) -> (rows, channels, height, width), the same memory."""
    return h.permute(0, 3, 1, 2)


def _last(h: Tensor) -> Tensor:
    return h.permute(0, 2, 3, 1)
