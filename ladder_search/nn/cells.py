"""Cells of recurrent ladders: encoder cells, which may have a state, and decoder cells, which have none.

Source: Prémont-Schwarz et al. 2017. An encoder cell reads the features from below, the last output of its level's
decoder cell, and its state; its output ``e`` goes to the level above and to the decoder. A decoder cell reads ``e`` and
``u``, the signal from above; its output ``d`` goes down and, at the next step, to its encoder cell.

Legend: maps are (rows, height, width, channels), vectors are maps of one position; ``W`` weights of the ``features``
from below, ``D`` of ``d``, ``U`` of the state; ``z`` pre-activations of all gates, concatenated and computed by one
product. Weights are (out, in) or (out, in, height, width); filters have odd sizes and maps are padded with zeros.

``z = norm(W features + D d) + U state``: inputs are normalised, the recurrence is not (appendix A.4); fully connected
cells have a bias instead of the norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.nn.combinators import LEAKY_SLOPE, Gauss
from ladder_search.nn.levels import Cell, Pair
from ladder_search.nn.steps import BatchNorm, Kind, Steps, make_norm

State = tuple[Tensor, ...]
"""State of a cell; () at the very first step, for zeros without a product."""


def product(h: Tensor, weight: Tensor, stride: Pair = (1, 1), bias: Tensor | None = None) -> Tensor:
    """Return the product of weights and a map: a full connection of its channels, or a padded convolution."""
    if weight.dim() == 2:
        return functional.linear(h, weight, bias)
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    return functional.conv2d(h.permute(0, 3, 1, 2), weight, bias, stride, padding).permute(0, 2, 3, 1)


def leaky(z: Tensor) -> Tensor:
    return functional.leaky_relu(z, LEAKY_SLOPE)


def drawn(out: int, read: int, kernel: Pair | None, generator: torch.Generator, *, gain: float = 1.0) -> nn.Parameter:
    """Return initial weights, normal with variance gain / fan_in."""
    shape = (out, read, *(kernel or ()))
    return nn.Parameter(torch.randn(shape, generator=generator) * math.sqrt(gain / math.prod(shape[1:])))


RECTIFIED = 2.0
"""Gain of weights before a rectifier (He et al. 2015)."""


class Convolved(nn.Module):
    """A convolution with batch normalisation and leaky rectifier, between two cells."""

    def __init__(self, channels: int, read: int, kernel: Pair, stride: Pair, generator: torch.Generator) -> None:
        super().__init__()
        self.stride = stride
        self.W = drawn(channels, read, kernel, generator, gain=RECTIFIED)
        self.norm = BatchNorm(channels)

    def forward(self, h: Tensor, steps: Steps) -> Tensor:
        return leaky(self.norm(product(h, self.W, self.stride), steps))


class EncoderCell(nn.Module):
    """An encoder cell, evaluated in two parts so that all terms without the state are computed for many steps at once.

    ``z = cell.gates(cell.inputs(features), d, steps)``, then step by step ``e, state = cell.advance(z_t, state)``.
    """

    states: tuple[str, ...] = ()
    """Names of the state's tensors."""
    parts = 1
    """Number of gates, including candidates."""

    def __init__(self, cell: Cell, read: int, fed: int, norm: Kind, generator: torch.Generator) -> None:
        """Args: ``read``: channels of the features; ``fed``: channels of d, 0 without feedback; ``norm``: of inputs."""
        super().__init__()
        out = self.parts * cell.units
        self.W = drawn(out, read, cell.kernel, generator)
        self.D = drawn(out, fed, cell.kernel, generator) if fed else None
        self.U = drawn(out, cell.units, cell.kernel, generator) if self.states else None
        self.norm = None if cell.dense else make_norm(norm, out, shift=self.first_shift(cell.units))
        self.b = nn.Parameter(self.first_shift(cell.units)) if cell.dense else None
        self.dense = cell.dense

    def first_shift(self, units: int) -> Tensor:
        """Return the initial value of the bias, or of the norm's shift."""
        return torch.zeros(self.parts * units)

    def inputs(self, features: Tensor) -> Tensor:
        """Return the product of the features of any number of steps."""
        return product(features.flatten(1)[:, None, None] if self.dense else features, self.W)

    def gates(self, z: Tensor, d: Tensor | None, steps: Steps) -> Tensor:
        """Return the input of ``advance``, from the result of ``inputs`` and d; None is zero."""
        if self.D is not None and d is not None:
            z = z + product(d, self.D)
        if self.norm is not None:
            return self.norm(z, steps)  # type: ignore[no-any-return]
        return z if self.b is None else z + self.b

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the output and the new state of one step."""
        raise NotImplementedError

    def recurrent(self, h: Tensor) -> Tensor:
        assert self.U is not None
        return product(h, self.U)


class LSTM(EncoderCell):
    """Long short-term memory without peepholes; the forget gate's bias starts at 1."""

    states = ("h", "c")
    parts = 4

    def first_shift(self, units: int) -> Tensor:
        return torch.cat([torch.zeros(units), torch.ones(units), torch.zeros(2 * units)])

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        if state:
            z = z + self.recurrent(state[0])
        units = z.shape[-1] // 4
        gates, g = torch.split(z, [3 * units, units], -1)
        i, f, o = torch.sigmoid(gates).chunk(3, -1)
        c = i * torch.tanh(g)
        if state:
            c = c + f * state[1]
        h = o * torch.tanh(c)
        return h, (h, c)


