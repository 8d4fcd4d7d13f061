"""Handling of Ctrl-C, SIGTERM and SIGHUP.

Each signal raises an exception, so that open resources are closed. Code that may end at certain points only, such as
between two epochs, defers them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption(KeyboardInterrupt):
    def __init__(self, number: int, kept: str = "") -> None:
        """Args: ``kept`` describes the results that remain."""
        super().__init__(kept)
        self.number = number


class Deferred:
    """Signals that have arrived while they were deferred."""

    def __init__(self) -> None:
        self.number: int | None = None

    def arrive(self, number: int) -> None:
        self.number = number

    def check(self, kept: str = "") -> None:
        if self.number is not None:
            raise Interruption(self.number, kept)


@contextmanager
def listening() -> Iterator[None]:
    """While active, SIGTERM and SIGHUP raise ``Interruption``, as Ctrl-C raises ``KeyboardInterrupt``."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _hang_up_no_more()
        raise Interruption(number)

    with _handled({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def deferred(arrive: Callable[[int], None]) -> Iterator[None]:
    """While active, the first signal only calls ``arrive``; a second Ctrl-C or SIGTERM has its default effect.

    A further SIGHUP is ignored, because a closing terminal may send it twice, or after SIGTERM.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(number: int, frame: FrameType | None) -> None:
        _hang_up_no_more()
        if number != signal.SIGHUP:
            for other, handler in before.items():
                signal.signal(other, handler)
        arrive(number)

    with _handled(dict.fromkeys(SIGNALS, first)):
        yield


@contextmanager
def restored() -> Iterator[None]:
    """Restore the handlers that a library replaces while active."""
    with _handled({}):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]]) -> Iterator[None]:
    """Set handlers while active; do nothing outside the main thread, where Python does not allow it.

    An ignored SIGHUP stays ignored, as ``nohup`` requires.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in handlers.items():
        if number != signal.SIGHUP or before[number] != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, usual in before.items():
            if usual is not None and (number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN):
                signal.signal(number, usual)


def _hang_up_no_more() -> None:
    """Ignore SIGHUP until the end of the process, as the command is ending already."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
