"""Learning curves of several configurations: areas, transfer scores and paired tests, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from scipy.stats import ttest_rel

from ladder_search.final.results import FinalResult, SeedResult
from ladder_search.metrics import EPOCH, NLL, TEST_ERROR
from ladder_search.pictures import canvas
from ladder_search.pictures.learning import learning_bands
from ladder_search.reproduction.learning import Learning, as_json, differences, marks, transfer_scores
from ladder_search.studies import Study
from ladder_search.trial import TrialSpec

SLOW = Learning(name="slow", title="", curves={1: (0.2, 0.4), 2: (0.3, 0.5), 3: (0.1, 0.6)})
FAST = Learning(name="fast", title="", curves={1: (0.6, 0.7), 2: (0.5, 0.9), 3: (0.7, 0.8)})
LAME = Learning(name="lame", title="", curves={1: (0.2, 0.3), 3: (0.1, 0.5)}, diverged=(2,))


def test_areas_are_means_and_transfer_is_their_ratio_on_common_seeds() -> None:
    assert SLOW.area == pytest.approx({1: 0.3, 2: 0.4, 3: 0.35})
    scores = transfer_scores([SLOW, FAST, LAME], "slow")
    assert scores == pytest.approx({"slow": 1.0, "fast": (0.65 + 0.7 + 0.75) / 1.05, "lame": 0.55 / 0.65})


def test_differences_are_of_pairs_and_corrected_over_all_of_them() -> None:
    found = {(d.better, d.worse): d for d in differences([SLOW, FAST, LAME], "epoch 2")}
    assert set(found) == {("fast", "slow"), ("slow", "lame"), ("fast", "lame")}
    one = found["fast", "slow"]
    assert (one.mean, one.n) == (pytest.approx((0.3 + 0.4 + 0.2) / 3), 3)
    assert one.sd == pytest.approx(0.1)
    p = float(ttest_rel([0.7, 0.9, 0.8], [0.4, 0.5, 0.6]).pvalue)
    assert one.p_holm == pytest.approx(min(1.0, 3 * p))  # the smallest of three
    assert found["slow", "lame"].n == 2  # the seed that diverged is left out of both
    assert math.isclose(found["slow", "lame"].mean, 0.1)


def test_pairs_that_cannot_be_tested_count_in_the_correction() -> None:
    lost = Learning(name="lost", title="", curves={2: (0.1, 0.1)}, diverged=(1, 3))
    (one,) = differences([SLOW, FAST, lost], "epoch 2")
    p = float(ttest_rel([0.7, 0.9, 0.8], [0.4, 0.5, 0.6]).pvalue)
    assert one.p_holm == pytest.approx(min(1.0, 3 * p)), "of three pairs, as if no seed had diverged"


def test_of_other_measures_less_is_better(judged_by: Callable[..., Study]) -> None:
    errors = {"high": [(9.0, 8.5), (9.2, 8.7)], "low": [(8.8, 8.3), (8.9, 8.6)]}
    found = [Learning.of(name, "", _result(judged_by("nll").trial(), *curves)) for name, curves in errors.items()]
    assert found[0].curves == {1001: (9.0, 8.5), 1002: (9.2, 8.7)} and found[0].measure is NLL
    (one,) = differences(found, "epoch 2")
    assert (one.better, one.worse, one.mean) == ("low", "high", pytest.approx(0.15))
    assert as_json(found, "high")["curves"]["low"]["nll"] == {"1001": [8.8, 8.3], "1002": [8.9, 8.6]}
    with canvas.style():
        picture = learning_bands("curves", found)
        picture.figure.canvas.draw()
    (ax,) = picture.figure.axes
    assert ax.get_ylabel() == "test NLL, nats per step, mean ± sd"
    assert not [tick for tick in ax.get_yticklabels() if "%" in tick.get_text()]
    assert [text for *_, text in picture.texts][2:] == [
        "low, epoch 1: 8.850 nats per step", "low, epoch 2: 8.450 nats per step",
    ]  # fmt: skip


def test_curves_with_few_points_are_read_where_all_seeds_have_one(judged_by: Callable[..., Study]) -> None:
    first, second = (_result(judged_by("nll").trial(), curve) for curve in ((9.0, 8.5, 8.4), (9.2, 8.7, 8.6)))

    def without(result: FinalResult, seed: int, *epochs: int) -> FinalResult:
        (outcome,) = result.outcomes
        rows = [{n: v for n, v in row.items() if n != TEST_ERROR or row[EPOCH] not in epochs} for row in outcome.epochs]
        return replace(result, outcomes=(replace(outcome, seed=seed, epochs=tuple(rows)),))

    found = Learning.where_told("x", "", [without(first, 1001, 1), without(second, 1002)])
    assert found is not None and found.points == (2, 3) and found.curves == {1001: (8.5, 8.4), 1002: (8.7, 8.6)}
    assert found.after(3) == {1001: 8.4, 1002: 8.6}
    with canvas.style():
        assert [x for _, _, x, _, _ in learning_bands("curves", [found]).texts] == [2, 3]
    assert Learning.where_told("x", "", [without(first, 1001, 1), without(second, 1002, 2, 3)]) is None
    assert SLOW.points == (1, 2)


def _result(spec: TrialSpec, *curves: tuple[float, ...]) -> FinalResult:
    outcomes = tuple(
        SeedResult(
            seed=seed,
            test_error=curve[-1],
            epochs=tuple({"epoch": epoch, "test_error": error} for epoch, error in enumerate(curve, 1)),
        )
        for seed, curve in enumerate(curves, 1001)
    )
    return FinalResult(
        study="",
        spec=spec,
        target=None,
        outcomes=outcomes,
        data_digest="",
        settings_digest="",
        compiled=False,
        device="cpu",
        seconds=1.0,
    )


def test_accuracies_are_told_after_1_3_10_and_the_last_epoch() -> None:
    def long(epochs: int) -> Learning:
        return Learning(name=f"{epochs}", title="", curves={1: (0.5,) * epochs})

    lost = Learning(name="lost", title="", curves={}, diverged=(1,))
    assert [marks([long(n)]) for n in (30, 10, 2, 1)] == [[1, 3, 10, 30], [1, 3, 10], [1, 2], [1]]
    assert marks([long(30), long(12), lost]) == [1, 3, 10, 12]  # a configuration that was lost takes nobody's epochs
    assert marks([lost]) == [] and as_json([lost], "lost")["differences"] == []


def test_everything_is_kept_and_drawn() -> None:
    kept = as_json([SLOW, FAST, LAME], "slow")
    assert kept["curves"]["lame"] == {"title": "", "accuracy": {"1": [0.2, 0.3], "3": [0.1, 0.5]}, "diverged": [2]}
    assert {one["what"] for one in kept["differences"]} == {"area", "epoch 1", "epoch 2"}
    with canvas.style():
        picture = learning_bands("curves", [SLOW, FAST, LAME])
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == [
        "slow (3 seeds)",
        "fast (3 seeds)",
        "lame (2 seeds)",
    ]
    assert len(picture.figure.axes[0].lines) == 3