class GRU(EncoderCell):
    """Gated recurrent unit; the reset gate applies to the state's product instead of the state, to save a product."""

    states = ("h",)
    parts = 3

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        r, k, g = z.chunk(3, -1)
        if not state:
            h = torch.sigmoid(-k) * torch.tanh(g)
            return h, (h,)
        from_r, from_k, from_g = self.recurrent(state[0]).chunk(3, -1)
        g = torch.tanh(g + torch.sigmoid(r + from_r) * from_g)
        h = torch.lerp(g, state[0], torch.sigmoid(k + from_k))
        return h, (h,)


class RNN(EncoderCell):
    """``h = tanh(z)``."""

    states = ("h",)

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(z + self.recurrent(state[0]) if state else z)
        return h, (h,)


class Rectifier(EncoderCell):
    """A fully connected layer without a state, with batch normalisation and leaky rectifier."""

    def __init__(self, cell: Cell, read: int, fed: int, norm: Kind, generator: torch.Generator) -> None:
        super().__init__(cell, read, 0, norm, generator)
        self.b, self.norm = None, BatchNorm(cell.units)

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        return leaky(z), state


class NoCell(nn.Module):
    """No cell: returns the features unchanged."""

    states: tuple[str, ...] = ()
    D = None

    def inputs(self, features: Tensor) -> Tensor:
        return features

    def gates(self, z: Tensor, d: Tensor | None, steps: Steps) -> Tensor:
        return z

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        return z, state


ENCODER_CELLS: dict[str, type[EncoderCell]] = {
    "lstm": LSTM,
    "gru": GRU,
    "dense-lstm": LSTM,
    "dense-gru": GRU,
    "dense-rnn": RNN,
    "dense": Rectifier,
}


# --- decoder cells ----------------------------------------------------------------------------------------------------


class DecoderCell(nn.Module):
    """A decoder cell, which maps e (``units`` channels) and u (``above`` channels) to d, all of the level's size."""

    @classmethod
    def weights(cls, units: int, above: int) -> int:
        """Return the number of filter weights per position, for ``flops``."""
        raise NotImplementedError

    def forward(self, e: Tensor, u: Tensor, steps: Steps) -> Tensor:
        raise NotImplementedError


class G1(DecoderCell):
    """``d = (e - mu(w)) * v(w) + mu(w)``, ``w`` the batch-normalised ``W u``. Unverified: mu and v are the ladder's."""

    def __init__(self, units: int, above: int, kernel: Pair, norm: Kind, generator: torch.Generator) -> None:
        super().__init__()
        self.W = drawn(units, above, kernel, generator)
        self.norm = BatchNorm(units, affine=False)
        self.g = Gauss(units, 0.0, generator)

    @classmethod
    def weights(cls, units: int, above: int) -> int:
        return units * above

    def forward(self, e: Tensor, u: Tensor, steps: Steps) -> Tensor:
        return self.g(e, self.norm(product(u, self.W), steps))  # type: ignore[no-any-return]


class _Concatenating(DecoderCell):
    """``V c`` with ``c = leaky(norm(W [u, e]))``, which has twice the level's channels.

    According to the paper the first product has both inputs and is normalised; the rest is ours.
    """

    outputs = 1

    def __init__(self, units: int, above: int, kernel: Pair, norm: Kind, generator: torch.Generator) -> None:
        super().__init__()
        hidden = 2 * units
        self.W = drawn(hidden, above + units, kernel, generator, gain=RECTIFIED)
        self.norm = make_norm(norm, hidden)
        self.V = drawn(self.outputs * units, hidden, kernel, generator)
        self.b = nn.Parameter(torch.zeros(self.outputs * units))

    @classmethod
    def weights(cls, units: int, above: int) -> int:
        return 2 * units * (above + units + cls.outputs * units)

    def both(self, e: Tensor, u: Tensor, steps: Steps) -> Tensor:
        c = leaky(self.norm(product(torch.cat([u, e], -1), self.W), steps))
        return product(c, self.V, bias=self.b)


class G2(_Concatenating):
    """``d = (e - mu(w)) * sigmoid(v(w)) + mu(w)`` with ``w = V c``; ours, with the same mu and v."""

    def __init__(self, units: int, above: int, kernel: Pair, norm: Kind, generator: torch.Generator) -> None:
        super().__init__(units, above, kernel, norm, generator)
        self.g = Gauss(units, 0.0, generator, gated=True)

    def forward(self, e: Tensor, u: Tensor, steps: Steps) -> Tensor:
        return self.g(e, self.both(e, u, steps))  # type: ignore[no-any-return]


class G3(_Concatenating):
    """``d = sigmoid(a) * e + (1 - sigmoid(a)) * w`` with ``(a, w) = V c``; ours."""

    outputs = 2

    def forward(self, e: Tensor, u: Tensor, steps: Steps) -> Tensor:
        a, w = self.both(e, u, steps).chunk(2, -1)
        return torch.lerp(w, e, torch.sigmoid(a))


DECODER_CELLS: dict[str, type[DecoderCell]] = {"g1": G1, "g2": G2, "g3": G3}
