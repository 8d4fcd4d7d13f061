"""What do moving digits cost to draw, beside the training step that they are drawn for?

Sequences are drawn where they are trained on, a batch for each step. Timed are the frames alone, which is what a
network is trained on, and all that is known of a sequence: frames, reconstructions, what was seen.

There is no recurrent network here yet, so the step is computed: floating-point operations of a recurrent ladder network
of that size (forward and backward, counted by PyTorch on a stand-in with convolutional LSTMs), over the operations per
second that 3 x 3 convolutions with as many channels reach on this machine, forward and backward. A real step is slower,
because it does more than its convolutions; drawing then weighs less.

    python -m benchmarks.occluded_frames
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Report, Row, interleaved, parser, seconds, spread_cells
from ladder_search.data.occluded import FULL, HALF, Renderer, Scene
from ladder_search.data.occluded_sets import VALIDATION, stream_key

BATCH = 100
STEPS = {
    # scene, base channels -> GFLOP of one sequence, forward and backward
    ("32 x 32", 8): (FULL, 0.23),
    ("32 x 32", 32): (FULL, 3.6),
    ("16 x 16", 8): (HALF, 0.058),
    ("16 x 16", 16): (HALF, 0.225),
}
LAYERS = 4
"""Of the convolutions that the machine's speed is taken from."""

TURN_SECONDS = 0.3
"""Aim for the length of one turn."""


class Convolutions:
    """Forward and backward of convolutions over all frames of a batch, and what they cost."""

    def __init__(self, scene: Scene, channels: int, device: torch.device) -> None:
        torch.manual_seed(1)
        self._net = nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(LAYERS))).to(device)
        rows = BATCH * scene.frames
        self._x = torch.randn(rows, channels, scene.side, scene.side, device=device, requires_grad=True)
        self.flops = 3 * LAYERS * 2.0 * rows * scene.side**2 * channels**2 * 9

    def __call__(self) -> None:
        self._net(self._x).square().mean().backward()


def drawing(renderer: Renderer, device: torch.device, *, everything: bool) -> Callable[[], Tensor]:
    """Return the function that draws a batch."""
    d = renderer.scene.digit
    digits = torch.rand(BATCH, d, d, device=device)
    numbers, key = torch.arange(BATCH, device=device), stream_key(1, VALIDATION)
    if everything:
        return lambda: renderer.sequences(digits, key, numbers).reconstructions
    return lambda: renderer.frames(digits, renderer.positions(key, numbers))


def several(run: Callable[[], object], times: int, device: torch.device) -> None:
    for _ in range(times):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options.add_argument("--rounds", type=int, help="turns of every variant (7; quick: 2)")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device(given.device)
    report = Report("What do moving digits cost to draw?", given)
    begun = time.perf_counter()
    steps = dict(list(STEPS.items())[2:3]) if given.quick else STEPS
    rows: list[Row] = []
    for (size, channels), (scene, gigaflops) in steps.items():
        renderer, convolutions = Renderer(scene, device), Convolutions(scene, channels, device)
        runs: dict[str, Callable[[], object]] = {
            "frames": drawing(renderer, device, everything=False),
            "everything": drawing(renderer, device, everything=True),
            "convolutions": convolutions,
        }
        turns = {}
        for name, run in runs.items():
            several(run, 2, device)
            once = seconds(partial(several, run, 1, device))
            turns[name] = 1 if given.quick else max(1, round(TURN_SECONDS / once))
        variants = {name: partial(several, run, turns[name], device) for name, run in runs.items()}
        times = interleaved(variants, given.rounds or (2 if given.quick else 7))
        # CPU time suffers least from neighbours; a GPU's is the host's alone.
        taken = {name: found.per(turns[name])[device.type == "cpu"] for name, found in times.items()}
        speed = convolutions.flops / taken["convolutions"].median / 1e6  # GFLOP/s
        step = 1e3 * BATCH * gigaflops / speed
        rows.append(
            {
                "frame": size,
                "channels": channels,
                **spread_cells("frames, ms", taken["frames"]),
                **spread_cells("everything, ms", taken["everything"]),
                "convolutions, GFLOP/s": speed,
                "step by its FLOP, ms": step,
                "frames of a step, %": 100 * taken["frames"].median / step,
                "everything of a step, %": 100 * taken["everything"].median / step,
                "n": taken["frames"].n,
            }
        )
    kind = "CPU" if device.type == "cpu" else "wall"
    report.table(f"A batch of {BATCH} sequences of {FULL.frames} frames, {kind} time", rows)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
