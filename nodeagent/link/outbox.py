"""Results on their way to the controller: kept until it has acknowledged them.

A result is always in two hands. The replica holds it until we say KEPT; we say so when it is on our disk, or when the
controller has it. So results are sent at once, without waiting for the disk, and one that is acknowledged within
moments (the usual case) is never written at all: a daemon that dies before it wrote gets the result again from the
replica, one whose replica dies has it in memory, and a machine that loses power in between had told nobody that the
task was done.

Writing happens on a thread of its own, many results in one commit. If the disk is full or broken, results stay in
memory and writing is tried again; nothing waits for it but KEPT.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentfarm.wire import link_pb2 as wire
from nodeagent.link.database import OutboxFile
from nodeagent.machine.logging import log

STORE_AFTER_S: Final = 0.05
"""A result that is not acknowledged after one to two of these is written to disk."""
RETRY_AFTER_S: Final = 1.0
RESULTS_MAX: Final = 100_000
"""Results in hand beyond which the node takes no new attempts. The controller's prefetch keeps it far from that."""

Kept = Callable[[Sequence[tuple[int, int]]], None]
"""Told (token, replica id) of results that the replica need not hold any more."""


@dataclass(slots=True)
class _Entry:
    result: wire.AttemptResult
    replica_id: int
    is_stored: bool = False


class Outbox:
    """On the event loop; `start` before use."""

    def __init__(self, path: Path, on_kept: Kept) -> None:
        self._file = OutboxFile(path)
        self._path = path
        self._on_kept = on_kept
        self._entries: dict[int, _Entry] = {}
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._removed: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.problem = ""
        """Why results cannot be written now; empty while they can."""
        self.emptied = asyncio.Event()
        """Set when the last result was acknowledged."""
        self.stored_total = 0
        self.acknowledged_total = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, token: int) -> bool:
        return token in self._entries

    @property
    def is_full(self) -> bool:
        """Whether no more attempts should be taken."""
        return len(self._entries) >= RESULTS_MAX

    @property
    def tokens(self) -> Iterable[int]:
        """Of every result that waits here."""
        return self._entries.keys()

    @property
    def results(self) -> list[wire.AttemptResult]:
        """Every result that waits here, oldest first."""
        return [entry.result for entry in self._entries.values()]

    async def start(self) -> None:
        """Read what an earlier daemon left. A damaged file never keeps us from starting, nor does a full disk."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._file.open)
        except sqlite3.Error as problem:
            self._failed(problem)
            return
        if self._file.set_aside is not None:
            log.error("outbox.damaged", path=str(self._path), set_aside=str(self._file.set_aside),
                      consequence="results not yet acknowledged may be lost; their tasks will run again")  # fmt: skip
        for token, replica_id, data in rows:
            self._entries[token] = _Entry(wire.AttemptResult.FromString(data), replica_id, is_stored=True)
        if rows:
            log.info("outbox.recovered", results=len(rows))

    async def stop(self) -> None:
        """Write everything that waits, and close. Safe twice, and unstarted."""
        if self._thread is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        self._old |= self._young
        self._young = set()
        await self._write()
        thread, self._thread = self._thread, None
        await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
        thread.shutdown()

    def keep(self, results: Iterable[wire.AttemptResult], replica_id: int) -> None:
        """Take these in. A result of a token that is here already changes nothing."""
        for result in results:
            token = result.fencing_token
            if token not in self._entries:
                self._entries[token] = _Entry(result, replica_id)
                self._young.add(token)
        self.emptied.clear()
        self._arm(STORE_AFTER_S)

    def acknowledge(self, tokens: Iterable[int]) -> None:
        """The controller has these, or will never want them."""
        kept = []
        for token in tokens:
            entry = self._entries.pop(token, None)
            if entry is None:
                continue
            self.acknowledged_total += 1
            if entry.is_stored:
                self._removed.append(token)
            else:
                kept.append((token, entry.replica_id))
        if kept:
            self._on_kept(kept)
        if not self._entries:
            self.emptied.set()
        if self._removed:
            self._arm(STORE_AFTER_S)

    def _arm(self, after_s: float) -> None:
        if self._timer is None and self._writing is None and self._thread is not None:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._turn)

    def _turn(self) -> None:
        """What was young at the last turn and still waits gets written now; what came since has until the next."""
        self._timer = None
        due, self._old, self._young = self._old, self._young, set()
        self._old = {token for token in self._old if token in self._entries}
        due = {token for token in due if token in self._entries}
        if due or self._removed:
            self._old |= due
            self._writing = asyncio.get_running_loop().create_task(self._written(due))
        elif self._old:
            self._arm(STORE_AFTER_S)

    async def _written(self, due: set[int]) -> None:
        ok = await self._write(due)
        self._writing = None
        if self._old or self._young or self._removed:
            self._arm(STORE_AFTER_S if ok else RETRY_AFTER_S)

    async def _write(self, due: set[int] | None = None) -> bool:
        tokens = [token for token in (self._old if due is None else due) if token in self._entries]
        removed, self._removed = self._removed, []
        if not tokens and not removed:
            return True
        rows = [
            (token, entry.replica_id, entry.result.SerializeToString())
            for token in tokens
            for entry in (self._entries[token],)
        ]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.commit, rows, removed)
        except sqlite3.Error as problem:
            self._removed = removed + self._removed
            self._failed(problem)
            return False
        self._stored(rows)
        return True

    def _stored(self, rows: list[tuple[int, int, bytes]]) -> None:
        if self.problem:
            log.info("outbox.healed", results=len(self._entries))
            self.problem = ""
        self.stored_total += len(rows)
        kept = []
        for token, replica_id, _ in rows:
            self._old.discard(token)
            entry = self._entries.get(token)
            if entry is None:
                self._removed.append(token)  # acknowledged while it was being written
            else:
                entry.is_stored = True
                kept.append((token, replica_id))
        if kept:
            self._on_kept(kept)

    def _failed(self, problem: sqlite3.Error) -> None:
        text = str(problem)
        if text != self.problem:
            log.error("outbox.not_written", path=str(self._path), problem=text, results=len(self._entries),
                      remedy="make room on the disk; results stay in memory until then")  # fmt: skip
        self.problem = text
        if isinstance(problem, sqlite3.DatabaseError) and not isinstance(problem, sqlite3.OperationalError):
            self._file.close()  # damaged while in use: the next commit opens it anew, setting it aside
            for token, entry in self._entries.items():
                if entry.is_stored:
                    entry.is_stored = False
                    self._young.add(token)
