"""The time budget, and signals."""

from __future__ import annotations

import signal

import pytest

from ladder_search.driver.halt import GRACE_S, Halt
from ladder_search.signals import SIGNALS


def test_the_budget_starts_with_the_first_turn() -> None:
    now = [100.0]
    halt = Halt(10.0, clock=lambda: now[0])
    now[0] = 500.0  # Ray took its time to start
    assert not halt.stop_all()
    now[0] = 509.9
    assert not halt.stop_all()
    now[0] = 510.0
    assert halt.stop_all() and halt.out_of_time and not halt.interrupted
    assert halt("t", {}) is True


def test_a_halted_search_waits_for_the_reports_of_what_ran_and_not_for_ever() -> None:
    now, running = [0.0], {"t0001", "t0002"}
    halt = Halt(None, clock=lambda: now[0])
    halt.running = lambda: running
    assert halt("t0001", {}) is False and not halt.stop_all()
    halt.interrupted = True
    assert halt("t0001", {}) is True and not halt.stop_all()
    running = {"t0002", "t0003"}  # one is saved; what begins now is not waited for
    assert not halt.stop_all()
    running = {"t0003"}
    assert halt.stop_all()
    running = {"t0002"}  # one that never comes to a report
    now[0] = GRACE_S - 0.1
    assert not halt.stop_all()
    now[0] = GRACE_S
    assert halt.stop_all()


def test_without_a_budget_only_signals_halt() -> None:
    halt = Halt(None, clock=lambda: 1e12)
    assert not halt.stop_all()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_halts_the_search(number: signal.Signals) -> None:
    halt = Halt(None)
    with halt.on_signals():
        signal.raise_signal(number)
    assert halt.stop_all() and halt.interrupted and halt.why() == "Interrupted"


def test_a_search_whose_trials_have_ended_is_not_interrupted() -> None:
    halt = Halt(None)
    with halt.on_signals():
        halt.ended = True
        signal.raise_signal(signal.SIGTERM)
    assert not halt.interrupted and halt.why() == ""
