"""Statistics of test errors over seeds, and the verdict on a published number.

The verdict compares the mean of the runs with the published mean by two tests with Welch's statistic and the degrees of
freedom of the smaller sample (Mickey and Brown 1966), which keeps the level for any two variances:

* better, worse: the two-sided test finds a difference.
* reproduced: the one-sided test finds the mean less than a margin worse than the published one. The margin is fixed in
  advance: one published standard deviation, or that of the target.
* not enough seeds: neither.

The k-th look at growing data has the level 5 % / (k (k + 1)); these levels sum to at most 5 %. See
``docs/confirming.md``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ladder_search.metrics import MEASURES
from ladder_search.studies.study import Target

LEVEL = 0.05
"""Level of a single test, or of all looks at growing data together."""

Verdict = Literal["reproduced", "better", "worse", "not enough seeds"]


def look_level(look: int) -> float:
    """Return the level of the ``look``-th look at growing data, from 1; the levels of all looks sum to ``LEVEL``."""
    return LEVEL / (look * (look + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Mean, standard deviation and number of errors."""

    mean: float
    deviation: float
    """Sample standard deviation (n - 1); 0 for one run."""
    n: int

    @classmethod
    def of(cls, errors: Sequence[float]) -> Summary:
        deviation = statistics.stdev(errors) if len(errors) > 1 else 0.0
        # Equal errors have no deviation despite rounding.
        return cls(mean=statistics.fmean(errors), deviation=deviation if len(set(errors)) > 1 else 0.0, n=len(errors))

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Student's confidence interval of the mean; None for fewer than 2 runs."""
        if self.n < 2:
            return None
        if not self.deviation:
            return self.mean, self.mean  # SciPy does not allow a scale of 0
        from scipy.stats import t

        low, high = t.interval(1 - level, self.n - 1, loc=self.mean, scale=self.deviation / math.sqrt(self.n))
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True, slots=True)
class AgainstTarget:
    """The mean of the runs compared with the published one.

    Means are losses (``Measure.loss``): errors, or the negatives of values of which more is better.
    """

    own: Summary
    published: Summary
    margin: float
    """Allowed distance above the published mean, fixed in advance."""

    @classmethod
    def of(cls, own: Summary, target: Target) -> AgainstTarget | None:
        """Return the comparison of ``own`` with ``target``; None if there is too little data for a test."""
        margin = target.largest_excess
        spread = own.deviation or target.deviation or 0.0
        if target.withheld or margin is None or own.n < 2 or not spread:
            return None
        loss = MEASURES[target.measure].loss
        return cls(
            own=Summary(mean=loss(own.mean), deviation=spread, n=own.n),
            published=Summary(mean=loss(target.error), deviation=target.deviation or spread, n=target.seeds),
            margin=margin,
        )

    @property
    def p(self) -> float:
        """p-value of the two-sided test of equal means."""
        return self.p_values([self.own.n])[0][0]

    @property
    def p_margin(self) -> float:
        """p-value of the one-sided test that the mean is at least the margin above the published one."""
        return self.p_values([self.own.n])[0][1]

    def p_values(self, seeds: Sequence[int]) -> list[tuple[float, float]]:
        """Return ``p`` and ``p_margin`` for each number of seeds, with the present mean and deviation."""
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
        """Return the verdict from the corrected p-values of both tests."""
        if p < level and self.own.mean < self.published.mean:
            return "better"
        if p_margin < level:
            return "reproduced"
        return "worse" if p < level else "not enough seeds"


def paired(
    a: Sequence[float], b: Sequence[float], *, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return the p-value of the paired t-test on common seeds; ``greater``: one-sided, whether a has the higher mean.

    It is 1 for fewer than two pairs and for equal differences, which have no variance.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return _one_sample(differences, 0.0, alternative)


def above(differences: Sequence[float], bound: float = 0.0) -> float:
    """Return the p-value of the one-sided t-test that the mean difference is above ``bound``; see ``paired``."""
    return _one_sample(differences, bound, "greater")


def below(differences: Sequence[float], bound: float = 0.0) -> float:
    """Return the p-value of the one-sided t-test that the mean difference is below ``bound``; see ``paired``."""
    return _one_sample(differences, bound, "less")


def _one_sample(
    differences: Sequence[float], bound: float, alternative: Literal["two-sided", "greater", "less"]
) -> float:
    # Errors are fractions of image counts, so differences that agree up to rounding are equal.
    if len(differences) < 2 or len({round(one, 12) for one in differences}) < 2:
        return 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, bound, alternative=alternative).pvalue)


def holm(p_values: Iterable[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction (1979), in the given order.

    The smallest of m is multiplied by m, the next by m - 1, and so on; the results do not decrease.
    """
    values = list(p_values)
    corrected, highest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = highest
    return corrected
