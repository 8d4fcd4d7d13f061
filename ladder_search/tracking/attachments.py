"""Sends files and data sets of runs after everything else.

A server may name an artifact store that this machine cannot use, and a proxy may refuse a large file. Therefore the
courier lists attachments in its acknowledgement, and this queue sends them when nothing else is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ladder_search.errors import TrackingError
from ladder_search.tracking.folder import Ack, Attachment
from ladder_search.tracking.protocol import EmptiedError, RejectedError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Seconds to wait after the first failure, doubled up to the maximum."""
WAIT_FACTOR = 10.0
"""Minimum wait as a multiple of the duration of the failed attempt, during which no metric is sent."""

_log = logging.getLogger(__name__)


class AttachmentQueue:
    """The waiting attachments of an acknowledgement.

    A refused attachment is retried by the next queue only; one that failed because the store was unreachable is retried
    until it is sent.

    States::

        begin(ack)          -> all listed attachments are to be sent
        add(ack, …)         -> one more is listed, and is to be sent
        send_next(ack, …)   -> one is stored, or is listed with a reason
        wait()              -> None: nothing is to be sent
    """

    def __init__(self, spool: Path, now: Callable[[], float]) -> None:
        self.failures = 0
        self.last_error: str | None = None
        self._spool, self._now = spool, now
        self._due_at = 0.0
        self._unsent: dict[str, None] = {}

    def begin(self, ack: Ack) -> None:
        self.failures, self._due_at = 0, 0.0
        self._unsent = dict.fromkeys(ack.waiting)

    def add(self, ack: Ack, attachment: Attachment) -> None:
        """Add an attachment; it replaces a waiting one with the same target."""
        for listing in (ack.waiting, self._unsent):
            listing.pop(attachment.target, None)
        ack.waiting[attachment.target] = attachment
        self._unsent[attachment.target] = None

    def wait(self) -> float | None:
        """Return the seconds until the next attempt; None if nothing is to be sent."""
        return max(0.0, self._due_at - self._now()) if self._unsent else None

    def send_next(self, ack: Ack, send: Callable[[Attachment], None]) -> bool:
        """Send one attachment if one is due; return whether the acknowledgement changed."""
        target = next(iter(self._unsent), None)
        if target is None or self._now() < self._due_at:
            return False
        attachment = ack.waiting[target]
        if attachment.file and not (self._spool / attachment.file).exists():
            _log.warning("%s is no longer in the spool and is dropped", attachment)
            del ack.waiting[target], self._unsent[target]
            ack.rejected += 1
            return True
        start = self._now()
        try:
            send(attachment)
        except EmptiedError:
            raise
        except RejectedError as error:
            attachment.reason = str(error)
            del self._unsent[target]
            _log.info("%s was refused: %s", attachment, error)
        except TrackingError as error:
            attachment.reason = self.last_error = str(error)
            del self._unsent[target]
            self._unsent[target] = None  # at the end, as others may succeed
            self.failures += 1
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.failures - 1, 16))
            self._due_at = self._now() + max(wait, WAIT_FACTOR * (self._now() - start))
        else:
            del ack.waiting[target], self._unsent[target]
            self.failures, self._due_at, self.last_error = 0, 0.0, None
        return True
