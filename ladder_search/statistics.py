"""Statistics of test errors over seeds, and the verdict on a published number.

The verdict compares our mean with the published one by two tests with Welch's statistic and the degrees of freedom of
the smaller sample (Mickey and Brown 1966), so that the level holds for any two spreads:

* better, worse: the two-sided test finds a difference.
* reproduced: the one-sided test finds that our mean is less than a margin above the published mean. The margin is fixed
  before the first training: one published standard deviation, or what the target names.
* not enough seeds: neither.

The k-th look at growing data is made at 5 % / (k (k + 1)); these levels sum to at most 5 %. ``docs/confirming.md`` has
the reasons.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ladder_search.studies.study import Target

LEVEL = 0.05
"""Of a test that is made once; all looks at growing data share it."""

Verdict = Literal["reproduced", "better", "worse", "not enough seeds"]


def look_level(look: int) -> float:
    """Return the level of the ``look``-th look at growing data, from 1; the levels of all looks sum to ``LEVEL``."""
    return LEVEL / (look * (look + 1))


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
        """Student's confidence interval of the mean, 95 % by default; None for fewer than 2 runs."""
        if self.n < 2:
            return None
        if not self.deviation:
            return self.mean, self.mean  # SciPy has no distribution of scale 0
        from scipy.stats import t

        low, high = t.interval(1 - level, self.n - 1, loc=self.mean, scale=self.deviation / math.sqrt(self.n))
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True, slots=True)
class AgainstTarget:
    """Our mean against the published one."""

    own: Summary
    published: Summary
    margin: float
    """How far above the published mean ours may be; fixed beforehand."""

    @classmethod
    def of(cls, own: Summary, target: Target) -> AgainstTarget | None:
        """Return the comparison of ``own`` with ``target``; None where too little is known for a test."""
        margin = target.largest_excess
        spread = own.deviation or target.deviation or 0.0
        if target.withheld or margin is None or own.n < 2 or not spread:
            return None
        return cls(
            own=Summary(mean=own.mean, deviation=spread, n=own.n),
            published=Summary(mean=target.error, deviation=target.deviation or spread, n=target.seeds),
            margin=margin,
        )

    @property
    def p(self) -> float:
        """Of the two-sided test that the means are equal."""
        return self.p_values([self.own.n])[0][0]

    @property
    def p_margin(self) -> float:
        """Of the one-sided test that ours is the margin or more above the published one."""
        return self.p_values([self.own.n])[0][1]

    def p_values(self, seeds: Sequence[int]) -> list[tuple[float, float]]:
        """Return ``p`` and ``p_margin`` for each number of own seeds, with our mean and spread as they are."""
        import numpy as np
        from scipy.stats import t, ttest_ind_from_stats

        own, published, n = self.own, self.published, np.array(seeds)
        ours, theirs = (own.mean, own.deviation, n), (published.deviation, published.n)
        degrees = np.minimum(n, published.n) - 1
        equal = ttest_ind_from_stats(*ours, published.mean, *theirs, equal_var=False).statistic
        higher = ttest_ind_from_stats(*ours, published.mean + self.margin, *theirs, equal_var=False).statistic
        p, p_margin = 2 * t.sf(abs(equal), degrees), t.cdf(higher, degrees)
        return list(zip(map(float, p), map(float, p_margin), strict=True))

    def verdict(self, *, p: float, p_margin: float, level: float) -> Verdict:
        """Return the verdict from the p-values of both tests, after their correction, at the table's level."""
        if p < level and self.own.mean < self.published.mean:
            return "better"
        if p_margin < level:
            return "reproduced"
        return "worse" if p < level else "not enough seeds"


def paired(
    a: Sequence[float], b: Sequence[float], *, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return p of the paired t-test of errors on common seeds; ``greater``: that the mean of a is not the higher one.

    p is 1 for fewer than two pairs and for differences that are all equal: neither has a spread.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return _one_sample(differences, 0.0, alternative)


def above(differences: Sequence[float], bound: float = 0.0) -> float:
    """Return p of the one-sided t-test that the mean of paired differences is above ``bound``; see ``paired``."""
    return _one_sample(differences, bound, "greater")


def below(differences: Sequence[float], bound: float = 0.0) -> float:
    """Return p of the one-sided t-test that the mean of paired differences is below ``bound``; see ``paired``."""
    return _one_sample(differences, bound, "less")


def _one_sample(
    differences: Sequence[float], bound: float, alternative: Literal["two-sided", "greater", "less"]
) -> float:
    # Errors are counts of images: differences that are equal to rounding are equal.
    if len(differences) < 2 or len({round(one, 12) for one in differences}) < 2:
        return 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, bound, alternative=alternative).pvalue)


def holm(p_values: Iterable[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction (1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one before it.
    """
    given = list(p_values)
    corrected, highest = [0.0] * len(given), 0.0
    for place, index in enumerate(sorted(range(len(given)), key=given.__getitem__)):
        highest = max(highest, min(1.0, (len(given) - place) * given[index]))
        corrected[index] = highest
    return corrected
