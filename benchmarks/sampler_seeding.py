"""Does it cost a search anything that each suggestion has its own sampler, seeded by the search and its number?

Searches do so to make the same suggestions after an interruption, see ``ladder_search/driver/samplers.py``. Here the
same searches run with one sampler and one random stream each, the usual way of Optuna. Nothing is trained: a
configuration's error is a smooth function with a valley that differs between searches, and trials report it with noise.
Both searches of a pair have the same valley, and for each number the same noise and duration. There are two controls:
one stream with another seed, which differs by chance alone, and random search, which must be worse.

    python -m benchmarks.sampler_seeding --output benchmarks/results/cpu-2-cores/sampler_seeding.json
"""

from __future__ import annotations

import argparse
import heapq
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
from scipy import stats

from benchmarks.measure import Option, Report, Row, benchmark
from ladder_search.config import as_mapping
from ladder_search.driver.samplers import SAMPLERS, sampler_for
from ladder_search.studies import find_study
from spaces import ladder

Supply = Callable[[int], optuna.samplers.BaseSampler]
"""Number of a suggestion -> its sampler."""

STUDY = find_study("digits-100")
BEST, RANGE, NOISE = 0.06, 0.06, 0.006
"""Error at the bottom of the valley, its range, and the deviation of reports: about those of digits."""
WEIGHTS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Steepness of the valley along its axes, which are rotated against the parameters."""
LENGTHS = (24, 64)
PENDING = (0, 2, 8)
"""Number of trials that are running during a suggestion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Trials of a search in the order of their numbers."""

    true: np.ndarray
    """[trial] error without noise."""
    seen: np.ndarray
    """[trial] error as reported."""

    def best(self, length: int) -> float:
        """Return the smallest true error of the first ``length`` trials."""
        return float(self.true[:length].min())

    def chosen(self, length: int) -> float:
        """Return the true error of the trial with the smallest reported one."""
        return float(self.true[np.argmin(self.seen[:length])])


class Valley:
    """The objective of one search, for configurations in the unit cube."""

    def __init__(self, seed: int, dimensions: int) -> None:
        random = np.random.default_rng([seed, 1])
        self._bottom = random.uniform(0.1, 0.9, dimensions)
        axes, _ = np.linalg.qr(random.normal(size=(dimensions, dimensions)))
        self._form = axes @ np.diag(WEIGHTS[:dimensions]) @ axes.T
        self._seed = seed

    def error(self, point: np.ndarray) -> float:
        away = point - self._bottom
        return BEST + RANGE * (1.0 - math.exp(-float(away @ self._form @ away)))

    def noise(self, number: int) -> float:
        return float(np.random.default_rng([self._seed, 2, number]).normal(0.0, NOISE))

    def duration(self, number: int) -> float:
        return float(np.random.default_rng([self._seed, 3, number]).uniform(0.5, 1.5))


def search(seed: int, supply: Supply, *, trials: int, pending: int) -> Found:
    """Run a search in which ``pending`` others are running during each suggestion (fewer at the beginning)."""
    study = optuna.create_study()
    base, options = STUDY.trial().as_mapping(), as_mapping(STUDY.space)
    running: list[tuple[float, int, optuna.Trial]] = []
    true, reported = np.empty(trials), np.empty(trials)
    valley: Valley | None = None
    now = 0.0
    for number in range(trials):
        while len(running) > pending:
            now, ended, trial = heapq.heappop(running)
            study.tell(trial, reported[ended])
        study.sampler = supply(number)
        trial = study.ask()
        ladder.suggest(trial, base, options)
        point = unit(trial)
        valley = valley or Valley(seed, len(point))
        true[number] = valley.error(point)
        reported[number] = true[number] + valley.noise(number)
        heapq.heappush(running, (now + valley.duration(number), number, trial))
    return Found(true=true, seen=reported)


def unit(trial: optuna.Trial) -> np.ndarray:
    """Return a trial's parameters, scaled to 0..1 of their ranges."""
    point = []
    for name, value in trial.params.items():
        range_ = trial.distributions[name]
        assert isinstance(range_, optuna.distributions.FloatDistribution)
        low, at, high = (math.log(x) if range_.log else x for x in (range_.low, value, range_.high))
        point.append((at - low) / (high - low))
    return np.array(point)


def one_stream(seed: int, name: str = "tpe") -> Supply:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS[name](seed)
    return lambda number: sampler


VARIANTS: dict[str, Callable[[int], Supply]] = {
    "one stream": one_stream,
    "seeded by number": lambda seed: lambda number: sampler_for("tpe", seed, number),
    "one stream, another seed": lambda seed: one_stream(seed + 10**6),
    "random": lambda seed: one_stream(seed, "random"),
}
"""The others are compared with the first."""


def rows(errors: dict[str, np.ndarray], length: int, pending: int) -> list[Row]:
    """Return a row per variant; ``errors``, [search] by variant, are fractions, and are shown in per cent."""
    first = next(iter(errors.values()))
    table: list[Row] = []
    for name, errors_of_variant in errors.items():
        low, middle, high = 100 * np.quantile(errors_of_variant, [0.25, 0.5, 0.75])
        row: Row = {"median": f"{middle:.3f}", "quartiles": f"{low:.3f} to {high:.3f}"}
        row |= {} if errors_of_variant is first else paired(100 * (errors_of_variant - first))
        table.append({"trials": length, "pending": pending, "sampler": name, **row})
    return table


def paired(differences: np.ndarray) -> Row:
    """Return the mean difference, its 95 % interval, and Wilcoxon's p (signed ranks, two-sided, to four digits)."""
    half = float(stats.ttest_1samp(differences, 0.0).confidence_interval(0.95).high - differences.mean())
    p = float(stats.wilcoxon(differences).pvalue)
    return {"difference": f"{differences.mean():+.3f} ± {half:.3f}", "p": round(p, 4)}


@benchmark(
    "Does a sampler of its own for every suggestion cost a search anything?",
    Option("--searches", "pairs of searches", 300, 3),
    one_process=True,
)
def main(report: Report, options: argparse.Namespace) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds = range(options.searches)
    tables: dict[str, list[Row]] = {"Least true error tried": [], "True error of the trial that looked best": []}
    for pending in (2,) if options.quick else PENDING:
        searches: dict[str, list[Found]] = {name: [] for name in VARIANTS}
        for seed in seeds:
            for name, supply in VARIANTS.items():
                searches[name].append(search(seed, supply(seed), trials=max(LENGTHS), pending=pending))
        for length in LENGTHS:
            for table, error_of in zip(tables.values(), (Found.best, Found.chosen), strict=True):
                errors = {name: np.array([error_of(f, length) for f in of]) for name, of in searches.items()}
                table += rows(errors, length, pending)
    for title, table in tables.items():
        report.table(f"{title}, %; {len(seeds)} searches, differences to one stream in pairs", table)


if __name__ == "__main__":
    main()
