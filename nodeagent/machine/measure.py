"""What the machine says of itself, read from /proc: cheap enough for every heartbeat."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HERTZ: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Machine:
    """What it has."""

    cpu_millicores: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is used and free now."""

    memory_available_mib: int
    cpu_used_millicores: int
    disk_free_mib: int


def machine() -> Machine:
    """Its cores that we may use, and its memory."""
    return Machine(1000 * len(os.sched_getaffinity(0)), _meminfo()["MemTotal"] // 1024)


class LoadMeter:
    """Measures use since the last time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._busy_ticks, self._at_ticks = _cpu_ticks()
        self._cores = len(os.sched_getaffinity(0))

    def measure(self) -> Load:
        """Now. CPU is the mean since the last call."""
        busy, total = _cpu_ticks()
        share = (busy - self._busy_ticks) / max(1, total - self._at_ticks)
        self._busy_ticks, self._at_ticks = busy, total
        return Load(
            memory_available_mib=_meminfo()["MemAvailable"] // 1024,
            cpu_used_millicores=max(0, int(share * 1000 * (os.cpu_count() or self._cores))),
            disk_free_mib=_disk_free_mib(self._folder),
        )


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process uses. `private_mib`: memory that no other process shares; its end gives it back."""

    private_mib: float
    resident_mib: float
    cpu_s: float


def process_use(pid: int) -> ProcessUse | None:
    """None when there is no such process, or it is not ours to look at."""
    try:
        sums = dict(_sizes(Path(f"/proc/{pid}/smaps_rollup").read_text()))
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    private = sums.get("Private_Clean", 0) + sums.get("Private_Dirty", 0)
    return ProcessUse(private / 1024, sums.get("Rss", 0) / 1024, (int(fields[11]) + int(fields[12])) / _HERTZ)


def _meminfo() -> dict[str, int]:
    """KiB by name."""
    return dict(_sizes(Path("/proc/meminfo").read_text()))


def _sizes(text: str) -> list[tuple[str, int]]:
    rows = (line.split() for line in text.splitlines())
    return [(row[0].rstrip(":"), int(row[1])) for row in rows if len(row) == 3 and row[2] == "kB"]


def _cpu_ticks() -> tuple[int, int]:
    """Busy and all ticks of all cores since boot."""
    with open("/proc/stat", "rb") as file:
        ticks = [int(text) for text in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _disk_free_mib(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free // 2**20
    except OSError:
        return 0
