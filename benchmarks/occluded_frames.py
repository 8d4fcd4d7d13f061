"""What do moving digits cost to draw, beside the training step that they are drawn for?

Sequences are drawn inside the step, where they are trained on. Timed are the drawing alone, which is the feed's
``gather`` on the rows of a batch, and whole steps of recurrent ladders on scikit-learn's digits, drawing among them.

    python -m benchmarks.occluded_frames
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.measure import Report, Row, interleaved, parser, seconds, spread_cells
from ladder_search.data import datasets
from ladder_search.trial import TrialSpec, training_data

BATCH = 50
SIZES = {
    # side, base channels -> data set
    ("32 x 32", 32): "occluded-digits",
    ("32 x 32", 8): "occluded-digits",
    ("16 x 16", 16): "occluded-digits-half",
    ("16 x 16", 8): "occluded-digits-half",
}
TURN_SECONDS = 0.3
"""Aim for the length of one turn."""


def trial(dataset: str, side: int, c: int) -> TrialSpec:
    """The recurrent ladder of our reading of the paper, with ``c`` channels at the bottom."""
    levels = (
        f"conv:{c}:3:1 conv:{c}:3:2 lstm:{c}:3",
        f"conv:{2 * c}:3:2 lstm:{2 * c}:3",
        f"conv:{4 * c}:3:2 dense-lstm:64",
    )
    return TrialSpec.from_mapping(
        {
            "family": "recurrent",
            "data": {"dataset": dataset, "labels": None, "validation": 97},
            "model": {"frame": [1, side, side], "levels": list(levels)},
            "training": {"epochs": 10, "labelled_batch": BATCH, "unlabelled_batch": BATCH, "clip_norm": 5.0},
        }
    )


def variants(spec: TrialSpec, device: torch.device) -> dict[str, Callable[[int], object]]:
    """Return what draws so many batches, and what does so many steps."""
    dataset = datasets.load(spec.data.dataset)
    member, feed = spec.member(dataset), training_data(spec, dataset, device)
    rows = [torch.from_numpy(table).to(device) for table in feed.stream(member).tables(0, 1)]
    keys = torch.tensor([7], device=device)
    pack = spec.pack(dataset, slots=1, compiled=False, device=device)
    pack.join(member)

    def draw(times: int) -> None:
        for _ in range(times):
            feed.gather(feed.x, feed.y, rows, keys, torch.float32)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return {"drawing": draw, "step": pack.run}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options.add_argument("--rounds", type=int, help="turns of every variant (7; quick: 2)")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device(given.device)
    report = Report("What do moving digits cost to draw?", given)
    begun = time.perf_counter()
    rows: list[Row] = []
    for (size, channels), dataset in list(SIZES.items())[-1:] if given.quick else SIZES.items():
        runs = variants(trial(dataset, int(size.split()[0]), channels), device)
        turns = {}
        for name, run in runs.items():
            run(2)
            turns[name] = 1 if given.quick else max(1, round(TURN_SECONDS / seconds(partial(run, 1))))
        times = interleaved(
            {n: partial(run, turns[n]) for n, run in runs.items()}, given.rounds or (2 if given.quick else 7)
        )
        # CPU time suffers least from neighbours; a GPU's is the host's alone.
        taken = {name: found.per(turns[name])[device.type == "cpu"] for name, found in times.items()}
        rows.append(
            {
                "frame": size,
                "channels": channels,
                **spread_cells("drawing, ms", taken["drawing"]),
                **spread_cells("step, ms", taken["step"]),
                "drawing of a step, %": 100 * taken["drawing"].median / taken["step"].median,
                "n": taken["drawing"].n,
            }
        )
    kind = "CPU" if device.type == "cpu" else "wall"
    report.table(f"A batch of {BATCH} sequences of 5 frames, {kind} time", rows)
    report.note(f"Took {time.perf_counter() - begun:.0f} s.")
    report.close(one_process=True)


if __name__ == "__main__":
    main()
