"""How often reproductions claim what is not there: ``python reproductions/null_claims.py --reproductions 10000``.

Each simulated reproduction has a published number (mean and standard deviation of ten runs), the published
configuration and three found ones, and ten looks: 3, 6, 9, … 30 seeds, each with its race and its table. Errors are
those of ``mnist-100-full``: 1.06 %, a label draw that all contenders share (sd 0.25 %) and a part of their own (sd
0.27 %), counted on 10,000 images.

The rule is written out here once more, for all reproductions at once; ``check`` compares it, reproduction by
reproduction, with the code that ``ladder-search reproduce`` runs.

* equal: every configuration, and the paper's, has the same mean. A difference that any table claims is not there; a
  reproduction is.
* a margin apart: every configuration is a margin above the published one, and equal among themselves. A reproduction
  that any table claims is not there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import binomtest

from ladder_search.record.trial import PUBLISHED
from ladder_search.reproduction import race
from ladder_search.reproduction.contenders import Contender, Outcome
from ladder_search.reproduction.reproduction import Reproduction
from ladder_search.reproduction.table import table
from ladder_search.statistics import Summary, look_level
from ladder_search.studies import STUDIES, Target, find_study

STUDY = "mnist-100-full"
LOOKS = tuple(range(3, 31, 3))
"""Seeds behind the tables of one reproduction."""
MEAN, DRAW, OWN = 0.0106, 0.0025, 0.0027
RUNS, IMAGES, FOUND = 10, 10_000, 3
CLAIMS = ("difference", "from the published number", "from the re-run", "dropped", "reproduced", "better")
CHECKED = 20
"""Reproductions of each kind that ``check`` compares."""

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reproductions", type=int, default=10_000, help="of each kind (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures; none: they are printed only")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "looks": LOOKS,
        "levels": [round(look_level(k), 6) for k in range(1, len(LOOKS) + 1)],
        "contenders": 1 + FOUND,
        "seed": arguments.seed,
    }
    for kind in ("equal", "a margin apart"):
        check(kind, arguments.seed)
        found[kind] = shares(kind, arguments.reproductions, arguments.seed)
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(f"{text}\n", encoding="utf-8")


def shares(kind: str, reproductions: int, seed: int) -> dict[str, Any]:
    """Return which shares of the reproductions ever claim what, each with its exact 95 % interval."""
    claims = simulated(*drawn(kind, reproductions, seed))
    found: dict[str, Any] = {"reproductions": reproductions}
    for name in CLAIMS:
        count = int(claims[name].sum())
        interval = binomtest(count, reproductions).proportion_ci()
        found[name] = {
            "count": count,
            "share": count / reproductions,
            "low": round(float(interval.low), 5),
            "high": round(float(interval.high), 5),
        }
    return found


def drawn(kind: str, reproductions: int, seed: int) -> tuple[Values, Values]:
    """Return the errors of the paper's runs, [n, runs], and of the contenders' seeds, [n, contenders, seeds]."""
    rng = np.random.default_rng(seed)
    paper = counted(MEAN + np.hypot(DRAW, OWN) * rng.standard_normal((reproductions, RUNS)))
    margin = paper.std(axis=1, ddof=1) if kind == "a margin apart" else np.zeros(reproductions)
    draws = MEAN + margin[:, None] + DRAW * rng.standard_normal((reproductions, LOOKS[-1]))
    own = OWN * rng.standard_normal((reproductions, 1 + FOUND, LOOKS[-1]))
    return paper, counted(draws[:, None] + own)


def counted(errors: Values) -> Values:
    """Return errors as they are counted on images."""
    return np.round(errors * IMAGES) / IMAGES


def simulated(paper: Values, errors: Values) -> dict[str, Flags]:
    """Return which reproductions ever claim what, in any of their tables."""
    n = len(paper)
    found = {name: np.zeros(n, np.bool_) for name in CLAIMS}
    out, raced = np.zeros((n, 1 + FOUND), np.bool_), 0  # which contenders were dropped, after how many looks
    published, spread = paper.mean(axis=1)[:, None], paper.std(axis=1, ddof=1)[:, None]
    for number, seeds in enumerate(LOOKS, start=1):
        for look, count in enumerate(race.looks(seeds)[:-1], start=1):
            if look > raced:
                out |= beaten(errors[:, :, :count], out, look)
                raced = look
        own = errors[:, :, :seeds]
        mean, deviation = own.mean(axis=2), own.std(axis=2, ddof=1)
        deviation = np.where(np.ptp(own, axis=2) > 0, deviation, spread)
        scale, degrees = np.sqrt(deviation**2 / seeds + spread**2 / RUNS), min(seeds, RUNS) - 1
        p = np.where(out, 1.0, 2 * stdtr(degrees, -abs(mean - published) / scale))
        p_margin = np.where(out, 1.0, stdtr(degrees, (mean - published - spread) / scale))
        p_pairs = np.where(out[:, 1:], 1.0, 2 * stdtr(seeds - 1, -abs(student(own[:, 1:] - own[:, :1]))))
        level, whole = look_level(number), holm(np.concatenate([p, p_pairs], axis=1))
        differs, better = whole[:, : 1 + FOUND] < level, (whole[:, : 1 + FOUND] < level) & (mean < published)
        reproduced = (holm(p_margin) < level) & ~better & ~out
        apart = (better | (differs & ~reproduced)).any(axis=1)
        pairs = (whole[:, 1 + FOUND :] < level).any(axis=1)
        claims = (apart | pairs, apart, pairs, out.any(axis=1), reproduced.any(axis=1), better.any(axis=1))
        for name, claimed in zip(CLAIMS, claims, strict=True):
            found[name] |= claimed
    return found


def beaten(errors: Values, out: Flags, look: int) -> Flags:
    """Return which contenders a look of the race drops, as ``race.dropped`` has it."""
    level = race.LEVEL / 2**look / (FOUND * FOUND)
    lost = np.zeros_like(out)
    for one in range(1, 1 + FOUND):
        for other in range(1 + FOUND):
            if other != one:
                p = stdtr(errors.shape[2] - 1, -student(errors[:, one] - errors[:, other]))
                lost[:, one] |= (p < level) & ~out[:, one] & ~out[:, other]
    return lost


def student(differences: Values) -> Values:
    """Return Student's statistic along the last axis; 0 where all are the same, which proves nothing."""
    same = np.ptp(differences, axis=-1) < 1e-12
    deviation = np.where(same, 1.0, differences.std(axis=-1, ddof=1))
    return np.where(same, 0.0, differences.mean(axis=-1) / deviation * np.sqrt(differences.shape[-1]))


