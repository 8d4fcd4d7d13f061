"""Test error along one study's published configuration, several seeds as one pack: the curve of a final training.

Final training reads the test set; nothing is chosen by it here: the schedule is the paper's, or the same with fewer
epochs, and the last line counts.

    python reproductions/learning_curve.py --seeds 1,2,3 --steps 3600 --every 1200 --output curve.jsonl
    python reproductions/learning_curve.py --study mnist-100-conv-small-gamma --epochs 8 --every 600 --output c.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from ladder_search.data import datasets
from ladder_search.studies import STUDIES, find_study
from ladder_search.training.feeding import feed_of_test_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", choices=STUDIES, metavar="STUDY", default="mnist-100-full")
    parser.add_argument("--seeds", default="1", help="comma-separated; each seeds labels, weights, noise and batches")
    parser.add_argument("--epochs", type=int, help="length of a reduced schedule; default: the paper's")
    parser.add_argument("--steps", type=int, help="stop after this many updates; default: the whole schedule")
    parser.add_argument("--every", type=int, default=1200, help="updates between two evaluations")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    published, device = find_study(arguments.study).trial(), torch.device(arguments.device)
    epochs = arguments.epochs or published.training.epochs
    spec = replace(
        published,
        data=replace(published.data, validation=0),
        training=replace(published.training, epochs=epochs),
    )
    dataset = datasets.load(spec.data)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    members = [replace(spec, seed=seed, label_seed=seed).member(dataset) for seed in seeds]
    pack = spec.pack(dataset, slots=len(seeds), compiled=not arguments.no_compile, device=device)
    for member in members:
        pack.join(member)
    test = feed_of_test_set(spec.member(dataset), dataset, device)
    last = arguments.steps or members[0].total_steps
    begun = time.time()
    for start in range(0, last, arguments.every):
        reports = pack.run(min(arguments.every, last - start))
        errors = pack.test_errors(test)
        for slot, seed in enumerate(seeds):
            row = {"seed": seed, "step": reports[slot].step, "test_error": errors[slot]}
            row |= {"seconds": round(time.time() - begun, 1), "step_time_ms": reports[slot].step_time_ms}
            if epochs != published.training.epochs:
                row["reduced_to_epochs"] = epochs
            with arguments.output.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row | {"terms": reports[slot].terms}) + "\n")


if __name__ == "__main__":
    main()
