"""The time budget, the first and the second signal."""

from __future__ import annotations

import signal
import threading

import pytest

from ladder_search.driver.halt import GRACE_S, Halt


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_halts_and_the_second_has_its_usual_effect(number: signal.Signals) -> None:
    got: list[int] = []
    before = signal.signal(number, lambda n, frame: got.append(n))
    try:
        usual = signal.getsignal(number)
        halt = Halt(None)
        with halt.on_signals():
            signal.raise_signal(number)
            assert halt.stop_all() and halt.interrupted and got == []
            signal.raise_signal(number)
            assert got == [number]
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)


def test_outside_the_main_thread_there_are_no_signals() -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            with Halt(None).on_signals():
                pass
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not problems
