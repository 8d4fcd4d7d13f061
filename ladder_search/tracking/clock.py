"""The time that is written into records: it never steps, whatever is done to the machine's clock."""

from __future__ import annotations

import time

# Unlike the monotonic clock this one counts a laptop's sleep, too; not every system has it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OFFSET = time.time() - time.clock_gettime(_CLOCK)


def steady_time() -> float:
    """Return seconds since 1970 as this process knew them at its start, plus what has passed since."""
    return _OFFSET + time.clock_gettime(_CLOCK)
