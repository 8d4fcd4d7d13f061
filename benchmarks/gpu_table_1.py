"""Does the ordering of table 1 appear on one GPU within half an hour? Occluded moving digits, at the paper's size.

The networks of the studies ``occluded-mnist-…``, with 16 instead of 32 channels at the lowest level (``--channels``),
train for the largest common number of epochs: a few steps of each are timed first, and the rest of ``--limit`` is
shared so that all networks get equally many updates. Seeds train as one pack with replayed CUDA graphs; ``--compiled``
also compiles the steps, which takes minutes for each network. Nothing is held out, and the test set is read once, at
the end. A network that runs out of time is reported as cut and excluded from the ordering.

The script needs only torch and numpy, and SciPy to test the claims; run it from the root of a checkout. MNIST must be
in the folder ``LADDER_SEARCH_DATA``. A second call can train other networks and add the first one's results:

    python -m benchmarks.gpu_table_1 --output table-1.json
    python -m benchmarks.gpu_table_1 --models no-classes --epochs 30 --add table-1.json
    python -m benchmarks.gpu_table_1 --device cpu --quick
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Option, Report, Row, benchmark, check_device, say
from ladder_search.data import mnist
from ladder_search.data.arrays import Arrays, content_digest
from ladder_search.data.dataset import Dataset, Moving
from ladder_search.data.datasets import DATASETS
from ladder_search.data.occluded import FULL, MINI
from ladder_search.data.occluded_sets import in_scene
from ladder_search.data.sources import data_folder
from ladder_search.errors import DataError
from ladder_search.final.training import FIRST_CONFIRMATION_SEED
from ladder_search.metrics import ERROR, PREDICTION_ERROR
from ladder_search.ordering.claims import find_ordering
from ladder_search.ordering.judging import Reached, judged
from ladder_search.studies import find_study
from ladder_search.studies.recurrent import table_1_model
from ladder_search.training.feeding import feed_of_test_set
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

LIMIT_SECONDS = 1500.0
RESERVE = 0.04
"""Share of the limit reserved for evaluations and for steps that are slower than the timed ones."""
SEEDS = 2
CHANNELS = 16
MODELS = ("static", "rladder", "temporal", "hierarchical", "no-feedback", "no-prediction")
"""In training order; networks with the largest differences come first."""
MORE = ("no-classes",)
TIMED_STEPS = 30
SAME = ("channels", "seeds", "quick")
"""Options, besides the epochs, that results in one table must share."""
RESULTS = "Every seed"


@dataclass(slots=True)
class Runner:
    """One network of the table: a pack of its seeds."""

    kind: str
    spec: TrialSpec
    dataset: Dataset
    pack: Pack
    device: torch.device
    step_seconds: float = 0.0
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    """Seed -> test scores, for seeds that did not diverge."""

    @property
    def steps(self) -> int:
        return int(self.spec.member(self.dataset).steps_per_epoch)

    def seat(self, seeds: Sequence[int], epochs: int) -> dict[int, int]:
        """Seat every seed at its start for a schedule of ``epochs``; return seed -> slot."""
        for slot in self.pack.active:
            self.pack.leave(slot)
        training = replace(self.spec.training, epochs=epochs)
        specs = [replace(self.spec, training=training, seed=seed, label_seed=seed) for seed in seeds]
        return {one.seed: self.pack.join(one.member(self.dataset)) for one in specs}

    def warm(self, seeds: Sequence[int], steps: int) -> None:
        """Compile, capture and time a step."""
        self.seat(seeds, 1000)
        self.pack.run(2)
        self.pack.run(steps)
        self.step_seconds = next(iter(self.pack.run(steps).values())).step_time_ms / 1e3

    def train(self, seeds: Sequence[int], epochs: int, until: float) -> Row:
        """Train to the end of the schedule or of the time, then read the test set."""
        slots, start, epoch, cost = self.seat(seeds, epochs), time.monotonic(), 0, float("nan")
        while epoch < epochs and slots and time.monotonic() < until:
            reports = self.pack.run(self.steps)
            epoch += 1
            for seed, slot in list(slots.items()):
                if not reports[slot].finite:
                    self.pack.leave(slots.pop(seed))
            cost = fmean(reports[slot].terms["cost"] for slot in slots.values()) if slots else float("nan")
            if epoch % max(1, epochs // 10) == 0:
                say(f"{self.kind}: epoch {epoch}/{epochs}, cost {cost:.4g}, {time.monotonic() - start:.0f} s")
        if slots:
            by_slot = self.pack.test_scores(feed_of_test_set(self.spec.member(self.dataset), self.dataset, self.device))
            self.scores = {seed: by_slot[slot] for seed, slot in slots.items()}
        network = self.spec.empty_network()
        return {
            "network": self.kind,
            "thousand parameters": sum(value.numel() for value in network.parameters()) / 1e3,
            "epochs": epoch,
            "of": epochs,
            "ms per step": (time.monotonic() - start) * 1e3 / max(1, epoch * self.steps),
            "last cost": cost,
            "diverged": len(seeds) - len(slots),
            "seconds": time.monotonic() - start,
        }


def images(*, quick: bool) -> tuple[Dataset, str]:
    """Return MNIST from the user's folder, or with ``quick`` synthetic digits, and a description of it; raise
    ``DataError`` if MNIST is missing."""
    folder = data_folder()
    arrays = made_up() if quick else None if folder is None else mnist.from_folder(folder)
    if arrays is None:
        raise DataError(f"MNIST must be in the folder LADDER_SEARCH_DATA, got {folder}; carry it there.")
    digest, identity = content_digest(arrays), DATASETS["mnist"].identity
    what = "made-up digits" if quick else "MNIST" if digest == identity else f"not MNIST: digest {digest[:12]}"
    return Dataset(name="mnist", **arrays._asdict(), full_scale=255.0, n_classes=10, digest=digest), what


def made_up() -> Arrays:
    """Return a few hundred synthetic images of ten classes, which differ in the position of bright pixels."""
    rng = np.random.default_rng(1)
    bright = rng.integers(0, 256, (10, 28 * 28))
    parts = []
    for rows in (600, 200):
        y = (np.arange(rows) % 10).astype(np.uint8)
        parts += [np.clip(bright[y] + rng.integers(-20, 21, (rows, 28 * 28)), 0, 255).astype(np.uint8), y]
    return Arrays(*parts)


def runner(kind: str, digits: Dataset, options: argparse.Namespace, device: torch.device) -> Runner:
    """Return the network of a row with an empty pack."""
    data = "occluded-mnist-mini" if options.quick else "occluded-mnist"
    study = find_study(f"{data}-{kind}")
    dataset = in_scene(data, digits, Moving(scene=MINI if options.quick else FULL, reconstructed=kind == "static"))
    spec = replace(
        study.trial(),
        data=replace(study.data, validation=0),
        model=table_1_model(kind, data, channels=options.channels),
    )
    spec.check_fits(dataset)
    pack = spec.pack(dataset, slots=options.seeds, compiled=options.compiled, device=device)
    return Runner(kind=kind, spec=spec, dataset=dataset, pack=pack, device=device)


def fitting(runners: Sequence[Runner], seconds: float) -> int:
    """Return the number of epochs of all networks that fit into ``seconds``: at least one, at most the study's own."""
    epoch = sum(one.steps * one.step_seconds for one in runners)
    return max(1, min(runners[0].spec.training.epochs, int(seconds / epoch)))


