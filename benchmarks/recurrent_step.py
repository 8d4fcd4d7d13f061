"""What does a step of a recurrent ladder cost on one CPU core, against what its products alone would take?

The floor is the step's floating-point operations at the best speed that any of its own convolutions reaches, forward
and backward; beside it stands what all its convolutions take alone, each at its own speed. Then the ways that were
tried take turns:

    as it is          maps with their channels last, one product for all gates, the first level's features of all frames
    channels first    every convolution on maps with their channels first
    gates apart       one product for each of a cell's gates
    frame by frame    the first level's features of one frame after the other
    bf16              products in bfloat16, as ``training.precision`` has them
    compiled          the step as one compiled program; and the same with bf16
    4 stacked         four members' steps as one, by vmap, where a turn has that many; per member

    python -m benchmarks.recurrent_step
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Report, Row, Times, interleaved, parser, seconds, spread_cells
from ladder_search.models.recurrent import Recurrent, RecurrentConfig
from ladder_search.nn import cells, recurrence
from ladder_search.nn.levels import Pair
from ladder_search.nn.protocol import Batch
from ladder_search.nn.steps import Steps
from ladder_search.training.program import Bfloat16Products

Shape = tuple[tuple[int, ...], tuple[int, ...], Pair]
"""Of a convolution: its input, its weights, its stride."""


def video(side: int, c: int, top: int) -> RecurrentConfig:
    """The network for occluded digits with ``c`` channels at its first level."""
    levels = (
        f"conv:{c}:3:1 conv:{c}:3:2 lstm:{c}:3",
        f"conv:{2 * c}:3:2 lstm:{2 * c}:3",
        f"conv:{4 * c}:3:2 dense-lstm:{top}",
    )
    return RecurrentConfig(frame=(1, side, side), levels=levels)


NETWORKS = {
    "half scale, c = 8": (video(16, 8, 64), 50, 20),
    "full scale, c = 16": (video(32, 16, 64), 100, 2),
    "full scale, c = 32": (video(32, 32, 256), 100, 1),
}
"""Name -> settings, rows of a step, steps of a turn."""


STACKED = 4
"""Members of a pack that stacks."""


class _Cost(nn.Module):
    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        return self.model.cost(*inputs)  # type: ignore[return-value]


class Step:
    """Forward and backward of one network on fixed rows; Adam, which takes a few per cent, is left out."""

    def __init__(self, config: RecurrentConfig, rows: int) -> None:
        draws = torch.Generator().manual_seed(1)
        self.model = Recurrent(config, generator=draws)
        x = torch.rand(rows, *config.example_shape, generator=draws)
        y = torch.randint(0, config.classes, (rows,), generator=draws)
        noise = torch.randn(self.model.noise_size(rows, 0), generator=draws)
        hyper = {name: torch.tensor(value) for name, value in config.hyper().items()}
        self.inputs = Batch(x, y, x[:0]), noise, hyper
        self._module = _Cost(self.model)
        self._params = {f"model.{name}": value.detach() for name, value in self.model.named_parameters()}

    def eager(self) -> None:
        torch.autograd.grad(self.model.cost(*self.inputs)[0], list(self.model.parameters()))

    def bf16(self) -> None:
        with Bfloat16Products():
            total = self.model.cost(*self.inputs)[0]
        torch.autograd.grad(total, list(self.model.parameters()))

    def compiled(self, *, bf16: bool) -> Callable[[], object]:
        def cost(params: dict[str, Tensor], *inputs: Any) -> tuple[Tensor, Tensor]:
            if bf16:
                with Bfloat16Products():
                    return functional_call(self._module, params, inputs)
            return functional_call(self._module, params, inputs)

        program = torch.compile(grad(cost, has_aux=True), dynamic=False, fullgraph=True)
        return lambda: program(self._params, *self.inputs)

    def stacked(self, members: int) -> Callable[[], object]:
        batch, noise, hyper = self.inputs

        def cost(params: dict[str, Tensor], x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
            return functional_call(self._module, params, (Batch(x, y, x[:0]), *rest))

        many = tree_map(
            lambda value: value.expand(members, *value.shape).contiguous(),
            (self._params, batch.x_labelled, batch.y, noise, hyper),
        )
        program = vmap(grad(cost, has_aux=True))
        return lambda: program(*many)

    def convolutions(self) -> Counter[Shape]:
        """Return the step's convolutions and how often each is done."""
        found: Counter[Shape] = Counter()

        class Noting(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is functional.conv2d:
                    found[tuple(args[0].shape), tuple(args[1].shape), tuple(args[3])] += 1
                return func(*args, **(kwargs or {}))

        with Noting():
            self.model.cost(*self.inputs)
        return found


# --- other ways -------------------------------------------------------------------------------------------------------

_product = cells.product


def channels_first(h: Tensor, weight: Tensor, stride: Pair = (1, 1), bias: Tensor | None = None) -> Tensor:
    """``product`` of maps whose channels are brought first."""
    if weight.dim() == 2:
        return _product(h, weight, stride, bias)
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    return functional.conv2d(h.permute(0, 3, 1, 2).contiguous(), weight, bias, stride, padding).permute(0, 2, 3, 1)


def gates_apart(h: Tensor, weight: Tensor, stride: Pair = (1, 1), bias: Tensor | None = None) -> Tensor:
    """``product`` with a quarter of the weights at a time."""
    if bias is not None or len(weight) % 4:
        return _product(h, weight, stride, bias)
    return torch.cat([_product(h, part, stride) for part in weight.chunk(4)], -1)


_inputs = recurrence.EncoderLevel.inputs


def frame_by_frame(self: recurrence.EncoderLevel, h: Tensor, steps: Steps) -> Tensor:
    """``EncoderLevel.inputs`` of one frame after the other."""
    return torch.cat([_inputs(self, frame, steps) for frame in torch.split(h, steps.rows)])


@contextmanager
def instead(way: Callable[..., Tensor]) -> Iterator[None]:
    """Let networks be computed in another way."""
    with ExitStack() as stack:
        if way is frame_by_frame:
            stack.enter_context(mock.patch.object(recurrence.EncoderLevel, "inputs", way))
        elif way is gates_apart:
            stack.enter_context(mock.patch.object(cells.EncoderCell, "inputs", _apart(cells.EncoderCell.inputs)))
            stack.enter_context(mock.patch.object(cells.EncoderCell, "gates", _apart(cells.EncoderCell.gates)))
            stack.enter_context(mock.patch.object(cells.EncoderCell, "recurrent", _apart(cells.EncoderCell.recurrent)))
        else:
            for module in (cells, recurrence):
                stack.enter_context(mock.patch.object(module, "product", way))
        yield


def _apart(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*arguments: Any) -> Tensor:
        with mock.patch.object(cells, "product", gates_apart):
            return method(*arguments)

    return call


# --- measuring --------------------------------------------------------------------------------------------------------


def convolution_speeds(report: Report, name: str, step: Step, rounds: int, repeats: int) -> tuple[float, float]:
    """Print a table of the step's convolutions; return the best GFLOP/s of any and the seconds of all alone."""
    rows: list[Row] = []
    best, alone = 0.0, 0.0
    for (size, shape, stride), count in step.convolutions().items():
        x, w = torch.randn(size), torch.randn(shape, requires_grad=True)
        read = size[1] > 1 or size[2] * size[3] < 256  # the input frame needs no gradient
        ways: dict[str, Callable[[], object]] = {}
        for layout in ("last", "first"):
            laid = x.to(memory_format=torch.channels_last if layout == "last" else torch.contiguous_format)
            ways[f"channels {layout}"] = _convolution(laid.requires_grad_(read), w, stride, bf16=False)
            ways[f"channels {layout}, bf16"] = _convolution(laid.detach().requires_grad_(read), w, stride, bf16=True)
        flops = 2.0 * math.prod(shape) * size[0] * math.prod(-(-n // s) for n, s in zip(size[2:], stride, strict=True))
        flops *= 3 if read else 2
        for run in ways.values():
            run()
        times = interleaved({way: partial(_repeat, run, repeats) for way, run in ways.items()}, rounds)
        speeds = {way: flops * repeats / min(found.cpu) / 1e9 for way, found in times.items()}
        best = max(best, speeds["channels last"])
        alone += count * flops / speeds["channels last"] / 1e9
        told = f"{size[0]} x {size[1]} x {size[2]} x {size[3]} to {shape[0]}"
        rows.append({"convolution": told, "stride": stride[0], "times": count, **speeds})
    report.table(f"{name}: GFLOP/s of its convolutions, forward and backward", rows)
    return best, alone


def _convolution(x: Tensor, w: Tensor, stride: Pair, *, bf16: bool) -> Callable[[], object]:
    wanted = [value for value in (x, w) if value.requires_grad]

    def run() -> object:
        values = (x.bfloat16(), w.bfloat16()) if bf16 else (x, w)
        y = functional.conv2d(*values, stride=stride, padding=(w.shape[2] // 2, w.shape[3] // 2)).float()
        return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return run


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def _in_way(run: Callable[[], object], way: Callable[..., Tensor]) -> None:
    with instead(way):
        run()


def compare(
    report: Report, name: str, config: RecurrentConfig, rows: int, steps: int, rounds: int, *, compiling: bool
) -> None:
    """Measure one network's step in all ways and print their tables."""
    step = Step(config, rows)
    best, alone = convolution_speeds(report, name, step, rounds, repeats=steps)
    with FlopCounterMode(display=False) as counter:
        step.eager()
    flops = counter.get_total_flops()
    assert flops == config.flops(rows, 0)
    ways: dict[str, Callable[[], object]] = {"as it is": step.eager}
    for told, way in (("channels first", channels_first), ("gates apart", gates_apart)):
        ways[told] = partial(_in_way, step.eager, way)
    ways["frame by frame"] = partial(_in_way, step.eager, frame_by_frame)
    ways["bf16"] = step.bf16
    if compiling:
        ways |= {"compiled": step.compiled(bf16=False), "compiled, bf16": step.compiled(bf16=True)}
    turns = dict.fromkeys(ways, steps)
    if steps % STACKED == 0:
        ways[f"{STACKED} stacked"], turns[f"{STACKED} stacked"] = step.stacked(STACKED), steps // STACKED
    first = {way: seconds(run) for way, run in ways.items()}
    times: dict[str, Times] = interleaved({way: partial(_repeat, run, turns[way]) for way, run in ways.items()}, rounds)
    floor = flops / best / 1e6
    table: list[Row] = []
    for told, found in times.items():
        wall, cpu = found.per(steps)
        table.append(
            {
                "step": told,
                **spread_cells("CPU ms", cpu),
                "wall ms": wall.median,
                "over the floor": cpu.median / floor,
                "of the first way": found.over(times["as it is"]),
                "sequences/s": rows / cpu.median * 1e3,
                "first step, s": first[told],
                "n": cpu.n,
            }
        )
    report.table(f"{name}, {flops / 1e9:.3g} GFLOP a step of {rows} rows, {_count(step.model)} parameters", table)
    report.note(
        f"Floor: {floor:.3g} ms, all products at {best:.0f} GFLOP/s, the speed of the fastest convolution; the "
        f"convolutions alone, each at its own: {1e3 * alone:.3g} ms."
    )


def _count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="turns of every way (5; quick: 1)")
    options.add_argument("--networks", type=int, default=len(NETWORKS), help="how many, from the smallest")
    options.add_argument("--no-compile", action="store_true", help="leave compiled programs out")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report("What does a step of a recurrent ladder cost on one CPU core?", given)
    begun, quick = time.perf_counter(), given.quick
    for name, (config, rows, steps) in list(NETWORKS.items())[: 1 if quick else given.networks]:
        rounds, compiling = given.rounds or (1 if quick else 5), not (quick or given.no_compile)
        compare(report, name, config, rows, 1 if quick else steps, rounds, compiling=compiling)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
