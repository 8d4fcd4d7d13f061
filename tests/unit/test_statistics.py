"""The tests by hand and by SciPy, the verdict's rule at its edges, and how often it is wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ladder_search.errors import SettingError
from ladder_search.statistics import LEVEL, AgainstTarget, Summary, holm, look_level, paired
from ladder_search.studies import Target

ROOT = Path(__file__).resolve().parents[2]
P = st.floats(0.0, 1.0)
ERROR = st.floats(0.0, 0.5)


def target(error: float = 0.0106, spread: float | None = 0.0037, seeds: int = 10, **more: object) -> Target:
    return Target(
        error=error, spread=spread, seeds=seeds, source="a paper", verified=True, spread_verified=True, **more
    )  # type: ignore[arg-type]


def judged(found: AgainstTarget, *, p: float | None = None, p_margin: float | None = None, level: float = LEVEL) -> str:
    return found.verdict(
        p=found.p if p is None else p, p_margin=found.p_margin if p_margin is None else p_margin, level=level
    )


def verdict(errors: list[float], aim: Target | None = None) -> str:
    found = AgainstTarget.of(Summary.of(errors), aim or target())
    return judged(found) if found else "no test"


def welch(a: Summary, b: Summary) -> float:
    return AgainstTarget(own=a, published=b, margin=1.0).p


def test_the_interval_by_hand() -> None:
    found = Summary.of([0.01, 0.02, 0.03])
    # Student's quantile for 2 degrees of freedom and 97.5 % is 4.302653; times 0.01 / sqrt(3) it is 0.0248414.
    assert found.interval() == pytest.approx((0.02 - 0.0248414, 0.02 + 0.0248414), abs=1e-7)
    assert Summary.of([0.01]).interval() is None
    assert Summary.of([0.1, 0.1, 0.1]).interval() == pytest.approx((0.1, 0.1))


def test_welchs_statistic_by_hand() -> None:
    # Means 2 and 4, variances 1 and 4, 4 and 9 runs: t = -2 / sqrt(1/4 + 4/9) = -2.4; Student's two tails with the 3
    # degrees of freedom of the smaller sample are 0.0959 by tables.
    p = welch(Summary(mean=2.0, deviation=1.0, n=4), Summary(mean=4.0, deviation=2.0, n=9))
    assert p == pytest.approx(2 * stats.t.cdf(-2.4, 3)) and p == pytest.approx(0.0959, abs=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 5.0])
def test_the_level_holds_for_small_samples_and_any_spreads(n: int, ratio: float) -> None:
    """Simulated statistics of equal means; Welch's own degrees of freedom reject far more often than they say."""
    rng, samples = np.random.default_rng(0), 100_000
    own = ratio**2 * rng.chisquare(n - 1, samples) / (n - 1) / n
    theirs = rng.chisquare(9, samples) / 9 / 10
    apart = rng.standard_normal(samples) * math.sqrt(ratio**2 / n + 1 / 10)
    t = apart / np.sqrt(own + theirs)
    # One sample stands for the distribution of t; the p of a t is the function of the class, found once for each n.
    for level in (0.05, 0.0036):
        bound = stats.t.isf(level / 2, min(n, 10) - 1)
        one = AgainstTarget(
            own=Summary(mean=bound, deviation=math.sqrt(n / 2), n=n),
            published=Summary(mean=0.0, deviation=math.sqrt(5), n=10),
            margin=1.0,
        )
        assert one.p == pytest.approx(level), "the statistic is the bound, since its denominator is 1"
        found = int((abs(t) > bound).sum())
        assert found <= stats.binom.ppf(0.999, samples, level)


def test_the_tests_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.3, 8), rng.normal(1.2, 0.5, 8)
    summaries = Summary.of(list(a)), Summary.of(list(b))
    assert welch(*summaries) == pytest.approx(2 * stats.t.sf(abs(stats.ttest_ind(a, b, equal_var=False).statistic), 7))
    against = AgainstTarget(own=summaries[0], published=summaries[1], margin=0.2)
    higher = stats.ttest_ind(a, b + 0.2, equal_var=False).statistic
    assert against.p_margin == pytest.approx(stats.t.cdf(higher, 7))
    assert against.p_values([8, 8]) == [(against.p, against.p_margin)] * 2
    assert paired(list(a), list(b)) == pytest.approx(stats.ttest_1samp(a - b, 0.0).pvalue)
    low, high = stats.t.interval(0.95, 7, a.mean(), stats.sem(a))
    assert summaries[0].interval() == pytest.approx((low, high))


