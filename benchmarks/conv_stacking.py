"""Does stacking pay for convolutions on a CPU? One step of K small convolutional networks, in three ways.

    in turn   K steps of one network each
    vmap      one network's step under vmap, which torch turns into grouped convolutions
    grouped   the members' channels side by side, in grouped convolutions written out by hand

A step is the forward and backward pass of a noisy classifier with a clean twin, as a ladder's encoder has them: batch
normalisation and noise in every layer, cross-entropy on the noisy rows, a squared distance between the two tops. The
layers are those of the paper's Conv-Small network, at its size on fewer rows, and on 8 x 8 digits with a quarter of the
channels, where launches weigh most. One thread; all ways take turns, and their gradients are compared.

    python -m benchmarks.conv_stacking
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from benchmarks.measure import Report, Row, Times, interleaved, parser, seconds, spread_cells

MEMBERS = {"eager": (1, 4, 8), "compiled": (1, 4)}
CLASSES = 10
SIGMA = 0.3
TURN_SECONDS = 0.4
"""Aim for the length of one way's turn in a round."""

Params = list[Tensor]
"""Kernels of the layers, (K, out, in, k, k) each, then the last layer's weight, (K, classes, classes)."""

Run = Callable[[], list[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Conv-Small: full 5x5, pool, valid 3x3, full 3x3, pool, valid 3x3, 1x1, mean over the image, fully connected."""

    side: int
    channels: tuple[int, int, int, int]
    rows: int
    """Noisy rows; there are as many clean ones."""

    @property
    def layers(self) -> list[tuple[int, int, int, int, bool]]:
        """(channels in, channels out, kernel, padding, whether a pool follows) of every convolution."""
        a, b, c, d = self.channels
        return [
            (1, a, 5, 4, True),
            (a, b, 3, 0, False),
            (b, c, 3, 2, True),
            (c, d, 3, 0, False),
            (d, CLASSES, 1, 0, False),
        ]

    @property
    def images(self) -> list[tuple[int, int]]:
        """(channels, side) of what each convolution puts out."""
        found, side = [], self.side
        for _, out, kernel, padding, pool in self.layers:
            side += 2 * padding - kernel + 1
            found.append((out, side))
            side = -(-side // 2) if pool else side
        return found

    @property
    def flops(self) -> float:
        """Floating-point operations of one member's convolutions, forward and backward."""
        per_row = [
            2.0 * n_in * out * kernel**2 * side**2
            for (n_in, out, kernel, _, _), (_, side) in zip(self.layers, self.images, strict=True)
        ]
        return 2 * self.rows * (3 * sum(per_row) - per_row[0])


NETWORKS = {
    "Conv-Small, 28 x 28": Network(side=28, channels=(32, 64, 64, 128), rows=10),
    "a quarter of it, 8 x 8": Network(side=8, channels=(8, 16, 16, 32), rows=100),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What K members are trained on, stacked along a leading axis: images, classes, and noise of every layer."""

    x: Tensor  # (K, rows, 1, side, side)
    y: Tensor  # (K, rows)
    noise: list[Tensor]  # (K, rows, channels, side, side)


def cost(network: Network, members: int, params: Params, x: Tensor, y: Tensor, noise: list[Tensor]) -> Tensor:
    """Return the sum of the members' costs, whose channels lie side by side.

    Args:
        params: kernels of all members, (members x out, in, k, k); the last weight (members, classes, classes).
        x: (rows, members, side, side); y: (rows, members); noise: (rows, members x channels, side, side).
    """
    n = x.shape[0]
    h = torch.cat([x + SIGMA * noise[0], x])  # noisy rows, then clean ones, in one product per layer
    tops: tuple[Tensor, Tensor] = (h, h)
    for i, ((_, _, _, padding, pool), kernel) in enumerate(zip(network.layers, params, strict=False)):
        z = functional.conv2d(h, kernel, padding=padding, groups=members)
        noisy, clean = _normalised(z[:n]) + SIGMA * noise[i + 1], _normalised(z[n:])
        tops = noisy, clean
        h = functional.relu(torch.cat([noisy, clean]))
        if pool:
            h = functional.max_pool2d(h, 2, ceil_mode=True)
    pooled = h[:n].mean((-2, -1)).view(n, members, CLASSES)
    logits = torch.einsum("nmi,moi->nmo", pooled, params[-1])
    apart = (tops[0] - tops[1]).square().mean() * members
    return functional.cross_entropy(logits.flatten(0, 1), y.flatten()) * members + apart


def _normalised(z: Tensor) -> Tensor:
    """Batch normalisation over rows and places, every channel by itself."""
    variance, mean = torch.var_mean(z, (0, 2, 3), correction=0, keepdim=True)
    return (z - mean) * torch.rsqrt(variance + 1e-10)


def start(network: Network, members: int) -> tuple[Params, Batch]:
    """Return weights and a batch of K members, stacked."""
    torch.manual_seed(1)
    kernels = [torch.randn(members, out, n_in, k, k) / (n_in * k * k) ** 0.5 for n_in, out, k, _, _ in network.layers]
    params = [*kernels, torch.randn(members, CLASSES, CLASSES) / CLASSES**0.5]
    images = [(1, network.side), *network.images]
    noise = [torch.randn(members, network.rows, channels, side, side) for channels, side in images]
    x = torch.rand(members, network.rows, 1, network.side, network.side)
    return params, Batch(x=x, y=torch.randint(CLASSES, (members, network.rows)), noise=noise)


Cost = Callable[..., Tensor]
"""(params, x, y, noise) -> the sum of the costs of the members that lie in their leading axis."""


def differentiated(total: Cost, *, compiled: bool) -> Callable[..., list[Tensor]]:
    """Return the function that gives the gradient of ``total`` with respect to its first argument."""

    def gradient(params: Params, *inputs: object) -> list[Tensor]:
        leaves = [value.detach().requires_grad_() for value in params]
        return list(torch.autograd.grad(total(leaves, *inputs), leaves))

    # fullgraph: an error where torch would go on eagerly without a word.
    return torch.compile(grad(total), dynamic=False, fullgraph=True) if compiled else gradient


def by_groups(network: Network, members: int) -> Cost:
    """All members' cost with their channels side by side; the batch comes in that layout."""

    def total(params: Params, x: Tensor, y: Tensor, noise: list[Tensor]) -> Tensor:
        *kernels, last = params
        return cost(network, members, [*(kernel.flatten(0, 1) for kernel in kernels), last], x, y, noise)

    return total


def by_vmap(network: Network) -> Cost:
    """All members' cost through vmap over that of one."""

    def single(params: Params, x: Tensor, y: Tensor, noise: list[Tensor]) -> Tensor:
        *kernels, last = params
        return cost(network, 1, [*kernels, last.unsqueeze(0)], x, y.unsqueeze(1), noise)

    return lambda params, *inputs: vmap(single)(params, *inputs).sum()


def side_by_side(batch: Batch) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the batch with its members' channels side by side: (rows, K x channels, side, side)."""

    def laid(stacked: Tensor) -> Tensor:
        return stacked.transpose(0, 1).flatten(1, 2).contiguous()

    return laid(batch.x), batch.y.T.contiguous(), [laid(draws) for draws in batch.noise]


def ways(network: Network, members: Sequence[int], *, compiled: bool) -> dict[tuple[int, str], Run]:
    """(K, way) -> a function of nothing that computes all members' gradients, stacked."""
    alone = differentiated(by_groups(network, 1), compiled=compiled)
    found: dict[tuple[int, str], Run] = {}
    for k in members:
        params, batch = start(network, k)
        parts = [([p[i : i + 1] for p in params], *side_by_side(_member(batch, i))) for i in range(k)]
        beside = side_by_side(batch)
        stacked = differentiated(by_vmap(network), compiled=compiled)
        grouped = differentiated(by_groups(network, k), compiled=compiled)
        found[k, "in turn"] = partial(_turns, alone, parts)
        found[k, "vmap"] = partial(stacked, params, batch.x, batch.y, batch.noise)
        found[k, "grouped"] = partial(grouped, params, *beside)
    return found


def _turns(alone: Callable[..., list[Tensor]], parts: Sequence[tuple[object, ...]]) -> list[Tensor]:
    return [torch.cat(values) for values in zip(*(alone(*part) for part in parts), strict=True)]


def _member(batch: Batch, i: int) -> Batch:
    return Batch(x=batch.x[i : i + 1], y=batch.y[i : i + 1], noise=[draws[i : i + 1] for draws in batch.noise])


def apart(found: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Length of the difference of two gradients over that of the gradient, for the tensor where it is largest.

    1e-6 is rounding. One unit that rounding moves across the corner of the ReLU makes 0.01: a gradient has some 20,000
    active units behind it, and one of them is 1 / sqrt(20,000) of it.
    """
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, other, strict=True))


def compare(report: Report, title: str, network: Network, members: Mapping[str, Sequence[int]], rounds: int) -> None:
    """Measure all ways of one network and print their table; ``members``: program -> sizes of its packs."""
    runs = {
        (program, *which): run
        for program, sizes in members.items()
        for which, run in ways(network, sizes, compiled=program == "compiled").items()
    }
    first = {key: seconds(run) for key, run in runs.items()}
    deviation = {key: apart(run(), runs["eager", key[1], "in turn"]()) for key, run in runs.items()}
    once = {k: seconds(runs["eager", k, "in turn"]) for k in members["eager"]}
    repeats = {k: max(1, round(TURN_SECONDS / once[k])) for k in once}

    def turn(run: Callable[[], object], times: int) -> Callable[[], object]:
        return lambda: [run() for _ in range(times)]

    names = {f"{program} {k} {way}": (program, k, way) for program, k, way in runs}
    times = interleaved({name: turn(runs[key], repeats[key[1]]) for name, key in names.items()}, rounds)
    taken: dict[tuple[str, int, str], Times] = {names[name]: found for name, found in times.items()}
    rows: list[Row] = []
    for (program, k, way), found in taken.items():
        wall, cpu = found.per(repeats[k] * k)
        rows.append(
            {
                "program": program,
                "K": k,
                "way": way,
                **spread_cells("ms per member-step", wall),
                "CPU ms": cpu.median,
                "times as fast as in turn": 1.0 / found.over(taken[program, k, "in turn"]),
                "than eager in turn": 1.0 / found.over(taken["eager", k, "in turn"]),
                "GFLOP/s": network.flops / cpu.median / 1e6,
                "gradients apart": deviation[program, k, way],
                "first step, s": first[program, k, way],
                "n": wall.n,
            }
        )
    shape = f"{network.flops / 1e9:.2g} GFLOP a member-step, {2 * network.rows} rows"
    report.table(f"{title}, {shape}", rows)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="turns of every way (7; quick: 2)")
    options.add_argument(
        "--members", type=int, nargs="+", metavar="K", help="sizes of packs (eager 1 4 8, compiled 1 4; quick: 1 2)"
    )
    options.add_argument("--no-compile", action="store_true", help="leave compiled programs out")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report("Does it pay to stack convolutional networks on one CPU core?", given)
    torch._dynamo.config.recompile_limit = 64  # of one code object, which all ways share
    begun = time.perf_counter()
    # Quick: no compiling, which takes up to a minute per program the first time.
    programs = ("eager",) if given.quick or given.no_compile else ("eager", "compiled")
    chosen = given.members or ((1, 2) if given.quick else None)
    members = {program: chosen or MEMBERS[program] for program in programs}
    for title, network in list(NETWORKS.items())[-1:] if given.quick else NETWORKS.items():
        compare(report, title, network, members, given.rounds or (2 if given.quick else 7))
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
