"""Statistics of test errors over seeds, and the verdict on a published number. The tests are SciPy's.

The verdict is made of two tests of our mean against the published one, both Welch's, so that the paper's own spread and
number of runs count as much as ours:

* better, worse: the two-sided test finds a difference at 5 %, after Holm's correction over the rows of the table.
* reproduced: our mean is, with 95 % confidence, less than one published standard deviation above the published mean.
  That margin is what two seeds of the paper's own configuration differ by anyway. The test is one-sided, because the
  question is whether the published level was reached; and it is a claim that seeds must earn: a difference that is
  merely not significant is no reproduction, and one seed never is.
* not enough seeds: neither.

An error significantly below the paper's is "better" even within the margin; one significantly above it is "worse" only
when it is not surely within the margin. Simulated with spreads as the paper's: with ten seeds against its ten, a true
reproduction is recognised in two of three cases, with twenty in three of four; a mean that is truly a whole margin too
high passes in one of twenty-five.

An own spread of 0 says only that errors are counts of images: the published spread takes its place. Where the paper
prints none, its runs are taken to spread as ours do. Where nothing spreads at all there is no test, and no verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ladder_search.studies.study import Target

LEVEL = 0.05

Verdict = Literal["reproduced", "better", "worse", "not enough seeds"]

_MOST_SEEDS = 200  # that anyone would be told to train


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a table prints of several errors."""

    mean: float
    deviation: float
    """Standard deviation of single runs, with n - 1 below; 0 for one run."""
    n: int

    @classmethod
    def of(cls, errors: Sequence[float]) -> Summary:
        """Summarise at least one error."""
        deviation = statistics.stdev(errors) if len(errors) > 1 else 0.0
        # Equal errors have no spread, whatever rounding says.
        return cls(mean=statistics.fmean(errors), deviation=deviation if len(set(errors)) > 1 else 0.0, n=len(errors))

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Student's confidence interval of the mean, 95 % unless told; None for fewer than 2 runs."""
        if self.n < 2:
            return None
        from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without a second of imports

        half = float(stdtrit(self.n - 1, 1 - level / 2)) * self.deviation / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True, kw_only=True, slots=True)
class AgainstTarget:
    """Our mean against the published one."""

    own: Summary
    published: Summary
    p: float
    """Two-sided: how surely the means differ."""
    p_margin: float
    """One-sided: how surely ours is less than the margin above the published one."""

    @classmethod
    def of(cls, own: Summary, target: Target) -> AgainstTarget | None:
        """Test ``own`` against ``target``; None where too little is known for a test."""
        if own.n < 2:
            return None
        spread = own.deviation or target.deviation or 0.0
        published = target.deviation or spread
        if not spread or target.seeds < 2:
            return None
        own = Summary(mean=own.mean, deviation=spread, n=own.n)
        return cls._tested(own, Summary(mean=target.error, deviation=published, n=target.seeds))

    @classmethod
    def _tested(cls, own: Summary, published: Summary) -> AgainstTarget:
        margin = published.deviation  # above the published mean
        moved = Summary(mean=published.mean + margin, deviation=published.deviation, n=published.n)
        p, p_margin = welch(own, published), welch(own, moved, alternative="less")
        return cls(own=own, published=published, p=p, p_margin=p_margin)

    def verdict(self, p: float | None = None, level: float = LEVEL) -> Verdict:
        """Return the verdict; ``p`` is the two-sided one after a correction, the test's own by default."""
        differs = (self.p if p is None else p) < level
        if differs and self.own.mean < self.published.mean:
            return "better"
        if self.p_margin < level:
            return "reproduced"
        return "worse" if differs else "not enough seeds"

    def seeds_needed(self, level: float = LEVEL) -> int | None:
        """Seeds with which the verdict would fall, if mean and spread stayed as they are; None: beyond 200."""
        for n in range(self.own.n + 1, _MOST_SEEDS + 1):
            more = Summary(mean=self.own.mean, deviation=self.own.deviation, n=n)
            if self._tested(more, self.published).verdict(level=level) != "not enough seeds":
                return n
        return None


def welch(a: Summary, b: Summary, *, alternative: Literal["two-sided", "less"] = "two-sided") -> float:
    """Return p of Welch's test that the means of ``a`` and ``b`` are equal (``less``: that a's is not the lower one).

    At least one of them has a spread, and both have two runs or more.
    """
    from scipy.stats import ttest_ind_from_stats

    values = (a.mean, a.deviation, a.n, b.mean, b.deviation, b.n)
    return float(ttest_ind_from_stats(*values, equal_var=False, alternative=alternative).pvalue)


def paired(
    a: Sequence[float], b: Sequence[float], *, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return p of the paired t-test of errors on common seeds (``greater``: that a's mean is not the higher one).

    Fewer than two pairs, or differences that are all the same, tell nothing of their spread: p is 1.
    """
    # Errors are counts of images: differences that are equal to rounding are equal.
    if len(a) < 2 or len({round(x - y, 12) for x, y in zip(a, b, strict=True)}) < 2:
        return 1.0
    from scipy.stats import ttest_rel

    return float(ttest_rel(a, b, alternative=alternative).pvalue)


def above(differences: Sequence[float], bound: float = 0.0) -> float:
    """Return p of the one-sided t-test that the mean of paired differences is above ``bound``.

    Fewer than two, or differences that are all the same, tell nothing of their spread: p is 1.
    """
    if len(differences) < 2 or len({round(one, 12) for one in differences}) < 2:
        return 1.0
    from scipy.special import stdtr  # what scipy.stats.ttest_1samp calls, without a second of imports

    own = Summary.of(differences)
    t = (own.mean - bound) / (own.deviation / math.sqrt(own.n))
    return float(stdtr(own.n - 1, -t))


def below(differences: Sequence[float], bound: float = 0.0) -> float:
    """Return p of the one-sided t-test that the mean of paired differences is below ``bound``; see ``above``."""
    return above([-one for one in differences], -bound)


def holm(p_values: Iterable[float]) -> list[float]:
    """Return the p-values corrected by Holm's step-down procedure, in the order given.

    Holm 1979: the smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one
    before it, none larger than 1. SciPy has no such function.
    """
    given = list(p_values)
    corrected, highest = [0.0] * len(given), 0.0
    for place, index in enumerate(sorted(range(len(given)), key=given.__getitem__)):
        highest = max(highest, min(1.0, (len(given) - place) * given[index]))
        corrected[index] = highest
    return corrected
