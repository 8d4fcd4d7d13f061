"""Claims over seeds: differences, p-values and verdicts by hand and against SciPy."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp, ttest_rel

from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.final.results import FinalResult, SeedResult
from ladder_search.ordering.claims import Claim, Ordering
from ladder_search.ordering.judging import FILE, JudgedOrdering, Look, Looks, Reached, judged, read_looks
from ladder_search.report.orderings import rule
from ladder_search.statistics import above, below, look_level
from ladder_search.studies import find_study

A, B, C = "digits-100", "digits-100-base", "digits-all-base"


def ordering(*claims: Claim) -> Ordering:
    return Ordering(name="toy", title="", source="", measure="error", studies=(A, B, C), claims=claims)


def found(*claims: Claim, **values: dict[int, float]) -> JudgedOrdering:
    names = {"a": A, "b": B, "c": C}
    return judged(ordering(*claims), [Reached(study=names[name], values=own) for name, own in values.items()])


def claim(better: str = A, worse: str = B, margin: float = 0.0) -> Claim:
    return Claim(first=better, second=worse, bound=margin, text="")


def alike(first: str, second: str, bound: float) -> Claim:
    return Claim(kind="alike", first=first, second=second, bound=bound, text="")


LOW = {1: 0.10, 2: 0.12, 3: 0.11, 4: 0.10}
HIGH = {1: 0.20, 2: 0.23, 3: 0.20, 4: 0.21}


def test_a_difference_by_hand() -> None:
    """Differences 0.10, 0.11, 0.09, 0.11: mean 0.1025, sd 0.0095743, t = 0.1025 / (0.0095743 / 2) = 21.4115, 3 df."""
    (one,) = found(claim(), a=LOW, b=HIGH).claims
    assert one.difference == pytest.approx(0.1025) and one.deviation == pytest.approx(0.00957427)
    assert one.p == pytest.approx(student.sf(21.41146, 3), rel=1e-4) and one.p_holm == one.p
    half = 3.182446 * 0.00957427 / 2
    assert one.interval == pytest.approx((0.1025 - half, 0.1025 + half))
    assert (one.verdict, one.seeds) == ("held", (1, 2, 3, 4))


def test_one_sided_tests_are_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.10, 0.01, 6), rng.normal(0.11, 0.01, 6)
    assert above([*(b - a)]) == pytest.approx(ttest_rel(b, a, alternative="greater").pvalue)
    assert above([*(b - a)], 0.02) == pytest.approx(ttest_1samp(b - a, 0.02, alternative="greater").pvalue)
    assert below([*(b - a)], 0.02) == pytest.approx(ttest_1samp(b - a, 0.02, alternative="less").pvalue)
    assert above([0.1]) == above([0.1, 0.1, 0.1]) == 1.0 == below([])  # nothing is known of their spread


def test_a_margin_must_be_passed_and_the_other_way_round_is_contradicted() -> None:
    apart = [HIGH[seed] - LOW[seed] for seed in LOW]
    held, short, wrong = found(claim(margin=0.05), claim(margin=0.1025), claim(B, A), a=LOW, b=HIGH).claims
    assert (held.verdict, short.verdict, wrong.verdict) == ("held", "not shown", "contradicted")
    assert held.p == pytest.approx(ttest_1samp(apart, 0.05, alternative="greater").pvalue)
    assert wrong.p == pytest.approx(1 - ttest_1samp(apart, 0.0, alternative="greater").pvalue)
    assert found(claim(margin=0.15), a=LOW, b=HIGH).claims[0].verdict == "contradicted"  # below, but not by so much


def test_as_good_as_needs_both_sides() -> None:
    near = {1: 0.101, 2: 0.119, 3: 0.111, 4: 0.099}
    apart = [near[seed] - LOW[seed] for seed in LOW]
    sides = (
        ttest_1samp(apart, -0.005, alternative="greater").pvalue,
        ttest_1samp(apart, 0.005, alternative="less").pvalue,
    )
    close = alike(A, B, 0.005)
    (one,) = found(close, a=LOW, b=near).claims
    assert one.p == pytest.approx(max(sides)) and one.verdict == "held"
    narrow, tight = found(alike(A, B, 0.0005), alike(B, A, 0.0005), a=LOW, b=near).claims
    assert narrow.verdict == tight.verdict == "not shown"  # what is not apart is not alike yet
    outside, turned = found(close, alike(B, A, 0.005), a=LOW, b=HIGH).claims
    assert outside.verdict == turned.verdict == "contradicted"
    p = ttest_1samp([HIGH[s] - LOW[s] for s in LOW], 0.005, alternative="greater").pvalue
    assert outside.p_against_holm == pytest.approx(2 * 2 * p)  # two sides, two claims


def test_holm_is_over_all_claims_those_that_cannot_be_tested_too() -> None:
    noisy = {1: 0.24, 2: 0.20, 3: 0.23, 4: 0.24}
    one, two = found(claim(), claim(B, C), a=LOW, b=HIGH, c=noisy).claims
    p, q = (ttest_rel(*map(list, pair), alternative="greater").pvalue for pair in
            ((HIGH.values(), LOW.values()), (noisy.values(), HIGH.values())))  # fmt: skip
    assert (one.p_holm, two.p_holm) == (pytest.approx(2 * p), pytest.approx(max(2 * p, q)))
    partly = found(claim(), claim(B, C), a=LOW, b=HIGH)
    assert partly.claims[0].p_holm == pytest.approx(2 * p)
    assert partly.claims[1].verdict == "not tested" and partly.claims[1].p is None
    assert partly.verdict == "not tested" and partly.missing == (C,)


def test_the_ordering_holds_only_where_all_claims_do() -> None:
    higher = {seed: value + 0.1 + 0.01 * (seed % 2) for seed, value in HIGH.items()}
    assert found(claim(), claim(B, C), a=LOW, b=HIGH, c=higher).verdict == "holds"
    assert found(claim(), claim(B, C), a=LOW, b=HIGH, c=LOW).verdict == "contradicted"
    alike = {seed: value + 0.01 * (-1) ** seed for seed, value in HIGH.items()}
    assert found(claim(), claim(B, C), a=LOW, b=HIGH, c=alike).verdict == "not shown"


def test_pairs_are_of_seeds_that_all_have_and_on_which_both_finished() -> None:
    reached = [
        Reached(study=A, values={**LOW, 9: 0.9}),
        Reached(study=B, values={1: 0.20, 3: 0.20, 4: 0.21}, diverged=(2,)),
        Reached(study=C, values={1: 0.3, 2: 0.31, 3: 0.32, 4: 0.3, 7: 0.4}),
    ]
    whole = judged(ordering(claim(), claim(A, C)), reached)
    assert whole.seeds == (1, 2, 3, 4)
    one, two = whole.claims
    assert (one.seeds, one.left_out) == ((1, 3, 4), (2,)) and (two.seeds, two.left_out) == ((1, 2, 3, 4), ())
    assert one.difference == pytest.approx((0.10 + 0.09 + 0.11) / 3)
    assert whole.reached[0].summary is not None and whole.reached[0].summary.n == 4  # seed 9 is nobody else's
    kept = json.loads(json.dumps(whole.as_json(), allow_nan=False))
    assert kept["studies"][B] == {
        "values": {"1": 0.20, "3": 0.20, "4": 0.21}, "diverged": [2], "devices": [],
        "mean": pytest.approx(0.61 / 3), "sd": pytest.approx(0.0057735), "n": 3,
    }  # fmt: skip
    assert kept["claims"][0]["left_out"] == [2] and kept["verdict"] == "holds"


def test_one_seed_gives_numbers_and_no_verdict() -> None:
    whole = found(claim(), a={1: 0.1}, b={1: 0.2})
    (one,) = whole.claims
    assert one.difference == pytest.approx(0.1) and one.p is None and one.interval is None
    assert whole.verdict == one.verdict == "not tested"


def test_each_table_has_the_level_of_its_look_and_says_so() -> None:
    looks, wide = Looks(), {1: 0.10, 2: 0.24, 3: 0.17, 4: 0.26, 5: 0.21, 6: 0.2}
    low = {seed: 0.1 for seed in wide}
    for table, n in enumerate((3, 4, 6), start=1):
        seeds = list(wide)[:n]
        own = [Reached(study=name, values={seed: of[seed] for seed in seeds}) for name, of in ((A, low), (B, wide))]
        whole = judged(ordering(claim()), own, earlier=looks)
        looks = whole.looks
        assert (whole.number, whole.level) == (table, look_level(table))
        assert whole.as_json()["level"] == whole.level
        said = " ".join(rule(whole))
        assert f"at {100 * whole.level:.3g} %, after" in said and f"this is table {table}." in said
        assert judged(ordering(claim()), own, earlier=looks).as_json() == whole.as_json(), "shown again, it is the same"
        p = whole.claims[0].p_holm
        assert p is not None and (whole.claims[0].verdict == "held") == (p < look_level(table))
    p = whole.claims[0].p_holm
    assert p is not None and 0.004 < p < 0.05, "what one look would hold, the third does not"


def test_another_study_is_another_look_and_one_seed_is_none() -> None:
    first = found(claim(), claim(B, C), a=LOW, b=HIGH).looks
    assert first.looks == (Look(seeds=(1, 2, 3, 4), studies=(A, B)),)
    values = {A: LOW, B: HIGH, C: HIGH}
    whole = judged(ordering(claim()), [Reached(study=n, values=v) for n, v in values.items()], earlier=first)
    assert whole.number == 2
    assert found(claim(), a={1: 0.1}, b={1: 0.2}).looks.looks == ()


def test_the_looks_are_kept_and_those_of_format_1_are_read(tmp_path: Path) -> None:
    own = ordering(claim())
    assert read_looks(tmp_path, own, None) == Looks()
    whole = found(claim(), a=LOW, b=HIGH)
    kept = whole.as_json()
    (tmp_path / FILE).write_text(json.dumps(kept))
    assert read_looks(tmp_path, own, None) == whole.looks
    for other, epochs in ((own, 5), (ordering(claim(B, A)), 7)):
        with pytest.raises(StudyFolderError, match="an ordering needs a folder of its own"):
            read_looks(tmp_path, other, epochs)
    old = {name: value for name, value in kept.items() if name not in ("table", "looks", "overspent_looks")}
    (tmp_path / FILE).write_text(json.dumps({**old, "format": "ladder-search ordering 1", "level": 0.05}))
    looks = read_looks(tmp_path, own, None)
    assert looks == Looks(looks=whole.looks.looks, overspent=1)
    values = {A: {**LOW, 5: 0.1}, B: {**HIGH, 5: 0.2}}
    second = judged(own, [Reached(study=n, values=v) for n, v in values.items()], earlier=looks)
    assert second.number == 2 and "Table 1 was made by an earlier version, at 5 %" in " ".join(rule(second))
    for text in ("", "[]", "{}", json.dumps({**kept, "format": "x"}), json.dumps({**kept, "looks": 3})):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(CheckpointError, match="must be the table of an ordering"):
            read_looks(tmp_path, own, None)


RESULTS = Path(__file__).parents[3] / "reproductions"


@pytest.mark.parametrize("path", sorted((RESULTS / "results").glob("*table-*.json")), ids=lambda path: path.stem)
def test_kept_orderings_are_what_their_values_give_by_the_rule_of_today(path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    again = runpy.run_path(str(RESULTS / "judged_again.py"), run_name="script")["judged_again"](kept)
    assert _close(json.loads(json.dumps(again.as_json())), kept)


def _close(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return one == (pytest.approx(other, rel=1e-9, abs=1e-12) if isinstance(other, float) else other)


def _result(*outcomes: SeedResult, name: str = A) -> FinalResult:
    return FinalResult(
        study=name,
        spec=find_study(name).trial(),
        target=None,
        outcomes=outcomes,
        data_digest="",
        settings_digest="",
        compiled=False,
        device="cpu",
        seconds=1.0,
    )


def test_a_measure_that_is_not_the_first_is_read_from_the_scores() -> None:
    scores = {"error": 0.1, "prediction_error": 0.0015}
    results = [
        _result(SeedResult(seed=1, test_error=0.1, test_scores=scores)),
        _result(SeedResult(seed=2, test_error=None)),
    ]
    one = Reached.of(A, results, "prediction_error")
    assert (one.values, one.diverged, one.seeds) == ({1: 0.0015}, (2,), frozenset({1, 2}))
    assert Reached.of(A, results, "error").values == {1: 0.1}
    with pytest.raises(
        CheckpointError, match="prediction_error of digits-100 on the test set and the training of seed 3 h"
    ):
        Reached.of(A, [_result(SeedResult(seed=3, test_error=0.1))], "prediction_error")
