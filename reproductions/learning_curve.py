"""Test error along one study's published configuration, several seeds as one pack: the curve of a final training.

Final training reads the test set; nothing is chosen by it here: the schedule is the paper's and the last line counts.

    python reproductions/learning_curve.py --seeds 1,2,3 --steps 3600 --every 1200 --output curve.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from ladder_search.data import datasets
from ladder_search.data.splits import make_split
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1", help="comma-separated; each seeds labels, weights, noise and batches")
    parser.add_argument("--steps", type=int, help="stop after this many updates; default: the whole schedule")
    parser.add_argument("--every", type=int, default=1200, help="updates between two evaluations")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    dataset = datasets.load("mnist")
    x, y, test_x, test_y = (
        torch.from_numpy(array.copy()).to(arguments.device)
        for array in (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y)
    )
    data = TrainingData(x=x, y=y.long(), full_scale=dataset.full_scale)
    specs = [
        MemberSpec(
            model=LadderConfig(),
            training=TrainingConfig(),
            split=make_split(dataset.train_y, n_labelled=100, n_validation=0, n_classes=10, seed=seed),
            seed=seed,
        )
        for seed in map(int, arguments.seeds.split(","))
    ]
    pack = Pack(specs[0], lambda c, g: Ladder(c, generator=g), data, slots=len(specs), compiled=True)
    for spec in specs:
        pack.join(spec)
    last = arguments.steps or specs[0].total_steps
    begun = time.time()
    for start in range(0, last, arguments.every):
        reports = pack.run(min(arguments.every, last - start))
        errors = pack.test_errors(test_x, test_y.long())
        for slot, spec in enumerate(specs):
            row = {"seed": spec.seed, "step": reports[slot].step, "test_error": errors[slot]}
            row |= {"seconds": round(time.time() - begun, 1), "step_time_ms": reports[slot].step_time_ms}
            with arguments.output.open("a") as lines:
                lines.write(json.dumps(row | {"terms": reports[slot].terms}) + "\n")


if __name__ == "__main__":
    main()
