"""Marginal models of polyphonic music: recurrent networks (plain, GRU, LSTM) and the TCN of Bai et al. 2018.

Legend: ``x`` a layer's input and ``h`` its output at a step, ``c`` an LSTM's cell; ``W`` weights of the input, ``U`` of
the layer's own past, ``beta`` biases; ``v`` direction and ``g`` length of a weight-normalised filter. The notes of a
step are independent given all earlier steps.

All kinds process sequences in windows and pass their state on (``carried``); the state after the end of a sequence is
not used. The TCN of Bai et al. 2018 has 4 blocks of 150 filters with 5 taps and dropout 0.25, according to their code,
which does not give the sizes of their recurrent networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ladder_search.config import in_range
from ladder_search.errors import SettingError
from ladder_search.metrics import COST, COST_DECAY, COST_SUPERVISED
from ladder_search.nn.dropout import dropped
from ladder_search.nn.network import Column, Network
from ladder_search.nn.notes import RARE, scored_nats
from ladder_search.nn.protocol import ModelConfig, Windows

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Recurrent kinds, and the ratio of their products' size to a layer's units."""

Drop = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceConfig(ModelConfig):
    """Settings of a network; the defaults are ours: an LSTM with the nats of the published one on JSB chorales."""

    kind: Literal["rnn", "gru", "lstm", "tcn"] = "lstm"
    """rnn: one layer of tanh units; tcn: dilated causal convolutions over the steps."""
    notes: int = 88
    """Notes of a step: size of input and output."""
    hidden: int = 200
    """Units of a layer, or filters of each convolution."""
    layers: int = 1
    """Recurrent layers, or residual blocks of two convolutions; the taps of block i are 2**(i-1) steps apart."""
    kernel: int = 5
    """Taps of a tcn's filters; not used by other kinds."""
    dropout: float = 0.5
    """Dropout probability for each number in the output of a layer, or of a convolution in a block."""
    weight_decay: float = 0.0
    """Coefficient of half the sum of squared weights in the cost; biases are excluded."""

    def __post_init__(self) -> None:
        for name, low, high in (("notes", 1, 10**4), ("hidden", 1, 10**5), ("layers", 1, 16), ("kernel", 2, 10**3)):
            in_range(f"model.{name}", getattr(self, name), low, high)
        in_range("model.dropout", self.dropout, 0.0, 0.95)
        in_range("model.weight_decay", self.weight_decay, 0.0, 1.0)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example: one step, because sequences may have any number of steps."""
        return (1, self.notes)

    @property
    def measures(self) -> tuple[str, ...]:
        return ("nll",)

    def signature(self) -> tuple[object, ...]:
        shape = (self.kind, self.notes, self.hidden, self.layers)
        return (*shape, self.kernel) if self.kind == "tcn" else shape

    def hyper(self) -> dict[str, list[float]]:
        return {"dropout": [self.dropout], "weight_decay": [self.weight_decay]}

    def on_network_of(self, other: SequenceConfig) -> SequenceConfig:
        sizes = {"notes": other.notes, "hidden": other.hidden, "layers": other.layers, "kernel": other.kernel}
        return replace(self, kind=other.kind, **sizes)

    def flops(self, labelled: int, unlabelled: int) -> float:
        """Return the floating-point operations of the products for ``labelled`` steps; ``unlabelled`` is not used."""
        total, n_in = 0.0, self.notes
        for layer in range(self.layers):
            backward = 2 if layer else 1
            if self.kind == "tcn":
                below = n_in * self.hidden * (self.kernel + (n_in != self.hidden))
                recurrent = self.hidden * self.hidden * self.kernel
            else:
                below, recurrent = (GATES[self.kind] * self.hidden * n for n in (n_in, self.hidden))
            total += 2.0 * (below * (1 + backward) + recurrent * 3)
            n_in = self.hidden
        return labelled * (total + 6.0 * self.hidden * self.notes)

    def check_fits(self, pixels: int, classes: int, dataset: str) -> None:
        if self.notes != pixels:
            raise SettingError(
                f"model.notes must be the {pixels} notes of a step of {dataset}, got {self.notes}; correct it."
            )


class RecurrentLayer(nn.Module):
    """A recurrent layer, with one product for the inputs of all gates and one for the past.

    The plain layer is tanh(W x_t + U h_{t-1} + beta). The GRU (Cho et al. 2014) is cuDNN's variant, whose reset gate
    applies to U h instead of h, so that one product suffices. The LSTM's forget gates start open, with beta 1.
    """

    dropouts = 1
    """Number of dropouts in the layer."""

    def __init__(self, kind: str, n_in: int, hidden: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.kind, self.hidden = kind, hidden
        rows, bound = GATES[kind] * hidden, hidden**-0.5
        self.W = nn.Parameter(_uniform((rows, n_in), bound, generator))
        self.U = nn.Parameter(_uniform((rows, hidden), bound, generator))
        beta = torch.zeros(rows)
        if kind == "lstm":
            beta[hidden : 2 * hidden] = 1.0
        self.beta = nn.Parameter(beta)

    @property
    def state(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a row's state at the start of a window."""
        return {name: (self.hidden,) for name in (("h", "c") if self.kind == "lstm" else ("h",))}

    def weights(self) -> list[Tensor]:
        """Return tensors whose squares sum to the layer's squared weights."""
        return [self.W, self.U]

    def forward(self, x: Tensor, state: Sequence[Tensor], drops: Iterator[Drop]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the outputs with dropout for x (rows, width, n_in), and the last state without dropout."""
        # Products of the input are independent: all steps at once, ordered by time in memory.
        driven = functional.linear(x.transpose(0, 1), self.W, self.beta)
        h = []
        for drive in driven.unbind(0):
            state = self._step(drive, *state)
            h.append(state[0])
        return next(drops)(torch.stack(h, 1)), state

    def _step(self, drive: Tensor, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, ...]:
        past = functional.linear(h, self.U)
        if self.kind == "rnn":
            return (torch.tanh(drive + past),)
        if self.kind == "gru":
            sizes = [2 * self.hidden, self.hidden]
            (gates, candidate), (past_gates, past_candidate) = (torch.split(part, sizes, -1) for part in (drive, past))
            reset, keep = torch.sigmoid(gates + past_gates).chunk(2, -1)
            return (torch.lerp(torch.tanh(candidate + reset * past_candidate), h, keep),)
        assert c is not None
        gates, candidate = torch.split(drive + past, [3 * self.hidden, self.hidden], -1)
        write, forget, read = torch.sigmoid(gates).chunk(3, -1)
        c = forget * c + write * torch.tanh(candidate)
        return read * torch.tanh(c), c


class Block(nn.Module):
    """A residual block of Bai et al. 2018: x plus twice (causal convolution, relu, dropout), then relu.

    A filter is g v / |v| (Salimans and Kingma 2016), with one g per filter, initially |v|. If x and h differ in width,
    x is projected with the matrix ``P``. Dropout acts on single numbers, as in the authors' code; their text describes
    whole maps. Initial weights are uniform within 1 / sqrt(fan-in).
    """

    dropouts = 2

    def __init__(self, n_in: int, hidden: int, kernel: int, dilation: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.n_in, self.hidden, self.kernel, self.dilation = n_in, hidden, kernel, dilation
        fans = (kernel * n_in, kernel * hidden)
        self.v = nn.ParameterList([_uniform((hidden, fan), fan**-0.5, generator) for fan in fans])
        self.g = nn.ParameterList([v.detach().square().sum(1, keepdim=True).sqrt() for v in self.v])
        self.beta = nn.ParameterList([torch.zeros(hidden) for _ in fans])
        self.P = nn.Parameter(_uniform((hidden, n_in), n_in**-0.5, generator)) if n_in != hidden else None
        self.delta = nn.Parameter(torch.zeros(hidden)) if n_in != hidden else None

    @property
    def state(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a row's state at the start of a window: the last inputs of both convolutions."""
        past = (self.kernel - 1) * self.dilation
        return {"x": (past, self.n_in), "a": (past, self.hidden)}

    def weights(self) -> list[Tensor]:
        """Return tensors whose squares sum to the block's squared weights: those of g v / |v| sum to g squared."""
        return [*self.g, *([] if self.P is None else [self.P])]

    def forward(self, x: Tensor, state: Sequence[Tensor], drops: Iterator[Drop]) -> tuple[Tensor, Sequence[Tensor]]:
        a, after = x, []
        for i, before in enumerate(state):
            z, past = self._convolved(a, before, i)
            a = next(drops)(torch.relu(z))
            after.append(past)
        skip = x if self.P is None else functional.linear(x, self.P, self.delta)
        return torch.relu(a + skip), after

    def _convolved(self, x: Tensor, before: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Return convolution i of ``x`` after earlier windows' inputs, and the inputs for the next window."""
        width, joined = x.shape[1], torch.cat([before, x], 1)
        # The taps side by side, oldest first: one product, which stacks better than convolutions do.
        taps = [joined[:, j * self.dilation : j * self.dilation + width] for j in range(self.kernel)]
        v = self.v[i]
        filters = v * (self.g[i] / v.square().sum(1, keepdim=True).sqrt())
        return functional.linear(torch.cat(taps, -1), filters, self.beta[i]), joined[:, width:]


class SequenceNetwork(Network):
    """A network of any kind: ``layers``, and the output with weights ``V`` (notes, hidden) and bias ``gamma``."""

    def __init__(self, config: SequenceConfig, *, generator: torch.Generator, sources: Sequence[Column] = ()) -> None:
        super().__init__()
        self.config = config
        hidden, sizes = config.hidden, [config.notes, *[config.hidden] * (config.layers - 1)]
        self.layers = nn.ModuleList(
            Block(n_in, hidden, config.kernel, 2**i, generator=generator)
            if config.kind == "tcn"
            else RecurrentLayer(config.kind, n_in, hidden, generator=generator)
            for i, n_in in enumerate(sizes)
        )
        self.V = nn.Parameter(_uniform((config.notes, hidden), hidden**-0.5, generator))
        self.gamma = nn.Parameter(torch.full((config.notes,), RARE))

    @property
    def term_names(self) -> tuple[str, ...]:
        return (COST, COST_SUPERVISED, COST_DECAY)

    @property
    def measures(self) -> tuple[str, ...]:
        return self.config.measures

    @property
    def carried(self) -> Mapping[str, tuple[int, ...]]:
        return {f"{name}_{i}": shape for i, layer in enumerate(self._layers, 1) for name, shape in layer.state.items()}

    @property
    def widest(self) -> int:
        config = self.config
        if config.kind == "tcn":
            return config.kernel * max(config.notes, config.hidden)
        return max(config.notes, GATES[config.kind] * config.hidden)

    def noise_size(self, labelled: int, unlabelled: int) -> int:
        return labelled * self.config.hidden * self._dropouts

    @property
    def _layers(self) -> Iterable[RecurrentLayer | Block]:
        return cast(Iterable[RecurrentLayer | Block], self.layers)

    @property
    def _dropouts(self) -> int:
        return sum(layer.dropouts for layer in self._layers)

    def cost(
        self, windows: Windows, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the training cost of one step, its terms, and the detached state after the windows.

        ``noise`` is by dropout from the input up, each (rows, width, hidden).
        """
        rows, width = windows.inputs.shape[:2]
        masks = noise.view(self._dropouts, rows, width, self.config.hidden).unbind(0)
        drops = [partial(dropped, normals=normals, rate=hyper["dropout"][0]) for normals in masks]
        logits, state = self._logits(windows.inputs, windows.carried, iter(drops))
        nats, steps = scored_nats(logits, windows.targets, windows.scored)
        supervised = nats / steps.clamp(min=1)
        weights = [self.V, *(weight for layer in self._layers for weight in layer.weights())]
        decay = 0.5 * hyper["weight_decay"][0] * torch.stack([weight.square().sum() for weight in weights]).sum()
        total = supervised + decay
        terms = torch.stack([total, supervised, decay])
        return total, terms, {name: value.detach() for name, value in state.items()}

    def scores(self, inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
        """Return the nats of all scored steps, (rows, T), and their number, for whole sequences, (rows, T, notes).

        The published numbers exclude each piece's first step.
        """
        nats_and_steps = scored_nats(self._from_silence(inputs), targets, scored)
        return torch.stack([value.double() for value in nats_and_steps])

    def statistics(self, inputs: Tensor, present: Tensor) -> dict[str, Tensor]:
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the probability of every note in the step after each: (rows, T, notes) -> (rows, T, notes)."""
        return torch.sigmoid(self._from_silence(x))

    def _from_silence(self, x: Tensor) -> Tensor:
        state = {name: x.new_zeros(len(x), *shape) for name, shape in self.carried.items()}
        return self._logits(x, state, repeat(_unchanged))[0]

    def _logits(
        self, x: Tensor, before: Mapping[str, Tensor], drops: Iterator[Drop]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        h = x
        after: dict[str, Tensor] = {}
        for i, layer in enumerate(self._layers, 1):
            names = [f"{name}_{i}" for name in layer.state]
            h, state = layer(h, [before[name] for name in names], drops)
            after.update(zip(names, state, strict=True))
        return functional.linear(h, self.V, self.gamma), after


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return bound * (2 * torch.rand(shape, generator=generator) - 1)


def _unchanged(x: Tensor) -> Tensor:
    return x
