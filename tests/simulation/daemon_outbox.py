"""A simulated daemon's results that are not acknowledged yet: in memory at once, on disk soon, in the manner of
nodeagent/core/outbox.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentfarm.wire import link_pb2 as wire
from tests.simulation.daemon_link import DaemonLink
from tests.simulation.world import Timer

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

STORE_AFTER_S = 0.04
STORE_RETRY_S = 1.0


class DaemonOutbox(DaemonLink):
    """The outbox of a daemon, on the disk of its machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.outbox: dict[int, tuple[wire.AttemptResult, int]] = {}

    def open_outbox(self) -> None:
        """In a new life: what is on disk."""
        self.outbox = dict(self.machine.disk.outbox)
        self._unstored: set[int] = set()
        self._store_timer: Timer | None = None

    def waiting_results(self) -> list[wire.AttemptResult]:
        """All of it."""
        return [result for result, _ in self.outbox.values()]

    def deliver(self, results: list[wire.AttemptResult], replica_id: int) -> None:
        """Keep them, and tell them if there is a stream."""
        for result in results:
            token = result.fencing_token
            if token not in self.outbox:
                self.outbox[token] = (result, replica_id)
                self._unstored.add(token)
        self._store_by(STORE_AFTER_S)
        if self.stream is not None:
            self._results.extend(results)
            self.tell()

    def _store_by(self, delay_s: float) -> None:
        if self._store_timer is None:
            self._store_timer = self.after(delay_s, self._store)

    def _store(self) -> None:
        self._store_timer = None
        disk = self.machine.disk
        if disk.is_full:
            self._store_by(STORE_RETRY_S)
            return
        kept = []
        for token in self._unstored:
            if token in self.outbox:
                disk.outbox[token] = self.outbox[token]
                kept.append((token, self.outbox[token][1]))
        self._unstored.clear()
        for token in [token for token in disk.outbox if token not in self.outbox]:
            del disk.outbox[token]
        self.kept(kept)

    def acknowledged(self, tokens: Iterable[int]) -> None:
        """The controller has stored these."""
        kept = []
        for token in tokens:
            entry = self.outbox.pop(token, None)
            if entry is not None:
                kept.append((token, entry[1]))
                self._unstored.discard(token)
        self.kept(kept)
        self._store_by(STORE_AFTER_S)

    def kept(self, pairs: list[tuple[int, int]]) -> None:
        """(token, replica) of results that the replicas may forget."""
        by_replica: dict[int, list[int]] = {}
        for token, replica_id in pairs:
            by_replica.setdefault(replica_id, []).append(token)
        for replica_id, tokens in by_replica.items():
            process = self.machine.processes.get(replica_id)
            if process is not None:
                process.after(0.0002, process.kept, tokens)
