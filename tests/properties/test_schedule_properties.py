"""Properties that the schedules have at every step, against their formulas in exact arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import pytest

from ladder_search.training.schedules import adam_scale, learning_rate

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

EXACT = 1e-12
"""Relative; a few roundings of 1.1e-16 each."""

lengths = st.integers(1, 500)
starts = st.floats(0.0, 1.0)
rates = st.floats(1e-6, 10.0)
steps = st.integers(1, 10**7)


def rates_of(base: float, epochs: int, decay_start: float) -> list[float]:
    return [learning_rate(epoch, base=base, epochs=epochs, decay_start=decay_start) for epoch in range(epochs)]


@given(rates, lengths, starts)
def test_the_rate_is_full_until_its_decay_begins_and_falls_from_then_on(
    base: float, epochs: int, decay_start: float
) -> None:
    found = rates_of(base, epochs, decay_start)
    full = math.floor(decay_start * epochs) + 1  # epochs 0..D; the one at D is the last
    assert found[:full] == [base] * len(found[:full])
    falling = [base, *found[full:], 0.0]
    assert all(later < earlier for earlier, later in pairwise(falling))


@given(rates, lengths, starts, st.data())
def test_the_rate_by_its_formula(base: float, epochs: int, decay_start: float, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, epochs - 1))
    start = Fraction(decay_start * epochs)  # the product as it is rounded: it decides which epochs are full
    exact = Fraction(base) * min(Fraction(1), (epochs - epoch) / (epochs - start) if start < epochs else Fraction(1))
    assert learning_rate(epoch, base=base, epochs=epochs, decay_start=decay_start) == pytest.approx(exact, rel=EXACT)


@given(rates, lengths, starts)
def test_the_decay_is_a_straight_line_to_zero_at_the_end(base: float, epochs: int, decay_start: float) -> None:
    found = rates_of(base, epochs, decay_start)
    falling = [*(rate for rate in found if rate < base), 0.0]
    drops = [earlier - later for earlier, later in pairwise(falling)]
    assert drops == pytest.approx([drops[0]] * len(drops) if drops else [], rel=0, abs=EXACT * base)


@given(rates, st.floats(0.001, 1000.0), lengths, starts)
def test_the_rate_is_linear_in_its_base(base: float, factor: float, epochs: int, decay_start: float) -> None:
    scaled = rates_of(base * factor, epochs, decay_start)
    assert scaled == pytest.approx([factor * rate for rate in rates_of(base, epochs, decay_start)], rel=EXACT)


@given(rates, lengths)
def test_a_decay_that_starts_at_the_end_never_comes(base: float, epochs: int) -> None:
    assert rates_of(base, epochs, 1.0) == [base] * epochs


@given(rates, lengths, st.one_of(starts, st.just(1.0)), st.integers(0, 100))
def test_past_the_end_the_rate_is_zero_or_never_decays(
    base: float, epochs: int, decay_start: float, beyond: int
) -> None:
    rate = learning_rate(epochs + beyond, base=base, epochs=epochs, decay_start=decay_start)
    assert rate == (base if decay_start * epochs >= epochs else 0.0)


@given(steps, rates)
def test_adams_corrections_by_their_formula(step: int, lr: float) -> None:
    with localcontext(prec=60):
        rate = Decimal(lr) / (1 - Decimal("0.9") ** step)
        root = (1 - Decimal("0.999") ** step).sqrt()
        found_rate, found_root = map(Decimal, adam_scale(step, lr))
        assert abs(found_rate / rate - 1) < EXACT
        assert abs(found_root / root - 1) < EXACT


@given(steps, rates)
def test_adams_corrections_shrink_towards_none(step: int, lr: float) -> None:
    """The rate falls from ten times its value to that value, the root rises from the root of 0.001 to 1."""
    (rate, root), (later_rate, later_root) = adam_scale(step, lr), adam_scale(step + 1, lr)
    assert lr <= later_rate <= rate <= 10.0 * lr * (1 + EXACT)
    assert 0.001**0.5 * (1 - EXACT) <= root <= later_root <= 1.0


@given(st.integers(50_000, 10**9), rates)
def test_adams_corrections_end(step: int, lr: float) -> None:
    assert adam_scale(step, lr) == (lr, 1.0)


@given(steps, rates, st.floats(0.001, 1000.0))
def test_adams_rate_is_linear_and_its_root_knows_no_rate(step: int, lr: float, factor: float) -> None:
    (rate, root), (scaled, same) = adam_scale(step, lr), adam_scale(step, factor * lr)
    assert scaled == pytest.approx(factor * rate, rel=EXACT)
    assert same == root
