"""What does a step of a convolutional ladder cost on one CPU core, does compiling it pay, and does keeping its memory?

    given back   eager, with memory as the C library deals with it: blocks above 32 MiB go back to the system
    eager        the step as packs take it; a network with such blocks keeps them (``training.memory``)
    compiled     the same, compiled

The first is measured before the others, which then take turns: what a process has begun to keep it keeps.

    python -m benchmarks.conv_step
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from unittest import mock

import torch

from benchmarks.measure import Report, Row, Times, interleaved, parser, seconds, spread_cells
from ladder_search.data import datasets
from ladder_search.studies import find_study
from ladder_search.training import pack as pack_module
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

STEPS = {"digits-100-conv-small-gamma": 40, "mnist-100-conv-small-gamma": 4}
"""Study -> steps of a turn."""


def new_pack(spec: TrialSpec, *, compiled: bool) -> Pack:
    dataset = datasets.load(spec.data.dataset)
    pack = spec.pack(dataset, slots=1, compiled=compiled, device=torch.device("cpu"))
    pack.join(spec.member(dataset))
    return pack


def compare(report: Report, name: str, steps: int, rounds: int, *, compiling: bool) -> None:
    """Measure one study's step in all ways and print their table."""
    spec = find_study(name).trial()
    with mock.patch.object(pack_module, "keep_large_blocks"):
        packs = {"given back": new_pack(spec, compiled=False)}
    first = {"given back": seconds(partial(packs["given back"].run, 1))}
    times: dict[str, Times] = interleaved({"given back": partial(packs["given back"].run, steps)}, rounds)
    packs |= {"eager": new_pack(spec, compiled=False)}
    if compiling:
        packs["compiled"] = new_pack(spec, compiled=True)
    rest = {way: pack for way, pack in packs.items() if way != "given back"}
    first |= {way: seconds(partial(pack.run, 1)) for way, pack in rest.items()}
    times |= interleaved({way: partial(pack.run, steps) for way, pack in rest.items()}, rounds)
    flops = spec.member(datasets.load(spec.data.dataset)).flops
    rows: list[Row] = []
    for way, found in times.items():
        wall, cpu = found.per(steps)
        rows.append(
            {
                "step": way,
                **spread_cells("CPU ms", cpu),
                "wall ms": wall.median,
                "GFLOP/s": flops / cpu.median / 1e6,
                "first step, s": first[way],
                "n": cpu.n,
            }
        )
    report.table(f"{name}, {flops / 1e9:.2g} GFLOP a step, 100+100 rows", rows)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, help="turns of every way (7; quick: 2)")
    options.add_argument("--no-compile", action="store_true", help="leave compiled programs out")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report("What does a step of a convolutional ladder cost on one CPU core?", given)
    begun = time.perf_counter()
    for name, steps in list(STEPS.items())[: 1 if given.quick else None]:
        quick = given.quick
        rounds = given.rounds or (2 if quick else 7)
        compare(report, name, 2 if quick else steps, rounds, compiling=not (quick or given.no_compile))
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