def test_the_paired_test_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 with 2 degrees of freedom; the two tails are 0.0742.
    assert paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(0.07418, abs=1e-5)
    assert paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], alternative="greater") == pytest.approx(0.03709, abs=1e-5)


@pytest.mark.parametrize(("a", "b"), [([], []), ([0.1], [0.2]), ([0.1, 0.2], [0.1, 0.2]), ([0.3, 0.4], [0.1, 0.2])])
def test_pairs_whose_spread_is_unknown_prove_nothing(a: list[float], b: list[float]) -> None:
    assert paired(a, b) == 1.0


def test_holm_by_hand() -> None:
    # In order 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last is raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(P, max_size=12))
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    found = holm(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p) + 1e-12
    by_p = [corrected for _, corrected in sorted(zip(p_values, found, strict=True))]
    assert by_p == sorted(by_p)


@given(ERROR, st.floats(0.0, 0.1), st.sampled_from(["standard deviation", "standard error"]))
def test_one_seed_never_gives_a_verdict(error: float, spread: float, kind: str) -> None:
    assert verdict([error], target(spread=spread, spread_kind=kind)) == "no test"


@given(st.lists(ERROR, min_size=2, max_size=12), st.one_of(st.none(), st.floats(0.0, 0.1)))
def test_any_errors_give_a_sound_verdict(errors: list[float], spread: float | None) -> None:
    found = AgainstTarget.of(Summary.of(errors), target(spread=spread))
    if found is None:
        assert not spread
        return
    assert spread is not None, "no verdict without a margin"
    assert 0 <= found.p <= 1 and 0 <= found.p_margin <= 1
    mean = float(np.mean(errors))
    if judged(found) == "better":
        assert mean < 0.0106
    if judged(found) == "worse":
        assert mean > 0.0106
    if judged(found) == "reproduced":
        assert mean < 0.0106 + spread


def test_verdicts() -> None:
    around = [-0.003, -0.002, -0.001, -0.001, 0.0, 0.0, 0.001, 0.001, 0.002, 0.003]
    assert verdict([0.0106 + d for d in around]) == "reproduced"
    assert verdict([0.0070 + d for d in around]) == "better"
    assert verdict([0.0130 + d for d in around]) == "not enough seeds"
    assert verdict([0.0160 + d for d in around]) == "worse"
    assert verdict([0.0106 + d for d in around[3:6]]) == "reproduced", "three seeds that agree closely"
    assert verdict([0.0079, 0.0106, 0.0133]) == "not enough seeds", "three that do not"


def test_a_correction_can_take_each_verdict_away() -> None:
    found = AgainstTarget.of(Summary.of([0.015, 0.016, 0.017, 0.016, 0.014]), target())
    assert found and judged(found) == "worse" and judged(found, p=0.2) == "not enough seeds"
    near = AgainstTarget.of(Summary.of([0.0106, 0.0105, 0.0107, 0.0106, 0.0104]), target())
    assert near and judged(near, p=1.0) == "reproduced" and judged(near, level=1e-6) == "not enough seeds"
    assert judged(near, p_margin=0.2) == "not enough seeds"


@pytest.mark.parametrize("looks", [1, 2, 3, 10, 1000])
def test_the_levels_of_all_looks_sum_to_no_more_than_the_level(looks: int) -> None:
    levels = [look_level(k) for k in range(1, looks + 1)]
    assert levels == sorted(levels, reverse=True) and levels[-1] > 0
    assert math.fsum(levels) == pytest.approx(LEVEL * (1 - 1 / (looks + 1))) and math.fsum(levels) < LEVEL


