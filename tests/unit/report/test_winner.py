"""Intervals of trials' values, and the test of a search's winner on common label draws."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

from ladder_search.metrics import MEASURES
from ladder_search.record.trial import TrialRecord
from ladder_search.report.winner import compare, interval, sentence

EPOCHS = 4
ERROR, NLL = MEASURES["error"], MEASURES["nll"]
GOOD, OWN = [0.031, 0.040, 0.035, 0.030, 0.038], [0.045, 0.055, 0.048, 0.047, 0.052]


def trial(number: int, errors: list[float], name: str = "", validation: int = 297, unfinished: int = 0) -> TrialRecord:
    rows = [
        {
            "epoch": EPOCHS * draw + epoch,
            "validation_error": 0.1,
            "draw": draw,
            "draw_validation_error": error if epoch == EPOCHS else 0.9,
        }
        for draw, error in enumerate(errors)
        for epoch in range(1, EPOCHS + 1)
    ][: EPOCHS * len(errors) - unfinished]
    whole = errors[:-1] if unfinished else errors
    return TrialRecord(
        key=f"t{number:04d}",
        number=number,
        name=name,
        state="COMPLETE",
        reason="",
        params={},
        settings={"training": {"epochs": EPOCHS}, "data": {"validation": validation}},
        epochs=tuple(rows),
        validation_error=sum(whole) / len(whole),
        seconds=1.0,
        checkpoint=None,
    )


def test_only_whole_draws_count() -> None:
    record = trial(1, [0.1, 0.2, 0.3], unfinished=1)
    assert record.draw_errors == {0: 0.1, 1: 0.2} and (record.draws, record.begun_draws) == (2, 3)


def test_the_interval_of_one_draw_is_that_of_its_rows_and_of_several_that_of_the_draws() -> None:
    low, high = interval(trial(1, [12 / 297]), ERROR) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.02324, 0.06925), abs=1e-4)  # Wilson's for 12 of 297
    low, high = interval(trial(1, [0.03, 0.05, 0.04]), ERROR) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.04 - 4.3027 * 0.01 / 3**0.5, 0.04 + 4.3027 * 0.01 / 3**0.5), abs=1e-5)
    assert interval(trial(1, [8.3]), NLL) is None and interval(trial(1, [0.1], validation=0), ERROR) is None


def test_the_winner_is_tested_in_pairs_and_corrected_for_having_been_picked() -> None:
    winner, own = trial(3, GOOD), trial(0, [*OWN, 0.9], name="published")
    found = compare(winner, own, 4, ERROR)
    assert found is not None and found.draws == 5
    assert found.gain == pytest.approx(0.0146) and found.p == pytest.approx(4 * ttest_rel(OWN, GOOD).pvalue)
    assert found.interval[0] < found.gain < found.interval[1]
    alone = compare(winner, own, 1, ERROR)
    assert alone is not None and alone.interval[0] > found.interval[0], "a level for each suggestion"
    records = [own, trial(1, [0.05]), trial(2, [0.06]), winner, trial(4, [0.06])]
    text = sentence(records, winner, own, ERROR)
    assert text.startswith(
        "t0003 against the published configuration, on the same draws, as the best of 4: 1.46 points better ("
    )
    assert "5 draws, adjusted p 0.0" in text
    many = sentence([*records, *(trial(n, [0.1]) for n in range(5, 5000))], winner, own, ERROR)
    assert "no difference shown (" in many


def test_larger_values_of_a_measure_that_rises_are_better() -> None:
    winner, own = trial(1, [0.8, 0.9, 0.85]), trial(0, [0.5, 0.62, 0.56], name="published")
    found = compare(winner, own, 1, MEASURES["ami"])
    assert found is not None and found.gain > 0.2


def test_one_common_draw_is_not_tested() -> None:
    winner, own = trial(1, [0.03]), trial(0, OWN, name="published")
    assert compare(winner, own, 3, ERROR) is None
    text = sentence([winner, own], winner, own, ERROR)
    assert text.startswith("No difference between t0001 and the published configuration is tested")
