"""The node's side of the stream to its controller: what it says first, what it obeys, what proves it alive. Pure.

`nodeagent/link/stream.py` carries the messages over gRPC. A simulated network can carry them as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from agentfarm.backoff import backoff_s
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.clock import Clock
from nodeagent.core.lease import Heartbeat, Lease
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.roster import Roster

PROTOCOL: Final = 1
WELCOME_TIMEOUT_S: Final = 10.0
BEAT_INTERVAL_MIN_S: Final = 0.05
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 1.0
REFUSED_BACKOFF_S: Final = 10.0
EXCLUSIVE_KILL_WITHIN_S: Final = 1.0


class Services(Protocol):
    """What the node runs beside replicas. `nodeagent/services/registry.py` says more of each call."""

    def hello(self) -> Iterable[wire.ServiceHello]: ...
    def new_stream(self) -> None: ...
    def reports(self) -> Iterable[wire.ServiceReport]: ...
    def obey(self, desired: Iterable[wire.ServiceDesired], /) -> None: ...


class Host(Protocol):
    """What the session needs of the daemon around it."""

    def introduction(self) -> wire.Hello:
        """What the machine is. The session adds what the node has in hand."""
        ...

    def measured(self) -> wire.Measured: ...
    def asked(self, kind: str, message: wire.ControllerMessage) -> None:
        """The controller sends something that is no order: a question. Kinds that are not known are left alone."""

    def exclusive_stopped(self, attempts: int) -> None:
        """The lease is over: so many exclusive attempts are being ended."""


class Session:
    """One for the daemon's life; its streams come one after another."""

    def __init__(
        self, clock: Clock, roster: Roster, outgoing: Outgoing, services: Services, host: Host, epoch: int
    ) -> None:
        self.streams_total = 0
        self.has_services = True
        """Whether the controller speaks of services by name; one of 0.1 does not. 0.3.0 removes this."""
        self._clock = clock
        self._roster = roster
        self._workload = roster.workload
        self._outgoing = outgoing
        self._services = services
        self._host = host
        self._epoch = epoch
        self._lease = Lease(clock, self._lease_is_over)
        self._heartbeat = Heartbeat(clock, self._beat, self._proven)
        self._hello_at = 0.0
        self._failures = 0

    @property
    def round_trip_s(self) -> float:
        """Of the last heartbeat."""
        return self._heartbeat.round_trip_s

    # -------------------------------------------------------------- one stream

    def hello(self) -> wire.Hello:
        """The first message of a stream; it must leave now. It says what the node holds, and what happens from now on
        waits for the stream, so nothing falls between."""
        self._hello_at = self._clock.time()
        hello = self._host.introduction()
        hello.protocol, hello.daemon_epoch = PROTOCOL, self._epoch
        hello.replicas.extend(seat.status for seat in self._roster.seats.values())
        hello.running_tokens.extend(self._workload.attempts.tokens)
        hello.finished_tokens.extend(self._workload.outbox.tokens)
        hello.services.extend(self._services.hello())
        hello.has_services = True
        self._outgoing.open(self._workload.outbox.results)
        return hello

    def welcomed(self, welcome: wire.Welcome, on_silence: Callable[[float], None]) -> None:
        """The controller answers the Hello. `on_silence` says that the stream is dead: see `Heartbeat.start`."""
        self.streams_total += 1
        self.has_services = welcome.has_services
        self._lease.granted(self._hello_at, welcome.stop_exclusive_after_ms / 1000)
        self._roster.new_stream()
        self._services.new_stream()
        self._roster.lease_renewed(self._lease.until_s)
        self._heartbeat.start(max(BEAT_INTERVAL_MIN_S, welcome.beat_interval_ms / 1000), on_silence)

    def take(self, message: wire.ControllerMessage) -> None:
        """Any later message of the controller."""
        kind = message.WhichOneof("body")
        if kind == "assign":
            self._workload.assign(message.assign.assignments)
        elif kind == "results_ack":
            self._workload.outbox.acknowledge(message.results_ack.tokens)
        elif kind == "beat_ack":
            self._heartbeat.answered(message.beat_ack.seq)
        elif kind == "desired":
            if self._roster.apply(message.desired):
                self._services.obey(message.desired.services)
        elif kind == "cancel_attempts":
            self._workload.cancel(message.cancel_attempts.tokens, message.cancel_attempts.reason)
        elif kind == "recall_attempts":
            self._workload.recall(message.recall_attempts.tokens)
        elif kind is not None and kind != "welcome":
            self._host.asked(kind, message)

    def ended(self) -> None:
        """The stream is gone, whatever ended it. Safe twice, and before Welcome."""
        self._heartbeat.stop()
        self._outgoing.close()

    def retry_s(self, began: float, chance: float, *, is_refused: bool = False) -> float:
        """How long to wait before the next stream: less after one that worked. began: when the last one was tried.
        chance: uniform in [0, 1)."""
        if self._clock.time() - began > BACKOFF_MAX_S:
            self._failures = 0
        self._failures += 1
        if is_refused:
            return backoff_s(1, REFUSED_BACKOFF_S, REFUSED_BACKOFF_S, chance)
        return backoff_s(self._failures, BACKOFF_MIN_S, BACKOFF_MAX_S, chance)

    def close(self) -> None:
        """No stream follows, so the lease is not watched any more."""
        self._lease.stop()

    # -------------------------------------------------------------- time

    def _beat(self, seq: int) -> None:
        self._outgoing.beat(wire.Beat(seq=seq, measured=self._host.measured(), services=self._services.reports()))

    def _proven(self, sent_at: float) -> None:
        self._lease.proven(sent_at)
        self._roster.lease_renewed(self._lease.until_s)

    def _lease_is_over(self) -> None:
        """Replicas look at the lease themselves; a slow one is helped."""
        if attempts := self._workload.stop_exclusive(EXCLUSIVE_KILL_WITHIN_S):
            self._host.exclusive_stopped(attempts)