def holm(p_values: Values) -> Values:
    """Return the rows of p-values after Holm's correction."""
    order = np.argsort(p_values, axis=1, kind="stable")
    multipliers = np.arange(p_values.shape[1], 0, -1)
    ascending = np.maximum.accumulate(
        np.minimum(1.0, np.take_along_axis(p_values, order, axis=1) * multipliers), axis=1
    )
    corrected = np.empty_like(p_values)
    np.put_along_axis(corrected, order, ascending, axis=1)
    return corrected


def check(kind: str, seed: int, reproductions: int = CHECKED) -> None:
    """Raise ``AssertionError`` where ``simulated`` and the code of ``reproduce`` differ."""
    paper, errors = drawn(kind, reproductions, seed)
    found = simulated(paper, errors)
    for place in range(reproductions):
        claimed = reproduced(paper[place], errors[place])
        assert claimed == {name for name in CLAIMS if found[name][place]}, (kind, seed, place, claimed)


def reproduced(paper: Values, errors: Values) -> set[str]:
    """Return what the tables of one reproduction claim, by the code that ``reproduce`` runs."""
    published = Summary.of(paper.tolist())
    target = Target(
        error=published.mean, spread=published.deviation, seeds=RUNS, source="", verified=True, spread_verified=True
    )
    study, seeds = find_study(STUDY), range(1001, 1001 + LOOKS[-1])
    outcomes = [tuple(Outcome(seed=s, test_error=float(e)) for s, e in zip(seeds, own, strict=True)) for own in errors]
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
    claims: set[str] = set()
    STUDIES[STUDY] = replace(study, target=target)
    try:
        for count in LOOKS:
            found = raced(replace(found, seeds=tuple(seeds[:count])), outcomes).with_table()
            for row in table([found]):
                claims |= {"from the published number", "difference"} if row.verdict in ("better", "worse") else set()
                claims |= {"from the re-run", "difference"} if row.comparison in ("better", "worse") else set()
                claims |= {row.verdict} & {"reproduced", "better", "dropped"}
    finally:
        STUDIES[STUDY] = study
    return claims


def raced(found: Reproduction, outcomes: list[tuple[Outcome, ...]]) -> Reproduction:
    """Bring every contender to the seeds that the race gives it, as ``reproduce`` does without training."""
    for look, count in enumerate(race.looks(len(found.seeds)), start=1):
        contenders = tuple(
            contender if contender.dropped else replace(contender, outcomes=own[:count])
            for contender, own in zip(found.contenders, outcomes, strict=True)
        )
        found = replace(found, contenders=contenders)
        if count < len(found.seeds):
            found = found.after_look(look, count)
    return found


if __name__ == "__main__":
    main()