def test_a_standard_error_becomes_the_deviation_of_single_runs() -> None:
    assert target(spread=0.001, spread_kind="standard error").deviation == pytest.approx(0.001 * math.sqrt(10))
    assert target(spread=0.001).deviation == 0.001 and target(spread=None).deviation is None


def test_errors_that_are_all_the_same() -> None:
    # Two equal counts of images are chance; ten of them, with the paper's spread in place of none, are a result.
    assert verdict([0.0106, 0.0106]) == "not enough seeds"
    assert verdict([0.0106] * 20) == "reproduced"
    assert verdict([0.03] * 5) == "worse"
    assert verdict([0.0106] * 5, target(spread=0.0)) == verdict([0.02] * 5, target(spread=None)) == "no test"


def test_without_a_margin_that_was_fixed_beforehand_there_is_no_verdict() -> None:
    """Our own spread is no margin: the noisier the runs, the more easily they would pass."""
    aim = target(error=0.02, spread=None)
    assert aim.largest_excess is None and aim.withheld.startswith("the paper prints no spread, and no margin")
    for spread in (0.0001, 0.001, 0.01):
        assert verdict([0.02 - spread, 0.02, 0.02 + spread] * 10, aim) == "no test"
    assert target(spread=0.0).withheld == aim.withheld
    assert target(spread=None, seeds=1).withheld == target(seeds=1).withheld == "the published number is a single run"
    assert target().withheld == "" and target().largest_excess == 0.0037


def test_with_a_margin_of_the_target_noise_makes_the_verdict_harder_to_reach() -> None:
    aim = target(error=0.02, spread=None, margin=0.002)
    assert aim.largest_excess == 0.002 and target(margin=0.002).largest_excess == 0.002 and not aim.withheld
    found = [AgainstTarget.of(Summary.of([0.02 - s, 0.02, 0.02 + s] * 4), aim) for s in (0.0005, 0.001, 0.002, 0.01)]
    margins = [one.p_margin for one in found if one is not None]
    assert margins == sorted(margins) and len(margins) == 4
    assert [judged(one) for one in found if one] == [*["reproduced"] * 3, "not enough seeds"]
    for margin in (0.0, -0.1, math.inf, math.nan):
        with pytest.raises(SettingError, match="margin of a target must be above 0"):
            target(margin=margin)


@pytest.mark.parametrize(
    ("shift", "seeds", "wrong", "most"),
    [(0.0, 10, ("better", "worse"), 0.06), (1.0, 10, ("reproduced", "better"), 0.06), (1.0, 4, ("reproduced",), 0.06)],
)
def test_how_often_the_verdict_is_wrong(shift: float, seeds: int, wrong: tuple[str, ...], most: float) -> None:
    """A paper's ten runs and ours, 600 times: ours truly as good, or truly a whole published deviation worse."""
    rng = np.random.default_rng(1)
    found: Counter[str] = Counter()
    for _ in range(600):
        paper = Summary.of(list(rng.normal(1.0, 0.3, 10)))
        ours = Summary.of(list(rng.normal(1.0 + 0.3 * shift, 0.3, seeds)))
        found[judged(AgainstTarget(own=ours, published=paper, margin=paper.deviation))] += 1
    assert sum(found[verdict] for verdict in wrong) / 600 <= most, found


def test_the_page_states_the_paired_difference_of_bf16_and_float32() -> None:
    path = ROOT / "reproductions" / "results" / "mnist-100-full-precision-20-epochs.json"
    errors = json.loads(path.read_text())["test_error"]
    difference = Summary.of([100 * (a - b) for a, b in zip(errors["bf16"], errors["float32"], strict=True)])
    interval = difference.interval()
    assert interval is not None
    low, high = interval
    p = paired(errors["bf16"], errors["float32"])
    page = " ".join((ROOT / "reproductions" / "README.md").read_text(encoding="utf-8").split())
    text = f"{difference.mean:+.2f} points (95 % interval {low:.2f} .. {high:+.2f}, p = {p:.2f})".replace("-", "−")
    assert f"paired difference {text}" in page
    for name, values in errors.items():
        summary = Summary.of([100 * value for value in values])
        assert f"{name} {summary.mean:.2f} % ± {summary.deviation:.2f}" in page
