"""Results on their way to the controller: kept until it has acknowledged them. Pure: clock and disk are arguments.

A result is always in two hands. The replica holds it until we say KEPT; we say so when it is on our disk, or when the
controller has it. So results are sent at once, without waiting for the disk, and one that is acknowledged within
moments (the usual case) is never written at all: a daemon that dies before it wrote gets the result again from the
replica, one whose replica dies has it in memory, and a machine that loses power in between has not reported the
task as done.

Many results are written in one commit. If the disk is full or broken, results stay in memory and writing is tried
again; nothing waits for it but KEPT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.clock import Clock, Timer

STORE_AFTER_S: Final = 0.05
"""A result that is not acknowledged after one to two of these is written to disk."""
RETRY_AFTER_S: Final = 1.0
RESULTS_MAX: Final = 100_000
"""Results in hand beyond which the node takes no new attempts. The controller's prefetch keeps it far from that."""

Row = tuple[int, int, bytes]
"""A stored result: token, replica id, serialized AttemptResult."""
OnKept = Callable[[Sequence[tuple[int, int]]], None]
"""Called with (token, replica id) of results that the replica need not hold any more."""


class Written(Enum):
    """How a commit ended."""

    DONE = "done"
    FAILED = "failed"
    """Nothing was changed."""
    LOST = "lost"
    """The file was damaged: what was stored before is not stored any more."""


class Disk(Protocol):
    """Where results survive the daemon."""

    def write(self, rows: list[Row], removed: list[int], done: Callable[[Written], None], /) -> None:
        """Begin one transaction, and call `done` later. The outbox begins no other before."""


@dataclass(slots=True)
class _Entry:
    result: wire.AttemptResult
    replica_id: int
    is_stored: bool = False


class Outbox:
    """Facts in: kept, acknowledged, written. It writes by `disk`, and says by `on_kept` what replicas may forget."""

    def __init__(self, clock: Clock, disk: Disk, on_kept: OnKept) -> None:
        self._clock = clock
        self._disk = disk
        self._on_kept = on_kept
        self._entries: dict[int, _Entry] = {}
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._removed: list[int] = []
        self._timer: Timer | None = None
        self._is_writing = False
        self._is_closed = False
        self._when_empty: list[Callable[[], object]] = []
        self.stored_total = 0
        self.acknowledged_total = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, token: int) -> bool:
        return token in self._entries

    def holds(self, token: int, replica_id: int) -> bool:
        """Whether a result of that replica is here under that token."""
        entry = self._entries.get(token)
        return entry is not None and entry.replica_id == replica_id

    @property
    def is_full(self) -> bool:
        """Whether no more attempts should be taken."""
        return len(self._entries) >= RESULTS_MAX

    @property
    def tokens(self) -> Iterable[int]:
        """Tokens of every result in hand."""
        return self._entries.keys()

    @property
    def results(self) -> list[wire.AttemptResult]:
        """Every result in hand: sent again on a new stream."""
        return [entry.result for entry in self._entries.values()]

    def restore(self, rows: Iterable[Row]) -> None:
        """What an earlier daemon wrote; before anything else."""
        for token, replica_id, data in rows:
            self._entries[token] = _Entry(wire.AttemptResult.FromString(data), replica_id, is_stored=True)

    def keep(self, results: Iterable[wire.AttemptResult], replica_id: int) -> None:
        """Take these in. One that is here from the same replica changes nothing. One from another replica, to which
        the token was never given, makes room."""
        entries = self._entries
        for result in results:
            token = result.fencing_token
            entry = entries.get(token)
            if entry is None or entry.replica_id != replica_id:
                entries[token] = _Entry(result, replica_id)
                self._young.add(token)
        if self._timer is None:
            self._arm(STORE_AFTER_S)

    def acknowledge(self, tokens: Iterable[int]) -> None:
        """The controller has these, or will never want them."""
        safe = []
        for token in tokens:
            entry = self._entries.pop(token, None)
            if entry is None:
                continue
            self.acknowledged_total += 1
            if entry.is_stored:
                self._removed.append(token)
            else:
                safe.append((token, entry.replica_id))
        if safe:
            self._on_kept(safe)
        if not self._entries and self._when_empty:
            self._tell_empty()
        if self._removed:
            self._arm(STORE_AFTER_S)

    def when_empty(self, call: Callable[[], object]) -> None:
        """Call this once, when the last result is acknowledged; at once where none waits."""
        self._when_empty.append(call)
        if not self._entries:
            self._tell_empty()

    def close(self) -> None:
        """Begin no other commit by itself; `flush` still does."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def flush(self) -> None:
        """Write everything that the disk does not know yet, now. Only while no commit is under way."""
        unstored = [token for token, entry in self._entries.items() if not entry.is_stored]
        if unstored or self._removed:
            self._write(unstored)

    def _tell_empty(self) -> None:
        calls, self._when_empty = self._when_empty, []
        for call in calls:
            call()

    def _arm(self, after_s: float) -> None:
        if self._timer is None and not self._is_writing and not self._is_closed:
            self._timer = self._clock.call_at(self._clock.time() + after_s, self._turn)

    def _turn(self) -> None:
        """What was young at the last turn and still waits gets written now; what came since has until the next."""
        self._timer = None
        due = {token for token in self._old if token in self._entries}
        self._old = {token for token in self._young if token in self._entries}
        self._young = set()
        if due or self._removed:
            self._old |= due
            self._write(due)
        elif self._old:
            self._arm(STORE_AFTER_S)

    def _write(self, due: Iterable[int]) -> None:
        rows = self._rows(due)
        removed, self._removed = self._removed, []
        self._is_writing = True
        self._disk.write(rows, removed, lambda written: self._written(rows, removed, written))

    def _rows(self, tokens: Iterable[int]) -> list[Row]:
        entries = self._entries
        return [(token, entries[token].replica_id, entries[token].result.SerializeToString()) for token in tokens]

    def _written(self, rows: list[Row], removed: list[int], written: Written) -> None:
        self._is_writing = False
        if written is Written.DONE:
            self._stored(rows)
        else:
            self._removed = removed + self._removed
            if written is Written.LOST:
                self._store_again()
        if self._old or self._young or self._removed:
            self._arm(STORE_AFTER_S if written is Written.DONE else RETRY_AFTER_S)

    def _stored(self, rows: list[Row]) -> None:
        self.stored_total += len(rows)
        safe = []
        for token, replica_id, _ in rows:
            self._old.discard(token)
            entry = self._entries.get(token)
            if entry is None:
                self._removed.append(token)  # acknowledged while it was being written
            else:
                entry.is_stored = True
                safe.append((token, replica_id))
        if safe:
            self._on_kept(safe)

    def _store_again(self) -> None:
        for token, entry in self._entries.items():
            if entry.is_stored:
                entry.is_stored = False
                self._young.add(token)