def run_all(report: Report, options: argparse.Namespace, digits: Dataset, until: float, found: list[Row]) -> None:
    """Time, train and report all networks; complete ones add a row for every seed to ``found``."""
    device = torch.device(options.device)
    seeds = [FIRST_CONFIRMATION_SEED + i for i in range(options.seeds)]
    runners = []
    for kind in options.models:
        one = runner(kind, digits, options, device)
        one.warm(seeds, 2 if options.quick else TIMED_STEPS)
        say(f"{kind}: {1e3 * one.step_seconds:.2f} ms per step of {len(seeds)} seeds")
        runners.append(one)
    remaining = until - time.monotonic() - RESERVE * options.limit
    fits = fitting(runners, remaining)
    epochs = options.epochs or (1 if options.quick else fits)
    if fits < epochs:
        report.note(f"{fits} epochs fit into the limit, --epochs is {epochs}: what is not done by then is cut.")
    rows: list[Row] = []
    try:
        for one in runners:
            rows.append(one.train(seeds, epochs, until))
            if rows[-1]["epochs"] == epochs or not one.scores:
                no_scores = {ERROR.name: None, PREDICTION_ERROR.name: None}
                of_all = {"network": one.kind, "epochs": epochs}
                found += [{**of_all, "seed": seed, **no_scores, **one.scores.get(seed, {})} for seed in seeds]
            else:
                report.note(f"{one.kind} was cut after {rows[-1]['epochs']} of {epochs} epochs: the time was up.")
    finally:
        if rows:
            report.table(f"Training, {options.channels} channels, {options.seeds} seeds as one pack", rows)


