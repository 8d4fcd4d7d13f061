"""How often reproductions claim what is not there: ``python reproductions/null_claims.py --reproductions 10000``.

Each simulated reproduction has a published number (mean and standard deviation of ten runs), the published
configuration and three found ones, and ten looks: 3, 6, 9, … 30 seeds, each with its race and its table, made by the
code that ``ladder-search reproduce`` runs. Errors are those of ``mnist-100-full``: 1.06 %, a label draw that all
contenders share (sd 0.25 %) and a part of their own (sd 0.27 %), counted on 10,000 images.

SciPy's tests take a millisecond each, too long for millions of them: their formulas stand in their place, which
``check`` compares with them first.

* equal: every configuration, and the paper's, has the same mean. A difference that any table claims is not there; a
  reproduction is.
* a margin apart: every configuration is a margin above the published one, and equal among themselves. A reproduction
  that any table claims is not there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy.special import stdtr
from scipy.stats import binomtest

from ladder_search.export import race, statistics
from ladder_search.export import table as tables
from ladder_search.export.contenders import Contender, Outcome
from ladder_search.export.reproduction import Reproduction
from ladder_search.export.statistics import AgainstTarget, Summary, look_level
from ladder_search.record import PUBLISHED
from ladder_search.studies import STUDIES, Target, find_study

STUDY = "mnist-100-full"
LOOKS = tuple(range(3, 31, 3))
"""Seeds behind the tables of one reproduction."""
MEAN, DRAW, OWN = 0.0106, 0.0025, 0.0027
RUNS, IMAGES, FOUND = 10, 10_000, 3
PART = 250
"""Reproductions that one stream of random numbers gives."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reproductions", type=int, default=10_000, help="of each kind (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    parser.add_argument("--processes", type=int, default=1, help="side by side (1)")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures; none: they are printed only")
    arguments = parser.parse_args()
    begun = time.monotonic()
    check(arguments.seed)
    found: dict[str, Any] = {
        "looks": LOOKS,
        "levels": [round(look_level(k), 6) for k in range(1, len(LOOKS) + 1)],
        "contenders": 1 + FOUND,
        "seed": arguments.seed,
        **{
            kind: shares(kind, arguments.reproductions, arguments.seed, arguments.processes)
            for kind in ("equal", "a margin apart")
        },
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(f"{text}\n", encoding="utf-8")


def shares(kind: str, reproductions: int, seed: int, processes: int = 1) -> dict[str, Any]:
    """Return which shares of the reproductions ever claim what is not there, each with its 95 % interval."""
    parts = [min(PART, reproductions - start) for start in range(0, reproductions, PART)]
    seeds = np.random.SeedSequence(seed).spawn(len(parts))
    if processes == 1:
        found = [*map(claims, parts, seeds, [kind] * len(parts))]
    else:
        with ProcessPoolExecutor(processes) as pool:
            found = [*pool.map(claims, parts, seeds, [kind] * len(parts))]
    counts = sum(found, Counter[str]())
    names = {
        "equal": ("difference", "from the published number", "from the re-run", "dropped", "reproduced"),
        "a margin apart": ("reproduced", "better than published", "from the re-run", "dropped"),
    }[kind]
    return {"reproductions": reproductions, **{name: share(counts[name], reproductions) for name in names}}


def claims(reproductions: int, seed: np.random.SeedSequence, kind: str) -> Counter[str]:
    """Return how many reproductions ever claim what."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    with quick():
        for _ in range(reproductions):
            counts.update(set(simulated(rng, apart=kind != "equal")))
    return counts


def share(count: int, of: int) -> dict[str, float]:
    """Return a share with its exact 95 % interval."""
    interval = binomtest(count, of).proportion_ci()
    return {"count": count, "share": count / of, "low": round(interval.low, 5), "high": round(interval.high, 5)}


def simulated(rng: np.random.Generator, *, apart: bool) -> Iterator[str]:
    """Yield what the tables of one reproduction claim, and what its race drops."""
    paper = Summary.of(counted(MEAN + np.hypot(DRAW, OWN) * rng.standard_normal(RUNS)))
    target = Target(
        error=paper.mean, spread=paper.deviation, seeds=RUNS, source="", verified=True, spread_verified=True
    )
    study = replace(find_study(STUDY), target=target)
    STUDIES[STUDY] = study
    mean = MEAN + (paper.deviation if apart else 0.0)
    draws = mean + DRAW * rng.standard_normal(LOOKS[-1])
    errors = [counted(draws + OWN * rng.standard_normal(LOOKS[-1])) for _ in range(1 + FOUND)]
    seeds = range(1001, 1001 + LOOKS[-1])
    outcomes = [tuple(Outcome(seed=s, test_error=e) for s, e in zip(seeds, own, strict=True)) for own in errors]
    found = Reproduction(
        study=STUDY,
        epochs=study.training.epochs,
        seeds=(),
        device="cpu",
        data_digest="",
        contenders=tuple(
            Contender(name=f"t{place}" if place else PUBLISHED, settings={}) for place in range(1 + FOUND)
        ),
    )
    begun = 0
    for count in LOOKS:
        found = raced(replace(found, seeds=tuple(seeds[:count])), outcomes, begun).with_table()
        begun = count
        for row in tables.table([found]):
            if row.verdict in ("better", "worse"):
                yield "from the published number"
                yield "difference"
            if row.verdict == "better":
                yield "better than published"
            if row.verdict == "reproduced":
                yield "reproduced"
            if row.comparison in ("better", "worse"):
                yield "from the re-run"
                yield "difference"
            if row.dropped:
                yield "dropped"


def raced(found: Reproduction, outcomes: list[tuple[Outcome, ...]], begun: int) -> Reproduction:
    """Bring every contender to the seeds that the race gives it; looks at ``begun`` seeds or fewer gave the same."""
    for look, count in enumerate(race.looks(len(found.seeds)), start=1):
        if count < begun:
            continue
        found = replace(
            found,
            contenders=tuple(
                contender if contender.dropped else replace(contender, outcomes=own[:count])
                for contender, own in zip(found.contenders, outcomes, strict=True)
            ),
        )
        if count < len(found.seeds):
            found = found.after_look(look, count)
    return found


@contextmanager
def quick() -> Iterator[None]:
    """Put the formulas of the t-tests in the place of SciPy's functions, which check their arguments at length."""
    with (
        mock.patch.object(statistics, "_one_sample", one_sample),
        mock.patch.object(AgainstTarget, "p_values", p_values),
        mock.patch.object(Summary, "of", staticmethod(summary)),
        mock.patch.object(Summary, "interval", lambda *_: None),  # this and the next are shown, and claim nothing
        mock.patch.object(tables, "_seeds_needed", lambda *_: None),
    ):
        yield


def summary(errors: Sequence[float]) -> Summary:
    """Mean and deviation in floating point; ``Summary.of`` computes in fractions."""
    values = np.asarray(errors)
    spread = len(values) > 1 and np.ptp(values) > 0
    return Summary(mean=float(values.mean()), deviation=float(values.std(ddof=1)) if spread else 0.0, n=len(values))


def one_sample(differences: Sequence[float], bound: float, alternative: str) -> float:
    """Student's test of one sample."""
    values = np.asarray(differences)
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return 1.0
    t = (values.mean() - bound) / (values.std(ddof=1) / np.sqrt(len(values)))
    tail = {"greater": -t, "less": t, "two-sided": -abs(t)}[alternative]
    return float((2 if alternative == "two-sided" else 1) * stdtr(len(values) - 1, tail))


def p_values(against: AgainstTarget, seeds: Sequence[int]) -> list[tuple[float, float]]:
    """The tests by Welch's statistic."""
    own, published, n = against.own, against.published, np.asarray(seeds)
    ours, theirs = own.deviation**2 / n, published.deviation**2 / published.n
    degrees = np.minimum(n, published.n) - 1
    apart = own.mean - published.mean
    equal = 2 * stdtr(degrees, -abs(apart) / np.sqrt(ours + theirs))
    higher = stdtr(degrees, (apart - against.margin) / np.sqrt(ours + theirs))
    return list(zip(equal.tolist(), higher.tolist(), strict=True))


def check(seed: int, reproductions: int = 10) -> None:
    """Compare what is simulated with what SciPy's functions give."""

    def rows() -> list[str]:
        rng = np.random.default_rng(seed)
        return [claim for _ in range(reproductions) for claim in simulated(rng, apart=False)]

    exact = rows()
    with quick():
        assert rows() == exact
    values = [0.010, 0.013, 0.011, 0.012]
    for alternative in ("greater", "less", "two-sided"):
        exact_p = statistics._one_sample(values, 0.011, alternative)  # type: ignore[arg-type]
        assert np.isclose(one_sample(values, 0.011, alternative), exact_p, rtol=1e-9)
    own, published = Summary(mean=0.012, deviation=0.003, n=5), Summary(mean=MEAN, deviation=0.0037, n=RUNS)
    against = AgainstTarget(own=own, published=published, margin=0.0037)
    assert np.allclose(p_values(against, [2, 5, 99]), against.p_values([2, 5, 99]), rtol=1e-9)


def counted(errors: Any) -> list[float]:
    """Return errors as they are counted on images."""
    return [float(error) for error in np.round(np.asarray(errors) * IMAGES) / IMAGES]


if __name__ == "__main__":
    main()
