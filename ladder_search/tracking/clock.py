"""Time for records, which never steps even if the system clock is changed."""

from __future__ import annotations

import time

# Unlike the monotonic clock, this one includes a laptop's sleep; not every system has it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OFFSET = time.time() - time.clock_gettime(_CLOCK)


def steady_time() -> float:
    """Return seconds since 1970, based on the system clock at the start of the process."""
    return _OFFSET + time.clock_gettime(_CLOCK)
