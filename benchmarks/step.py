"""What does one training step of one trial cost on one CPU core, in each way in which it can be done?

    eager               the step as packs execute it
    compiled            the same as a compiled program
    bf16                with products in bfloat16, as configured by ``training.precision``
    compiled, bf16      both
    stacked             four members' steps as one, by vmap; per member
    memory given back   eager, while the C library returns large blocks to the system (``training.memory`` keeps them)
    drawing             moving digits only: drawing a batch
    plain loop          the ladder only: a plain PyTorch loop of the same maths (``plain_loop.py``)
    products            ladder and Tagger: the step's matrix products, in its shapes and its order

All ways of a study take turns, after "memory given back", because a process that keeps memory continues to do so.

    python -m benchmarks.step
    python -m benchmarks.step --studies mnist-100-conv-small-gamma occluded-digits-rladder --no-compile
    python -m benchmarks.step --studies shapes-small shapes-ln two-textures-small
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import median
from unittest import mock

import torch
from torch import Tensor

from benchmarks.measure import Option, Report, Row, Times, benchmark, interleaved, seconds, spread_cells
from benchmarks.plain_loop import PlainLoop
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.models import find_family
from ladder_search.models.ladder import LadderConfig
from ladder_search.models.tagger import TaggerConfig
from ladder_search.studies import find_study
from ladder_search.training import pack as pack_module
from ladder_search.training.feeding import training_feed
from ladder_search.training.member import MemberSpec
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

STUDIES = (
    "digits-100",
    "mnist-100-full",
    "digits-100-conv-small-gamma",
    "mnist-100-conv-small-gamma",
    "occluded-digits-rladder",
)
STACKED = 4
TURN_SECONDS = 0.4
"""Target length of one way's turn in a round."""
CPU = torch.device("cpu")

Run = Callable[[int], object]


def packed(
    spec: TrialSpec, dataset: Dataset, *, members: int = 1, compiled: bool = False, precision: str = "float32"
) -> Pack:
    """Return a full pack of one member, or of several with stacked steps regardless of their family's preference."""
    spec = replace(spec, training=replace(spec.training, precision=precision))  # type: ignore[arg-type]
    family, member = find_family(spec.family), spec.member(dataset)
    pack = Pack(
        member, family.build, training_feed(spec.member(dataset), dataset, CPU), slots=members, compiled=compiled,
        stacking=family.stacking if members == 1 else "vmap",
    )  # fmt: skip
    for _ in range(members):
        pack.join(member)
    return pack


def drawing(spec: TrialSpec, dataset: Dataset) -> Run:
    """Return a function that draws batches like the first part of a step."""
    feed, keys = training_feed(spec.member(dataset), dataset, CPU), torch.tensor([7])
    rows = [torch.from_numpy(table) for table in feed.stream(spec.member(dataset)).tables(0, 1)]

    def draw(times: int) -> None:
        for _ in range(times):
            feed.gather(feed.x, feed.y, rows, keys, torch.float32)

    return draw


Shape = tuple[int, int, int, bool]
"""Rows, inputs and outputs of a product, and whether its inputs need a gradient."""


def shapes_of_ladder(member: MemberSpec, model: LadderConfig) -> list[Shape]:
    clean = member.unlabelled_rows
    noisy = member.labelled_rows + clean
    layers = list(pairwise(model.widths))
    shapes = [(noisy + clean, *layer, i > 0) for i, layer in enumerate(layers)]
    return shapes + [(clean, n_out, n_in, True) for n_in, n_out in reversed(layers)]


def shapes_of_tagger(member: MemberSpec, model: TaggerConfig) -> list[Shape]:
    rows = model.groups * model.rows(member.labelled_rows, member.unlabelled_rows)
    layers, bottom = list(pairwise(model.widths)), model.widths[0]
    shapes: list[Shape] = []
    for iteration in range(model.iterations):
        # The inputs of the first iteration depend on no parameter.
        shapes.append((rows, 4 * model.pixels, bottom, iteration > 0))
        shapes += [(rows, n_in, n_out, True) for n_in, n_out in layers]
        shapes += [(rows, n_out, n_in, True) for n_in, n_out in reversed(layers)]
        shapes += [(rows, bottom, model.pixels, True)] * 2
    return shapes


