"""Why a trial moves to another process: among others SIGTERM, which leaves time to finish an epoch."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class TrialMovesError(Exception):
    """A message from a trial to Ray, which starts the trial again from its checkpoint; not a mistake of a user."""


class Notice:
    """Remembers the first SIGTERM, for the trial to act on where it loses nothing; the second has its usual effect.

    Ray's workers have a handler of their own, which ends the process at once, in the middle of a step or of a
    checkpoint. Ray itself ends workers in other ways, and with SIGKILL those that outlive their node.

    States::

        notice.listen()    -> not given
        a first SIGTERM    -> given
        a second           -> the handler that was there before
    """

    def __init__(self) -> None:
        self.given = False

    def listen(self) -> None:
        """Take the place of the handler that is there; in a thread that may not set any, nothing happens."""
        if threading.current_thread() is threading.main_thread():
            self._usual = signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.given = True
        signal.signal(signal.SIGTERM, self._usual)
