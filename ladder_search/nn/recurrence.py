"""Encoder and decoder of a recurrent ladder, from frame to frame, without a task.

Legend: levels l = 1..L, frames t; ``e`` outputs of encoder cells, ``d`` outputs of decoder cells, ``u`` the decoder's
signal from above. At each frame the encoder runs bottom-up, every cell reading the level below, its own state and the
last ``d`` of its level; then the decoder runs top-down, ``d^l = g(e^l, u)`` with ``u`` computed from ``d^(l+1)``. Maps
are (rows, height, width, channels), with frames concatenated along the rows, see ``nn.steps``.

Levels below the first recurrent one run over all frames at once. Without feedback from the decoder all levels run one
after another, each over all frames, and so does the decoder.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ladder_search.nn import cells
from ladder_search.nn.assembly import Assembly
from ladder_search.nn.cells import Convolved, EncoderCell, NoCell, State, drawn, leaky, product
from ladder_search.nn.levels import Level, Pair, Size
from ladder_search.nn.steps import BatchNorm, Kind, Steps


class EncoderLevel(nn.Module):
    cell: EncoderCell | NoCell

    def __init__(self, level: Level, *, feedback: bool, norm: Kind, generator: torch.Generator) -> None:
        """Args: ``feedback``: whether the cell reads d; ``norm``: of a convolutional cell's inputs."""
        super().__init__()
        self.layers = nn.ModuleList(
            Convolved(layer.channels, below[0], layer.kernel, layer.stride, generator)
            for layer, below in zip(level.convolutions, level.sizes, strict=False)
        )
        cell, features = level.cell, level.features
        if cell.kind == "none":
            self.cell = NoCell()
        else:
            read = math.prod(features) if cell.dense else features[0]
            fed = cell.units if feedback else 0
            self.cell = cells.ENCODER_CELLS[cell.kind](cell, read, fed, norm, generator)

    def inputs(self, h: Tensor, steps: Steps) -> Tensor:
        """Return the product of the features, from the map below, for any number of steps."""
        for layer in self.layers:
            h = layer(h, steps)
        return self.cell.inputs(h)

    def run(self, h: Tensor, state: State, steps: Steps) -> tuple[Tensor, State]:
        """Return the outputs of all steps and the last state, from the maps below, without feedback."""
        z = self.cell.gates(self.inputs(h, steps), None, steps)
        if not self.cell.states:
            return self.cell.advance(z, ())
        e = []
        for z_t in torch.split(z, steps.rows):
            e_t, state = self.cell.advance(z_t, state)
            e.append(e_t)
        return torch.cat(e), state


class Top(nn.Module):
    """The top level's decoder cell: ``d = leaky(W e + b)``, of the size of the level's features."""

    def __init__(self, level: Level, generator: torch.Generator) -> None:
        super().__init__()
        self.size, self.dense = level.decoded, level.cell.dense
        out = math.prod(self.size) if self.dense else self.size[0]
        kernel = None if self.dense else level.kernels[-1]
        self.W = drawn(out, level.size[0], kernel, generator, gain=cells.RECTIFIED)
        self.b = nn.Parameter(torch.zeros(out))

    def forward(self, e: Tensor) -> Tensor:
        d = leaky(product(e, self.W, bias=self.b))
        channels, height, width = self.size
        return d.reshape(-1, height, width, channels) if self.dense else d


class Bottom(nn.Module):
    """The decoder cell of level 0: ``V leaky(W [u, x] + b) + c``, the logits of the next frame."""

    def __init__(self, frame: Size, level: Level, generator: torch.Generator) -> None:
        super().__init__()
        kernel = level.kernels[0]
        self.size, self.stride, above = frame, level.stride, level.decoded[0]
        self.W = drawn(above, above + frame[0], kernel, generator, gain=cells.RECTIFIED)
        self.b = nn.Parameter(torch.zeros(above))
        self.V = drawn(frame[0], above, kernel, generator)
        self.c = nn.Parameter(torch.zeros(frame[0]))

    def forward(self, x: Tensor, d: Tensor) -> Tensor:
        u = upsampled(d, self.stride, self.size)
        h = leaky(product(torch.cat([u, x], -1), self.W, bias=self.b))
        return product(h, self.V, bias=self.c)


class Run(NamedTuple):
    """Results of a run over frames."""

    top: Tensor  # e^L of all frames
    bottom: Tensor | None  # d^1 of the decoded frames
    state: dict[str, Tensor]  # after the last frame, see ``Recurrence.carried``


