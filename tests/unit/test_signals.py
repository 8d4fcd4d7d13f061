"""Signals that end commands, at once or at certain points."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from ladder_search.signals import SIGNALS, Deferred, Interruption, deferred, listening, restored

INT, TERM, HUP = SIGNALS


@pytest.fixture
def usual() -> list[int]:
    """The signals that had the effect which they had before."""
    got: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda n, frame: got.append(n))
    return got


@pytest.mark.parametrize("number", [TERM, HUP])
def test_a_signal_raises_what_ctrl_c_raises(number: int, usual: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt) as raised, listening():
        signal.raise_signal(number)
    assert isinstance(raised.value, Interruption) and raised.value.number == number and usual == []


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_deferred(number: int, usual: list[int]) -> None:
    signals = Deferred()
    signals.check()
    with deferred(signals.arrive):
        signal.raise_signal(number)
        with pytest.raises(Interruption, match="epoch 3 is kept") as raised:
            signals.check("epoch 3 is kept")
    assert raised.value.number == number and usual == []


@pytest.mark.parametrize("first", [INT, TERM])
@pytest.mark.parametrize("second", [INT, TERM])
def test_the_second_has_its_usual_effect(first: int, second: int, usual: list[int]) -> None:
    arrived: list[int] = []
    with deferred(arrived.append):
        signal.raise_signal(first)
        signal.raise_signal(second)
    assert arrived == [first] and usual == [second]


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("place", [deferred, lambda arrive: listening()])
def test_a_hang_up_is_never_the_second(place: Callable[..., object], first: int, usual: list[int]) -> None:
    """A terminal that closes sends it, and its shell once more; a system that ends a session sends it after SIGTERM."""
    arrived: list[int] = []
    with pytest.raises(KeyboardInterrupt), place(arrived.append):  # type: ignore[attr-defined]
        try:
            signal.raise_signal(first)
            raise Interruption(first)  # as the work would, at its next point
        finally:
            signal.raise_signal(HUP)
    signal.raise_signal(HUP)
    assert HUP not in usual if first != INT or place is deferred else True


def test_after_a_hang_up_the_next_is_the_first(usual: list[int]) -> None:
    arrived: list[int] = []
    with deferred(arrived.append):
        for number in (HUP, TERM, TERM):
            signal.raise_signal(number)
    assert arrived == [HUP, TERM] and usual == [TERM]


def test_nohup_keeps_its_meaning(usual: list[int]) -> None:
    signal.signal(HUP, signal.SIG_IGN)
    arrived: list[int] = []
    with listening(), deferred(arrived.append):
        signal.raise_signal(HUP)
        assert signal.getsignal(HUP) == signal.SIG_IGN
    assert arrived == [] and signal.getsignal(HUP) == signal.SIG_IGN


@pytest.mark.parametrize("place", [listening, lambda: deferred(print), restored])
def test_the_handlers_of_before_come_back(place: Callable[[], object], usual: list[int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with place():  # type: ignore[attr-defined]
        signal.signal(TERM, signal.SIG_DFL)  # as Ray does when it starts
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("place", [listening, lambda: deferred(print), restored])
def test_outside_the_main_thread_there_are_no_signals(place: Callable[[], object]) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            with place():  # type: ignore[attr-defined]
                pass
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not problems