def products(member: MemberSpec, shapes: list[Shape]) -> Run:
    """Return a function of all matrix products of a network's steps: forward, gradients of weights and of inputs."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for rows, n_in, n_out, inputs_need_gradient in shapes:
        h, w, d = torch.randn(rows, n_in), torch.randn(n_out, n_in), torch.randn(rows, n_out)
        pairs += [(h, w.T), (d.T, h), (d, w)][: 3 if inputs_need_gradient else 2]
    flops = sum(2.0 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in pairs)
    assert abs(flops / member.flops - 1) < 1e-9, "these must be the products that the model counts"
    outs = [torch.empty(a.shape[0], b.shape[1]) for a, b in pairs]

    def multiply(times: int) -> None:
        for _ in range(times):
            for (a, b), out in zip(pairs, outs, strict=True):
                torch.mm(a, b, out=out)

    return multiply


def ways(spec: TrialSpec, dataset: Dataset, *, compiling: bool) -> dict[str, tuple[Run, int]]:
    """Return way -> function that runs steps, and the number of their members."""
    runs: dict[str, tuple[Run, int]] = {
        "eager": (packed(spec, dataset).run, 1),
        "bf16": (packed(spec, dataset, precision="bf16").run, 1),
        "stacked": (packed(spec, dataset, members=STACKED).run, STACKED),
    }
    if compiling:
        runs["compiled"] = packed(spec, dataset, compiled=True).run, 1
        runs["compiled, bf16"] = packed(spec, dataset, compiled=True, precision="bf16").run, 1
    if dataset.moving is not None:
        runs["drawing"] = drawing(spec, dataset), 1
    if isinstance(spec.model, LadderConfig):
        member, data = spec.member(dataset), training_feed(spec.member(dataset), dataset, CPU)
        for adam, compiled in (("foreach", False), ("fused", False), ("fused", True)):
            if compiling or not compiled:
                name = f"plain loop{' compiled' * compiled}, Adam {adam}"
                runs[name] = PlainLoop(member, data, adam=adam, compiled=compiled).run, 1  # type: ignore[arg-type]
        runs["products"] = products(member, shapes_of_ladder(member, spec.model)), 1
    if isinstance(spec.model, TaggerConfig):
        member = spec.member(dataset)
        runs["products"] = products(member, shapes_of_tagger(member, spec.model)), 1
    return runs


def compare(report: Report, name: str, rounds: int, *, turn: float, compiling: bool) -> None:
    """Measure one study's step in all ways and print their table."""
    spec = find_study(name).trial()
    dataset = datasets.load(spec.data)
    with mock.patch.object(pack_module, "keep_large_blocks"):
        given_back = packed(spec, dataset).run
    first = {"memory given back": seconds(partial(given_back, 1))}
    steps = max(2, round(turn / seconds(partial(given_back, 1))))
    times: dict[str, Times] = interleaved({"memory given back": partial(given_back, steps)}, rounds)
    runs = ways(spec, dataset, compiling=compiling)
    first |= {way: seconds(partial(run, 1)) for way, (run, _) in runs.items()}
    times |= interleaved({way: partial(run, steps) for way, (run, _) in runs.items()}, rounds)
    flops = spec.member(dataset).flops
    rivals: dict[str, list[Times]] = {"plain": [], "compiled": []} if isinstance(spec.model, LadderConfig) else {}
    for way in times:
        if way.startswith("plain loop"):
            rivals["compiled" if "compiled" in way else "plain"].append(times[way])
    fastest = {kind: min(of, key=lambda one: median(one.cpu)) for kind, of in rivals.items() if of}
    rows: list[Row] = []
    for way, times_of_way in times.items():
        members = runs[way][1] if way in runs else 1
        wall, cpu = times_of_way.per(steps * members)
        row: Row = {
            "step": way,
            **spread_cells("CPU ms", cpu),
            "wall ms": median(wall),
            "times as fast as eager": members / times_of_way.over(times["eager"]),
        }
        row |= {f"as the plain loop, {kind}": members / times_of_way.over(rival) for kind, rival in fastest.items()}
        row["GFLOP/s"] = None if way == "drawing" else flops / median(cpu) / 1e6
        rows.append({**row, "first step, s": first[way], "n": rounds})
    report.table(f"{name}: {flops / 1e9:.3g} GFLOP a step, {steps} steps a turn", rows)


def square_peak(side: int, rounds: int) -> float:
    """Return the GFLOP/s of one large square product, in CPU time."""
    a, b, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
    torch.mm(a, b, out=out)
    square_times = interleaved({"square": lambda: torch.mm(a, b, out=out)}, rounds)["square"]
    return 2.0 * side**3 / min(square_times.cpu) / 1e9


@benchmark(
    "What does one training step of one trial cost on one CPU core, in each way to do it?",
    Option("--studies", "whose steps", STUDIES, STUDIES[:1], {"nargs": "+", "metavar": "STUDY"}),
    Option("--rounds", "turns of every way", 7, 2),
    Option("--no-compile", "leave compiled programs out", False),
    one_process=True,
)
def main(report: Report, options: argparse.Namespace) -> None:
    # Quick runs do not compile, which takes up to a minute per program the first time.
    compiling, turn = not (options.quick or options.no_compile), 0.0 if options.quick else TURN_SECONDS
    for name in options.studies:
        compare(report, name, options.rounds, turn=turn, compiling=compiling)
    side = 512 if options.quick else 2048
    report.note(f"One {side} x {side} product reaches {square_peak(side, options.rounds):.0f} GFLOP/s.")


if __name__ == "__main__":
    main()
