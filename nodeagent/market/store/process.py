"""The process of a QuestDB, and its log.

A server is known by its command line (the class and the root folder), not by a file with a number in it: that
identity survives a supervisor killed between starting the server and writing anything down.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentfarm.process import Child

CPU_FIELDS: Final = slice(11, 13)
RSS_FIELD: Final = 21
"""Of /proc/PID/stat, counted from the state on: ticks in user and system mode, resident pages."""
MAIN_CLASS: Final = "io.questdb/io.questdb.ServerMain"


class ServerProcess(Child):
    """A running server, started by us or found."""

    @property
    def exit_code(self) -> int | None:
        """The exit status once gone; None while running, or when it was no child of ours."""
        return self.exited.result() if self.exited.done() else None

    @property
    def is_running(self) -> bool:
        """Whether this very process (not another with its number) is alive."""
        return not self.exited.done()

    def rss_bytes(self) -> int:
        """Resident memory; 0 once gone."""
        fields = _stat(self.pid) if self.is_running else ()
        return int(fields[RSS_FIELD]) * os.sysconf("SC_PAGE_SIZE") if fields else 0

    def cpu_s(self) -> float:
        """Processor time used so far; 0 once gone."""
        fields = _stat(self.pid) if self.is_running else ()
        return sum(int(ticks) for ticks in fields[CPU_FIELDS]) / os.sysconf("SC_CLK_TCK")


def find_servers(root: Path) -> list[ServerProcess]:
    """Every QuestDB of this user that runs on `root`."""
    servers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if MAIN_CLASS in words and str(root) in words and folder.stat().st_uid == os.geteuid():
                servers.append(ServerProcess(int(folder.name)))
    return servers


def _stat(pid: int) -> Sequence[bytes]:
    """The fields of /proc/PID/stat from the state on; none when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ()
    return stat[stat.rindex(b")") + 2 :].split()


def rotate_log(log: Path, max_bytes: int, files: int) -> bool:
    """Copy a grown log to `log.1` … and empty it. The server keeps writing to the same file, opened for appending, so
    lines written between copy and cut may be lost: the price of not restarting it."""
    if not log.exists() or log.stat().st_size <= max_bytes:
        return False
    for number in range(files - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    log.with_name(f"{log.name}.{files + 1}").unlink(missing_ok=True)
    return True


def log_tail(log: Path, max_bytes: int = 4096) -> str:
    """The end of a log, for an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - max_bytes))
        return file.read().decode(errors="replace")
