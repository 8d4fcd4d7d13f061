"""The effect of bfloat16 products on the error of the published digits configuration, for equal seeds.

Each seed has its own label draw, weights, noise and batches and trains the study's whole schedule; the seeds of a
precision train as one pack. Errors are those on the validation rows, and are not used for selection.

    python -m benchmarks.precision
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy import stats

from benchmarks.measure import Option, Row, benchmark, check_device
from ladder_search.data import datasets
from ladder_search.studies import STUDIES
from ladder_search.training.settings import TrainingConfig

PRECISIONS = ("float32", "bf16")


def errors(precision: str, seeds: Sequence[int], epochs: int | None, device: str) -> list[float]:
    """Train the seeds to the end of the schedule; return their validation errors."""
    study = STUDIES["digits-100"]
    training: TrainingConfig = replace(study.training, precision=precision)  # type: ignore[arg-type]
    if epochs is not None:
        training = replace(training, epochs=epochs)
    dataset = datasets.load(study.data.dataset)
    specs = [replace(study.trial(seed=seed, label_seed=seed), training=training) for seed in seeds]
    members = [spec.member(dataset) for spec in specs]
    pack = specs[0].pack(dataset, slots=len(seeds), compiled=False, device=torch.device(device))
    for member in members:
        pack.join(member)
    pack.run(members[0].total_steps)
    return list(pack.validation_errors().values())


OPTIONS = (
    Option("--seeds", "seeds in either precision", 20, 2),
    Option("--device", "where", "cpu", how={"choices": ("cpu", "cuda")}),
)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "What do products in bfloat16 do to the error of digits-100?"
    with benchmark(question, __doc__, *OPTIONS, one_process=True, arguments=arguments) as (report, options):
        check_device(options.device)
        seeds = range(2001, 2001 + options.seeds)  # not used by searches or final trainings
        by_precision = {one: errors(one, seeds, 2 if options.quick else None, options.device) for one in PRECISIONS}
        rows: list[Row] = [
            {
                "products": one,
                "mean error, %": 100 * statistics.mean(values),
                "sd": 100 * statistics.stdev(values),
                "n": options.seeds,
            }
            for one, values in by_precision.items()
        ]
        report.table("Validation error, one pack of seeds per precision", rows)
        differences = [100 * (b - a) for a, b in zip(*by_precision.values(), strict=True)]
        mean, sd = statistics.mean(differences), statistics.stdev(differences)
        low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
        report.note(
            f"bf16 minus float32, paired by seed: {mean:+.2f} points, sd {sd:.2f}, 95 % interval "
            f"{low:+.2f} .. {high:+.2f}, n = {options.seeds}."
        )


if __name__ == "__main__":
    main()
