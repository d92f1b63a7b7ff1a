"""A file of what we started, so that the start after a `kill -9` can end what was left, and nothing else.

A process is ours only if its id, its start time and its command are those written down: ids are used again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from farmctl.dev.folder import read_json, write_json

TERMINATE_WITHIN_S: Final = 20.0
GRACE_S: Final = 1.0
_PR_SET_CHILD_SUBREAPER: Final = 36
_SAME_START_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """One process, and what distinguishes it from a later one with the same id."""

    pid: int
    started_at: float
    command: tuple[str, ...]
    is_root: bool
    """We started it directly. It is asked to stop first, because it ends its own children in order."""


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies (Linux), so that we can always see them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(pids: Iterable[int]) -> None:
    """Collect dead children that we adopted; those in `pids` have an owner who waits for them."""
    owned = set(pids)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.pid not in owned and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def write_down(path: Path, roots: Iterable[int]) -> None:
    """Save every living descendant of this process."""
    root_ids = set(roots)
    records = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            command = tuple(process.cmdline())
            if command:  # a zombie has none
                records.append(Record(process.pid, process.create_time(), command, process.pid in root_ids))
    write_json(path, [asdict(record) for record in records])


def end_leftovers(path: Path, say: Callable[[str], None]) -> int:
    """End what an earlier run wrote down and what still lives of it. Returns how many there were."""
    records = _read(path)
    roots = [root for record in records if record.is_root and (root := find(record))]
    below = [child for root in roots for child in _children(root)]
    others = [other for record in records if not record.is_root and (other := find(record))]
    left = list({process.pid: process for process in (*roots, *below, *others)}.values())
    if left:
        say(f"An earlier farm here was killed and left {len(left)} processes: ending them.")
        end(roots, TERMINATE_WITHIN_S)
        end([process for process in left if is_alive(process)], TERMINATE_WITHIN_S)
    path.unlink(missing_ok=True)
    return len(left)


def end_descendants(pids: Iterable[int]) -> list[str]:
    """End every descendant of this process that is left. Returns their commands, for a report."""
    reap(pids)
    left = [process for process in psutil.Process().children(recursive=True) if is_alive(process)]
    _, left = psutil.wait_procs(left, GRACE_S)  # one that was just asked to end may need a moment
    commands = [_command(process) for process in left]
    end(left, TERMINATE_WITHIN_S / 4)
    reap(pids)
    return commands


def find(record: Record) -> psutil.Process | None:
    """The recorded process if it is still this very one."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(record.pid)
        is_same = (
            abs(process.create_time() - record.started_at) < _SAME_START_S
            and tuple(process.cmdline()) == record.command
            and is_alive(process)
        )
        return process if is_same else None
    return None


def end(processes: list[psutil.Process], deadline_s: float) -> None:
    """SIGTERM, then SIGKILL for those that are left at the deadline."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, processes = psutil.wait_procs(processes, deadline_s)
        if not processes:
            return


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return f"process {process.pid}"


def _read(path: Path) -> list[Record]:
    entries = read_json(path)
    records = []
    for entry in entries if isinstance(entries, list) else []:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            records.append(
                Record(int(entry["pid"]), float(entry["started_at"]), tuple(entry["command"]), bool(entry["is_root"]))
            )
    return records