class Recurrence(nn.Module):
    """Encoder and decoder of all levels.

    Parts: ``encoder``, the levels from below; ``top`` and ``g``, their decoder cells, ``g[l - 1]`` that of level l < L.
    """

    def __init__(self, assembly: Assembly, norm: Kind, generator: torch.Generator) -> None:
        """Args:
        norm: normalisation of convolutional cells' inputs and in decoder cells.
        """
        super().__init__()
        self.levels, self.iterations = assembly.levels, assembly.iterations
        self.fed, self.ahead = assembly.fed, assembly.ahead
        self._strides, self._sizes = [level.stride for level in self.levels], [level.size for level in self.levels]
        self.encoder = nn.ModuleList(
            EncoderLevel(level, feedback=i in self.fed, norm=norm, generator=generator)
            for i, level in enumerate(self.levels)
        )
        self.top, self.g = None, nn.ModuleList()
        if assembly.decoder_cell is not None:
            make = cells.DECODER_CELLS[assembly.decoder_cell]
            self.top = Top(self.levels[-1], generator)
            self.g.extend(
                make(level.size[0], above.decoded[0], level.kernels[-1], norm, generator)
                for level, above in pairwise(self.levels)
            )

    @property
    def _rungs(self) -> list[EncoderLevel]:
        return typing.cast(list[EncoderLevel], list(self.encoder))

    @property
    def _cells(self) -> list[EncoderCell | NoCell]:
        return [level.cell for level in self._rungs]

    @property
    def decoder_norms(self) -> bool:
        """Whether decoder cells have batch normalisation."""
        return any(isinstance(part, BatchNorm) for part in self.g.modules())

    @property
    def carried(self) -> dict[str, tuple[int, int, int]]:
        """Shapes of a row's states and d by name, such as ``h1`` and ``c1`` of an LSTM at level 1 that reads ``d1``."""
        shapes: dict[str, tuple[int, int, int]] = {}
        for i, (level, cell) in enumerate(zip(self.levels, self._cells, strict=True)):
            channels, height, width = level.size
            names = (*cell.states, *(("d",) if i in self.fed else ()))
            shapes |= {f"{name}{i + 1}": (height, width, channels) for name in names}
        return shapes

    def forward(
        self,
        x: Tensor,
        steps: Steps,
        *,
        decoded: int,
        state: Mapping[str, Tensor] | None = None,
        drop: Sequence[Tensor] | None = None,
    ) -> Run:
        """Run over frames.

        Args:
            x: frames, (frames * rows, height, width, channels).
            decoded: number of decoded frames, from the first.
            state: initial state; None: zeros.
            drop: dropout factors of the decoder's inputs e, by level; None: no dropout.
        """
        states, d = self._taken(state or {})
        e: list[Tensor] = []
        for i, level in enumerate(self._rungs[: self.ahead]):
            h, states[i] = level.run(e[-1] if e else x, states[i], steps)
            e.append(h)
        if self.ahead < len(self.levels):
            return self._by_frame(e[-1] if e else x, e, steps, decoded, states, d, drop)
        bottom, n = None, decoded * steps.rows
        if self.top is not None and decoded:
            drop = None if drop is None else [each[:n] for each in drop]
            bottom = self._decode([each[:n] for each in e], steps.until(decoded), drop)[0]
        return Run(e[-1], bottom, self._given(states, d))

    def _by_frame(
        self,
        h: Tensor,
        e: Sequence[Tensor],
        steps: Steps,
        decoded: int,
        states: list[State],
        d: list[Tensor | None],
        drop: Sequence[Tensor] | None,
    ) -> Run:
        """Run the levels above those with outputs ``e``, the last of which is ``h``, frame by frame."""
        rows, lowest, rest = steps.rows, self.ahead, self._rungs[self.ahead :]
        tops, bottoms = [], []
        for t, inputs in enumerate(torch.split(rest[0].inputs(h, steps), rows)):  # independent of earlier frames
            now, here = steps.at(t), slice(t * rows, (t + 1) * rows)
            for iteration in range(1, self.iterations + 1):
                e_t = [each[here] for each in e]
                for i, level in enumerate(rest, lowest):
                    z = inputs if i == lowest else level.inputs(e_t[-1], now)
                    h, states[i] = level.cell.advance(level.cell.gates(z, d[i], now), states[i])
                    e_t.append(h)
                last = iteration == self.iterations
                if self.top is not None and (t < decoded if last else self.fed):
                    d = [*self._decode(e_t, now, None if drop is None else [each[here] for each in drop])]
            tops.append(e_t[-1])
            if self.top is not None and t < decoded:
                bottoms.append(d[0])
        bottom = torch.cat([each for each in bottoms if each is not None]) if bottoms else None
        return Run(torch.cat(tops), bottom, self._given(states, d))

    def _decode(self, e: Sequence[Tensor], steps: Steps, drop: Sequence[Tensor] | None) -> list[Tensor]:
        """Return d of all levels, from below, for any number of frames."""
        assert self.top is not None
        if drop is not None:
            e = [each * factor for each, factor in zip(e, drop, strict=True)]
        d = [self.top(e[-1])]
        for i in range(len(self.levels) - 2, -1, -1):
            u = upsampled(d[0], self._strides[i + 1], self._sizes[i])
            d.insert(0, self.g[i](e[i], u, steps))
        return d

    def _taken(self, state: Mapping[str, Tensor]) -> tuple[list[State], list[Tensor | None]]:
        """Return the levels' states and d, from below."""
        states: list[State] = []
        for number, cell in enumerate(self._cells, 1):
            names = [f"{name}{number}" for name in cell.states]
            states.append(tuple(state[name] for name in names if name in state))
        return states, [state.get(f"d{number}") for number in range(1, len(self.levels) + 1)]

    def _given(self, states: Iterable[State], d: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Return the state by name, the inverse of ``_taken``."""
        state: dict[str, Tensor] = {}
        for number, (cell, values) in enumerate(zip(self._cells, states, strict=True), 1):
            state |= {f"{name}{number}": value for name, value in zip(cell.states, values, strict=True)}
        return state | {f"d{i + 1}": value for i in self.fed if (value := d[i]) is not None}


def upsampled(d: Tensor, stride: Pair, size: Size) -> Tensor:
    """Return a map repeated ``stride`` times in each direction and cut to ``size``."""
    for axis, times in ((1, stride[0]), (2, stride[1])):
        if times > 1:
            d = d.repeat_interleave(times, axis)
    return d[:, : size[1], : size[2]]
