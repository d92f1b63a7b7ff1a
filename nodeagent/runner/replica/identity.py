"""Which process is which: a pid alone can be given to another one."""

from __future__ import annotations

from pathlib import Path


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names a process for ever. 0: none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])
