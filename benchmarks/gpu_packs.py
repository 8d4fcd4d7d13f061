"""Packs on a GPU: member-steps per second and memory against K, for four ways of running the same step.

    eager       every operation is a launch
    compiled    torch.compile, default mode
    reduced     torch.compile with CUDA graphs (what mode="reduce-overhead" does)
    captured    the compiled step, captured once as a CUDA graph and replayed: what a pack does on CUDA by itself

Batches and noise are part of every step, as in a search. Needs torch
and numpy and no installation: run it from the root of a checkout. Under 8 minutes on a data-centre GPU; what fails or
does not fit is printed as such and the rest goes on.

    python -m benchmarks.gpu_packs
    python -m benchmarks.gpu_packs --device cpu --quick
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
import torch._inductor.config as inductor

from benchmarks import workloads
from benchmarks.measure import Report, Row, Spread, parser
from ladder_search.training.noise import counters, normals
from ladder_search.training.pack import Pack, TrainingData

MEMBERS = (1, 4, 16, 64, 256, 1024)
WAYS = ("eager", "compiled", "reduced", "captured")
LIMIT_SECONDS = 440.0
"""No measurement begins after this."""
ROUND_SECONDS = 0.5
ROUNDS = 5


class Runner:
    """One pack that is run in one of the ways; ``step`` does ``count`` steps and waits for the device."""

    def __init__(self, size: str, data: TrainingData, slots: int, way: str) -> None:
        self._device = data.x.device
        self._graphs = way == "reduced"
        self.pack = workloads.full_pack(size, data, slots, compiled=way != "eager", captured=way == "captured")
        if way == "reduced":
            self._keep_addresses()
        with self._options():
            self.step(3)  # compiles, warms up

    def step(self, count: int) -> None:
        with self._options():
            self.pack.run(count)
        synchronise(self._device)

    def _options(self) -> AbstractContextManager[object]:
        patched: AbstractContextManager[object] = inductor.patch({"triton.cudagraphs": self._graphs})
        return patched

    def _keep_addresses(self) -> None:
        """CUDA graphs are skipped for inputs that a step changes, unless they are said to stay where they are."""
        pack = self.pack
        stacks = (pack._params, pack._first, pack._second, pack._hyper)
        for tensor in (pack._data.x, pack._data.y, *(t for stack in stacks for t in stack.values())):
            torch._dynamo.mark_static_address(tensor)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def noise_milliseconds(pack: Pack, device: torch.device) -> float:
    """Time that drawing one step's noise takes when it is no part of a program."""
    size = pack._model.noise_size(*pack._rows)  # type: ignore[operator]
    keys, words = torch.arange(pack.slots, device=device), counters(size, device)

    def draw() -> None:
        normals(keys, words, size)

    draw()
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(3):
        draw()
    synchronise(device)
    return (time.perf_counter() - begun) / 3 * 1e3


def measured(make: Callable[[], Runner], way: str, slots: int, device: torch.device, rounds: int) -> Row:
    """One line of the table."""
    gc.collect()  # the last pack may be held by its own captured step
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    begun = time.perf_counter()
    runner = make()
    ready = time.perf_counter() - begun
    begun = time.perf_counter()
    runner.step(2)
    steps = max(2, min(500, round(ROUND_SECONDS / (time.perf_counter() - begun) * 2)))
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        runner.step(steps)
        taken.append((time.perf_counter() - begun) / steps * 1e3)
    spread = Spread.of(taken)
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else None
    return {
        "way": way,
        "K": slots,
        "ms per step": spread.median,
        "min": spread.low,
        "max": spread.high,
        "member-steps per s": slots / spread.median * 1e3,
        "noise, ms": noise_milliseconds(runner.pack, device),
        "MiB per member": None if peak is None else peak / slots / 2**20,
        "ready after, s": ready,
        "n": spread.n,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--size", choices=tuple(workloads.WIDTHS), default="mnist", help="network (mnist)")
    options.add_argument("--members", type=int, nargs="+", metavar="K", help="members of a pack (1 4 16 64 256 1024)")
    options.add_argument("--ways", nargs="+", choices=WAYS, help="ways of running the step (all that the device has)")
    options.add_argument("--tf32", action="store_true", help="let float32 products use TensorFloat-32")
    given = options.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        options.error("--device cuda needs a GPU that PyTorch can use, and there is none: choose --device cpu.")
    device = torch.device(given.device)
    if given.tf32:
        torch.set_float32_matmul_precision("high")
    on_gpu = device.type == "cuda"
    torch.set_num_threads(1)
    report = Report("How many member-steps per second does one device do, against the size of the pack?", given)
    size = "digits" if given.quick else given.size
    ways = given.ways or (("eager",) if given.quick and not on_gpu else WAYS if on_gpu else WAYS[:2])
    members = given.members or ((1, 2) if given.quick else MEMBERS if on_gpu else (1, 2, 4, 8))
    data = workloads.training_data(size, device)
    begun = time.perf_counter()
    rows: list[Row] = []
    problems: list[str] = []
    for slots in members:
        for way in ways:
            if time.perf_counter() - begun > LIMIT_SECONDS:
                problems.append(f"{way} K={slots}: left out, the time was up")
                continue
            try:
                row = measured(
                    lambda way=way, slots=slots: Runner(size, data, slots, way),  # type: ignore[misc]
                    way,
                    slots,
                    device,
                    2 if given.quick else ROUNDS,
                )
            except Exception as error:  # out of memory, or a way that this torch or device does not have
                problems.append(f"{way} K={slots}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            rows.append(row)
            print(f"{way} K={slots}: {row['member-steps per s']:.0f} member-steps per s", file=sys.stderr, flush=True)
        torch.compiler.reset()  # programs of other K are not needed again; they hold memory
    report.table(f"{size}: member-steps against K on {device}", sorted(rows, key=lambda row: str(row["way"])))
    for problem in problems:
        report.note(problem)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