def tell(report: Report, every: Sequence[Row]) -> None:
    """Print every seed, the table, and the verdicts on the claims."""
    report.table(RESULTS, every)
    by_kind: dict[str, dict[int, Any]] = {}
    for one in every:
        scores = {name: one[name] for name in (ERROR.name, PREDICTION_ERROR.name) if one[name] is not None}
        by_kind.setdefault(str(one["network"]), {})[int(one["seed"] or 0)] = scores or None
    table: list[Row] = []
    for kind, of_seeds in by_kind.items():
        row: Row = {"network": kind}
        for measure in (ERROR, PREDICTION_ERROR):
            values = [scores[measure.name] for scores in of_seeds.values() if scores and measure.name in scores]
            title = f"test {measure.title}, {measure.unit}"
            row[title] = measure.number(fmean(values)) if values else None
            row[f"sd of {measure.title}"] = measure.number(stdev(values)) if len(values) > 1 else None
        table.append(row)
    report.table("Table 1", table)
    for name in ("occluded-mnist-table-1", "occluded-mnist-table-1-prediction"):
        claims(report, name, by_kind)


def claims(report: Report, name: str, found: dict[str, dict[int, Any]]) -> None:
    """Print the claims of an ordering, if any of its networks were trained."""
    ordering = find_ordering(name)
    kinds = {study: short for study, short in ordering.short.items() if short in found}
    reached = [
        Reached(
            study=study,
            values={seed: scores[ordering.measure] for seed, scores in found[kind].items() if scores},
            diverged=tuple(seed for seed, scores in found[kind].items() if not scores),
        )
        for study, kind in kinds.items()
    ]
    if len(reached) < 2:
        return
    try:
        result = judged(ordering, reached)
    except ImportError:
        report.note(f"{name}: SciPy is not here, the claims are not tested.")
        return
    short, measure = ordering.short, ordering.unit
    rows: list[Row] = [
        {
            "claim": f"{short[one.first]} {'<' if one.kind == 'below' else '~'} {short[one.second]}",
            "pairs": len(one.seeds),
            f"difference, {measure.difference}": None if one.difference is None else measure.number(one.difference),
            "p after Holm": one.p_holm,
            "verdict": one.verdict,
        }
        for one in result.claims
    ]
    report.table(f"Claims of {name}", rows)
    report.note(f"{name}: {result.verdict}, {sum(one.verdict == 'held' for one in result.claims)} of {len(rows)} held.")


def earlier(path: Path, options: argparse.Namespace) -> list[Row]:
    """Return the rows in ``path``, from an earlier call, of networks that this call does not train; raise ``DataError``
    if the file is not such a file, or has other settings."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings, rows = content["options"], content["tables"][RESULTS]
        expected = {**{name: settings[name] for name in SAME}, "epochs": rows[0]["epochs"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} must be a result of this script ({error}); leave --add out.") from error
    for name, value in expected.items():
        if value != getattr(options, name):
            raise DataError(
                f"results in one table share their {name}, {path} has {value} and this call {getattr(options, name)}; "
                f"give --{name} {value}, or leave --add out."
            )
    return [row for row in rows if row["network"] not in options.models]


@benchmark(
    "Does the ordering of table 1 appear on one device in time?",
    Option("--device", "where", "cuda", how={"choices": ("cuda", "cpu")}),
    Option("--models", "networks", MODELS, how={"nargs": "+", "choices": (*MODELS, *MORE)}),
    Option("--channels", "channels of the lowest level; the studies' own are 32", CHANNELS, 2),
    Option("--seeds", "seeds of each network", SEEDS),
    Option("--epochs", "epochs of every network (as many as fit into the limit)", how={"type": int}),
    Option("--limit", "seconds for all", LIMIT_SECONDS),
    Option("--compiled", "compile the steps", False),
    Option("--add", "an earlier call's result, for one table", how={"type": Path, "metavar": "FILE.json"}),
    one_process=True,
)
def main(report: Report, options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start = time.monotonic()
    check_device(options.device)
    digits, what = images(quick=options.quick)
    rows = [] if options.add is None else earlier(options.add, options)
    report.note(f"Digits: {what}.")
    try:
        run_all(report, options, digits, start + options.limit, rows)
    finally:
        if rows:
            tell(report, rows)


if __name__ == "__main__":
    main()
