"""Sends the files and data sets of runs, after all else: parameters, metrics and ends never wait for an attachment.

A server may name an artifact store that this machine cannot use, and a proxy may refuse a large file. The courier
therefore notes attachments in its acknowledgement and goes on; this queue sends them when nothing else is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ladder_search.errors import TrackingError
from ladder_search.tracking.folder import Ack, Attachment
from ladder_search.tracking.protocol import EmptiedError, RejectedError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Wait after the first failure, doubled up to the longest."""
WAIT_FACTOR = 10.0
"""The wait is at least so many times as long as the failed attempt, during which no metric is sent."""

_log = logging.getLogger(__name__)


class AttachmentQueue:
    """The attachments that an acknowledgement lists as waiting.

    Each is sent once per life of the queue if the store refuses it, and repeatedly if the store cannot be reached.
    """

    def __init__(self, spool: Path, now: Callable[[], float]) -> None:
        self.failures = 0
        """Failed attempts since the last success, refusals not counted."""
        self._spool, self._now = spool, now
        self._due_at = 0.0
        self._refused: set[tuple[str, str]] = set()

    def add(self, ack: Ack, attachment: Attachment) -> None:
        """Append an attachment; one that waits for the same place in the same run is outdated and is dropped."""
        ack.waiting[:] = [other for other in ack.waiting if other.target != attachment.target]
        ack.waiting.append(attachment)
        self._refused.discard(attachment.target)

    def wait(self, ack: Ack) -> float | None:
        """Return the seconds until the next attempt; None when each attachment was sent, or refused in this life."""
        if self._next(ack) is None:
            return None
        return max(0.0, self._due_at - self._now())

    def send_next(self, ack: Ack, send: Callable[[Attachment], None]) -> bool:
        """Send one attachment if one is due; return whether the acknowledgement changed."""
        attachment = self._next(ack)
        if attachment is None or self._now() < self._due_at:
            return False
        if attachment.file and not (self._spool / attachment.file).exists():
            _log.warning("%s is no longer in the spool and is given up", attachment)
            ack.waiting.remove(attachment)
            ack.rejected += 1
            return True
        begun = self._now()
        try:
            send(attachment)
        except EmptiedError:
            raise
        except RejectedError as error:
            attachment.reason = str(error)
            self._refused.add(attachment.target)
            _log.info("%s was refused: %s", attachment, error)
        except TrackingError as error:
            attachment.reason = str(error)
            ack.waiting.remove(attachment)
            ack.waiting.append(attachment)  # another attachment may fare better
            self.failures += 1
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.failures - 1, 16))
            self._due_at = self._now() + max(wait, WAIT_FACTOR * (self._now() - begun))
        else:
            ack.waiting.remove(attachment)
            self.failures, self._due_at = 0, 0.0
        return True

    def _next(self, ack: Ack) -> Attachment | None:
        return next((each for each in ack.waiting if each.target not in self._refused), None)
