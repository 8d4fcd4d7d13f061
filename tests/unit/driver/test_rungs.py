"""Rungs of epochs and draws: which ones a search has, and which trial goes on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ladder_search.driver.rungs import Ladder, Rung, ladder_of
from ladder_search.metrics import MEASURES
from ladder_search.studies import StopConfig

STOP = StopConfig(first_rung_steps=30, failure_error=0.9, failure_steps=30)
EPOCHS = 9


def ladder(*rungs: Rung, measure: str = "error") -> Ladder:
    usual = (Rung(3, 1), Rung(EPOCHS, 1), Rung(EPOCHS, 3))
    return Ladder(rungs or usual, epochs=EPOCHS, reduction=3, measure=MEASURES[measure])


def row(epoch: int, error: float | None, draw_error: float | None = None) -> dict[str, Any]:
    draw = {} if draw_error is None else {"draw": (epoch - 1) // EPOCHS, "draw_validation_error": draw_error}
    return {"epoch": epoch, "validation_error": error, **draw}


def arrive(rungs: Ladder, key: str, epoch: int, error: float) -> None:
    rungs.report(key, [row(epoch, error, error)])
    rungs.wait(key, epoch)


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (8, [Rung(3, 1), Rung(9, 1)]),
        (17, [Rung(3, 1), Rung(9, 1)]),
        (18, [Rung(3, 1), Rung(9, 1), Rung(9, 3)]),
        (54, [Rung(3, 1), Rung(9, 1), Rung(9, 3), Rung(9, 9)]),
    ],
)
def test_more_trials_bring_more_draws(trials: int, expected: list[Rung]) -> None:
    assert list(ladder_of(9, 10, STOP, trials=trials)) == expected


def test_no_rung_before_the_first_comparison_and_no_draws_beyond_the_limit() -> None:
    assert ladder_of(9, 9, STOP, trials=54) == (Rung(9, 1), Rung(9, 3), Rung(9, 9))
    assert ladder_of(9, 10, STOP, trials=54, most_draws=1) == (Rung(3, 1), Rung(9, 1))
    assert ladder_of(1, 100, STOP, trials=8) == (Rung(1, 1),)


def test_goals_count_the_epochs_of_all_draws() -> None:
    rungs = ladder()
    assert rungs.goals == (3, 9, 27) and rungs.top == 27
    assert [rungs.goal_after(epoch) for epoch in (0, 2, 3, 8, 9, 20)] == [3, 3, 9, 9, 27, 27]
    assert [rungs.pauses(epoch) for epoch in (2, 3, 9, 27)] == [False, True, True, False]


def test_the_best_third_of_a_rung_goes_on() -> None:
    rungs = ladder()
    for number, error in enumerate((0.3, 0.2, 0.4)):
        assert rungs.promoted() is None
        arrive(rungs, f"t{number:04d}", 3, error)
    assert rungs.promoted() == ("t0001", 9) and rungs.promoted() is None
    arrive(rungs, "t0003", 3, 0.1)
    assert rungs.promoted() == ("t0003", 9), "one of four belongs to the best third: not the one that went on before"
    for number in (4, 5):
        arrive(rungs, f"t{number:04d}", 3, 0.5)
    assert rungs.promoted() is None, "the best two of six have gone on"
    assert rungs.waiting == ["t0000", "t0002", "t0004", "t0005"]


def test_higher_rungs_come_first_and_only_ready_trials_go_on() -> None:
    rungs = ladder()
    for number in range(6):
        arrive(rungs, f"t{number:04d}", 3, 0.1 + number / 100)
    for key in ("t0000", "t0001"):
        assert rungs.promoted() == (key, 9)
    for key, error in (("t0000", 0.05), ("t0001", 0.04)):
        arrive(rungs, key, 9, error)
    rungs.report("t0009", [row(9, 0.2, 0.2)])
    rungs.report("t0000r", [row(9, 0.01, 0.01)], reference=True)  # it takes no place
    for number in range(6, 9):
        arrive(rungs, f"t{number:04d}", 3, 0.01)
    assert rungs.promoted(lambda key: key != "t0001") == ("t0006", 9)
    assert rungs.promoted() == ("t0001", 27)


def test_values_that_are_not_finite_and_trials_that_left_never_go_on() -> None:
    rungs = ladder()
    for number in range(3):
        arrive(rungs, f"t{number:04d}", 3, math.nan)
    assert rungs.promoted() is None
    for number in range(3, 6):
        arrive(rungs, f"t{number:04d}", 3, 0.1)
    rungs.leave("t0003")
    assert rungs.promoted() == ("t0004", 9), "two of six; the first one has left"
    assert rungs.promoted() is None


def test_the_best_of_a_measure_that_rises_is_the_largest() -> None:
    rungs = ladder(measure="ami")
    for number, value in enumerate((0.2, 0.9, 0.5)):
        arrive(rungs, f"t{number:04d}", 3, value)
    assert rungs.promoted() == ("t0001", 9)


def test_the_values_of_whole_schedules_are_kept_by_draw() -> None:
    rungs = ladder()
    rungs.report("t0001", [row(8, 0.5, 0.5), row(9, 0.3, 0.3), row(18, 0.35, 0.4), row(27, 0.3, 0.2)])
    assert rungs.errors() == {"t0001": {0: 0.3, 1: 0.4, 2: 0.2}}


def test_the_reason_names_place_and_rung() -> None:
    rungs = ladder()
    for number, error in enumerate((0.3, 0.2, 0.4)):
        arrive(rungs, f"t{number:04d}", 3, error)
    assert rungs.reason("t0002") == "number 3 of 3 at the rung of epoch 3"
