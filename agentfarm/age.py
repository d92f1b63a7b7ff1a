"""How old this process is, counted from its `exec`: what a start took before the first of our own lines ran too."""

from __future__ import annotations

import os
import time
from typing import Final

STARTED_FIELD: Final = 19
"""Of /proc/self/stat, counted from the state behind the name: ticks from the machine's boot to the process's start."""
_IMPORTED_AT: Final = time.monotonic()


def age_s() -> float:
    """Seconds since this process began, to a hundredth; where the kernel does not tell, since this module came in.

    A fork began when it was forked, and an `exec` begins nothing anew: it is the same process.
    """
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[STARTED_FIELD])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED_AT
