"""The learning-rate schedule by the numbers of the original code, and Adam's corrections by hand."""

from __future__ import annotations

import pytest

from ladder_search.training.schedules import adam_scale, learning_rate


def paper(epoch: int) -> float:
    """Rate of MNIST's epoch 1..150."""
    return learning_rate(epoch - 1, base=0.002, epochs=150, decay_start=0.67)


def test_mnists_rate_is_full_for_101_epochs() -> None:
    assert {paper(epoch) for epoch in range(1, 102)} == {0.002}


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(102, 49 / 49.5), (103, 48 / 49.5), (126, 25 / 49.5), (149, 2 / 49.5), (150, 1 / 49.5)],
)
def test_mnists_rate_then_falls_by_the_epoch(epoch: int, factor: float) -> None:
    assert paper(epoch) == pytest.approx(0.002 * factor, rel=1e-12)


def test_the_two_ends_of_mnists_decay_as_published() -> None:
    assert paper(102) / 0.002 == pytest.approx(0.9899, abs=5e-5)
    assert paper(150) / 0.002 == pytest.approx(0.0202, abs=5e-5)


def test_the_rates_of_a_log_of_2015() -> None:
    # A log of the original code: 0.000485 after 138 epochs, 0.000040 after 149.
    assert paper(139) == pytest.approx(0.000485, abs=5e-7)
    assert paper(150) == pytest.approx(0.000040, abs=5e-7)


@pytest.mark.parametrize(
    ("epochs", "decay_start", "factors"),
    [
        (4, 0.5, [1, 1, 1, 1 / 2]),  # D = 2: the third epoch is not after D yet
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (3, 1.0, [1, 1, 1]),
        (1, 0.0, [1]),
        (5, 0.9, [1, 1, 1, 1, 1]),  # D = 4.5 lies within the last epoch
    ],
)
def test_short_runs(epochs: int, decay_start: float, factors: list[float]) -> None:
    rates = [learning_rate(e, base=2.0, epochs=epochs, decay_start=decay_start) for e in range(epochs)]
    assert rates == pytest.approx([2.0 * factor for factor in factors], rel=1e-12)


def test_the_rate_never_falls_below_zero() -> None:
    assert learning_rate(9, base=1.0, epochs=4, decay_start=0.5) == 0.0


def test_adams_corrections() -> None:
    rate, root = adam_scale(1, 0.002)
    assert rate == pytest.approx(0.02, rel=1e-12)  # 0.002 / (1 - 0.9)
    assert root == pytest.approx(0.001**0.5, rel=1e-12)
    rate, root = adam_scale(3, 1.0)
    assert rate == pytest.approx(1 / 0.271, rel=1e-12)
    assert root == pytest.approx(0.002997001**0.5, rel=1e-12)
    assert adam_scale(100_000, 0.002) == pytest.approx((0.002, 1.0), rel=1e-12)
