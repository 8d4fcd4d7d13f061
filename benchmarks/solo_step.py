"""One training step of one trial: this project's program against a plain PyTorch loop of the same maths.

The plain loop calls the same ``Ladder.cost`` on the same rows with as much noise, and updates with torch.optim.Adam
in its two fast forms. Compiled, its cost (with the backward pass) is compiled and the fused Adam kept, the usual way.
One thread. The peak is the time of the step's matrix products alone, in the order and the shapes of the step.

    python -m benchmarks.solo_step
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks import workloads
from benchmarks.measure import Report, Row, Times, interleaved, parser, seconds, spread_cells
from ladder_search.data.streams import LABELLED, UNLABELLED, BatchStream
from ladder_search.models.ladder import Ladder
from ladder_search.nn.protocol import Batch
from ladder_search.training.pack import MemberSpec, TrainingData

ROUND_SECONDS = 0.4
"""Aim for the length of one variant's turn in a round."""


class PlainLoop:
    """A single-trial loop as one writes it: module, backward, optimiser, one generator for the noise.

    It runs where the data lies. ``mode`` is that of ``torch.compile``.
    """

    def __init__(
        self, spec: MemberSpec, data: TrainingData, *, adam: str, compiled: bool, mode: str | None = None
    ) -> None:
        self._data, self._adam, self._device = data, adam, data.x.device
        model = workloads.BUILD(spec.model, torch.Generator()).to(self._device)
        assert isinstance(model, Ladder)
        self._model = model
        cost: Callable[..., tuple[Tensor, Tensor]] = model.cost
        self._cost = torch.compile(cost, dynamic=False, mode=mode) if compiled else cost
        self.restart(spec)

    def restart(self, spec: MemberSpec) -> None:
        """Train ``spec``, of the sizes that the loop was made for, from its start in the same program."""
        weights, self._step = torch.Generator().manual_seed(spec.seed), 0
        self._model.load_state_dict(workloads.BUILD(spec.model, weights).state_dict())
        on_cpu = self._device.type == "cpu"
        self._generator = weights if on_cpu else torch.Generator(self._device).manual_seed(spec.seed)
        training, split, seed = spec.training, spec.split, spec.seed
        kinds = (
            (split.labelled, training.labelled_batch, LABELLED),
            (split.unlabelled, training.unlabelled_batch, UNLABELLED),
        )
        self._streams = [BatchStream(rows, size, seed=seed, tag=tag) for rows, size, tag in kinds]
        self._noise_size = self._model.noise_size(*(stream.batch_size for stream in self._streams))
        self._hyper = {n: torch.tensor(values, device=self._device) for n, values in spec.model.hyper().items()}
        self._optimiser = torch.optim.Adam(self._model.parameters(), lr=training.lr, **{self._adam: True})  # type: ignore[arg-type]

    def run(self, steps: int) -> Tensor:
        """Train; returns the mean of the cost's terms."""
        tables = (torch.from_numpy(stream.batches(self._step, steps)) for stream in self._streams)
        labelled, unlabelled = (table.to(self._device) for table in tables)
        total = torch.zeros((), device=self._device)
        for rows, more in zip(labelled, unlabelled, strict=True):
            total = total + self._update(rows, more)
        self._step += steps
        return total / steps

    def _update(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        """One step on these rows of the data; returns the cost's terms."""
        x, y, full_scale = self._data.x, self._data.y, self._data.full_scale
        batch = Batch(x[labelled].float() / full_scale, y[labelled], x[unlabelled].float() / full_scale)
        noise = torch.randn(self._noise_size, generator=self._generator, device=self._device)
        cost, terms = self._cost(batch, noise, self._hyper)
        self._optimiser.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return terms.detach()


def products(widths: Sequence[int], noisy: int, clean: int) -> list[tuple[Tensor, Tensor]]:
    """Operands of every matrix product of a step: forward, gradient of the weights, gradient of the inputs."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def layer(rows: int, n_in: int, n_out: int, *, inputs_need_gradient: bool) -> None:
        h, w, d = torch.randn(rows, n_in), torch.randn(n_out, n_in), torch.randn(rows, n_out)
        pairs.extend([(h, w.T), (d.T, h)])
        if inputs_need_gradient:
            pairs.append((d, w))

    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        layer(noisy + clean, n_in, n_out, inputs_need_gradient=i > 0)
    for n_out, n_in in reversed(list(pairwise(widths))):
        layer(clean, n_in, n_out, inputs_need_gradient=True)
    return pairs


def multiply(pairs: Sequence[tuple[Tensor, Tensor]], outs: Sequence[Tensor], times: int) -> None:
    for _ in range(times):
        for (a, b), out in zip(pairs, outs, strict=True):
            torch.mm(a, b, out=out)


def compare(report: Report, size: str, *, rounds: int, compiled: bool) -> None:
    """Measure all variants of one size and print their table."""
    spec, data = workloads.member(size), workloads.training_data(size, torch.device("cpu"))
    runs: dict[str, Callable[[int], object]] = {
        "plain loop, Adam foreach": PlainLoop(spec, data, adam="foreach", compiled=False).run,
        "plain loop, Adam fused": PlainLoop(spec, data, adam="fused", compiled=False).run,
        "ladder-search": workloads.full_pack(size, data, 1, compiled=False).run,
    }
    if compiled:
        runs["plain loop compiled, Adam fused"] = PlainLoop(spec, data, adam="fused", compiled=True).run
        runs["ladder-search compiled"] = workloads.full_pack(size, data, 1, compiled=True).run
    pairs = products(workloads.WIDTHS[size], noisy=200, clean=100)
    flops = sum(2.0 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in pairs)
    assert abs(flops / spec.flops - 1) < 1e-9, "the products below must be those that the model counts"
    outs = [torch.empty(a.shape[0], b.shape[1]) for a, b in pairs]
    runs["its matrix products alone"] = lambda steps: multiply(pairs, outs, steps)

    first = {name: seconds(lambda run=run: run(2)) for name, run in runs.items()}  # type: ignore[misc]
    once = seconds(lambda: runs["ladder-search"](4)) / 4
    steps = max(2, round(ROUND_SECONDS / once))
    turns: dict[str, Callable[[], object]] = {name: (lambda run=run: run(steps)) for name, run in runs.items()}  # type: ignore[misc]
    times = interleaved(turns, rounds)

    best_plain = {kind: _best(times, kind) for kind in ("plain loop, ", "plain loop compiled")}
    peak = times["its matrix products alone"]
    rows: list[Row] = []
    for name, taken in times.items():
        wall, cpu = taken.per(steps)
        rival = best_plain["plain loop compiled" if "compiled" in name and compiled else "plain loop, "]
        rows.append(
            {
                "program": name,
                **spread_cells("ms per step", wall),
                "CPU ms": cpu.median,
                "speed-up over plain": None if "alone" in name else 1.0 / taken.over(rival),
                "over plain eager": None if "alone" in name else 1.0 / taken.over(best_plain["plain loop, "]),
                "GFLOP/s": flops / cpu.median / 1e6,
                "share of peak": peak.over(taken),
                "first 2 steps, s": first[name],
                "n": wall.n,
            }
        )
    report.table(f"{size}: {flops / 1e9:.3g} GFLOP in products, {steps} steps per turn, {rounds} turns", rows)


def _best(times: dict[str, Times], prefix: str) -> Times:
    found = [taken for name, taken in times.items() if name.startswith(prefix)]
    return min(found, key=lambda taken: taken.per(1)[1].median) if found else times["plain loop, Adam fused"]


def square_peak(side: int, rounds: int) -> float:
    """GFLOP/s of one big square product, in CPU time."""
    a, b, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
    torch.mm(a, b, out=out)
    taken = interleaved({"square": lambda: torch.mm(a, b, out=out)}, rounds)["square"]
    return 2.0 * side**3 / min(taken.cpu) / 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="turns of every variant (25; quick: 3)")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report("How long does one training step of one trial take, and how near is that to the peak?", given)
    rounds = given.rounds or (3 if given.quick else 25)
    begun = time.perf_counter()
    # Quick: no compiling, which takes up to a minute per program the first time.
    for size in ("digits",) if given.quick else ("digits", "mnist"):
        compare(report, size, rounds=rounds, compiled=not given.quick)
    side = 512 if given.quick else 2048
    report.note(f"One {side} x {side} product reaches {square_peak(side, rounds):.0f} GFLOP/s on one thread.")
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
