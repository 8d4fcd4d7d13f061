"""Reasons for a trial to move to another process, such as SIGTERM."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class TrialMovesError(Exception):
    """Signals Ray to restart the trial from its checkpoint; not a user error."""


class Notice:
    """Records the first SIGTERM, so that the trial can finish its epoch; the second one has its usual effect.

    The default handler of Ray's workers ends the process at once, even in the middle of a step or a checkpoint. Ray
    itself also ends workers in other ways, and uses SIGKILL for those that outlive their node.
    """

    def __init__(self) -> None:
        self.given = False

    def listen(self) -> None:
        """Replace the current handler; do nothing outside the main thread, which alone can set one."""
        if threading.current_thread() is threading.main_thread():
            self._usual = signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.given = True
        signal.signal(signal.SIGTERM, self._usual)
