"""All replicas of this node: what should be here and what is, what each says, and their attempts. Pure.

It owns seats and workload and passes facts between them. The shell around it reads sockets, folders and processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, Protocol

from agentfarm.errors import InvalidRequest
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.attempts import Ending
from nodeagent.core.clock import Clock
from nodeagent.core.desired import plan_seats
from nodeagent.core.outbox import Disk
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.rollcall import Rollcall
from nodeagent.core.seat import Machine, ProcessEnd, Seat
from nodeagent.core.workload import Workload
from nodeagent.runner.protocol.frames import Kind, Pong, read_output, read_pong, read_tokens

CALLS: Final = frozenset((Kind.AGENT_CALL, Kind.CHECKPOINT_PUT, Kind.CHECKPOINT_GET))
"""Frames of attempts that call the farm; the last two are of replicas of 0.1."""


class Ground(Machine, Protocol):
    """What the node's replicas need of the machine."""

    def clear(self, replica_id: int) -> None:
        """Remove everything that was kept of a replica."""

    def working_on(self, seat: Seat) -> frozenset[int] | None:
        """What a replica that died worked on at its end; None when that cannot be known."""
        ...

    def changed(self, seat: Seat) -> None:
        """The state of a replica is another; the controller hears it by other means."""

    def zygotes_hear(self, until_s: float, *, is_wanted: bool) -> None:
        """Exclusive attempts may run until then. is_wanted: there are such replicas."""

    def rearranged(self) -> None:
        """Other replicas are here than before: what none needs can be removed after a while."""

    def ponged(self, seat: Seat, pong: Pong) -> None:
        """A replica has answered a ping."""

    def called(self, seat: Seat, kind: int, body: bytes) -> None:
        """An attempt calls the farm."""


class Roster:
    """The `House` of its seats."""

    def __init__(self, clock: Clock, ground: Ground, outgoing: Outgoing, disk: Disk) -> None:
        self.seats: dict[int, Seat] = {}
        self.workload = Workload(clock, self.seats, outgoing, disk)
        self.rollcall: Rollcall | None = None
        self._clock = clock
        self._ground = ground
        self._outgoing = outgoing
        self._generation = 0
        self._takes_lists = True

    # -------------------------------------------------------------- from an earlier daemon

    def restore(self, desired: wire.DesiredReplica, restarts: int, ended: wire.ReplicaStatus | None) -> Seat:
        """A seat that an earlier daemon wrote down, not yet living. Raises InvalidRequest."""
        seat = Seat(desired, self._clock, self._ground, self)
        seat.status.restarts = restarts
        if ended is not None:
            seat.end_as(ended)
        self.seats[seat.id] = seat
        return seat

    def call_roll(self, done: Callable[[], object]) -> Rollcall:
        """Wait until it is known of each replica that lives what it has in hand. The caller begins it."""
        self.rollcall = Rollcall(self._clock, done)
        return self.rollcall

    # -------------------------------------------------------------- orders of the controller

    def new_stream(self) -> None:
        """A new stream has its own count of generations."""
        self._generation = 0

    def apply(self, desired: wire.Desired) -> bool:
        """Make the node's replicas those of the list.

        Returns whether the list counts: not when it is older than one that was obeyed, nor after `close`.
        """
        if not self._takes_lists or desired.generation < self._generation:
            return False
        self._generation = desired.generation
        plan = plan_seats(desired.replicas, {seat.id: seat.presence for seat in self.seats.values()})
        for desired_replica in plan.start:
            self._begin(desired_replica)
        for replica_id in plan.retire:
            self.seats[replica_id].retire()
        for replica_id in plan.stop:
            self.workload.end_all_of(replica_id, Ending.INTERRUPTED)
            self.seats[replica_id].stop()
        for replica_id in plan.forget:
            del self.seats[replica_id]
            self.workload.attempts.forget_replica(replica_id)
            self._ground.clear(replica_id)
        for replica_id in plan.report_stopped:
            self._outgoing.report(wire.ReplicaStatus(replica_id=replica_id, state=wire.REPLICA_STATE_STOPPED))
        if not plan.is_empty:
            self._ground.rearranged()
        return True

    def close(self) -> None:
        """Replicas are ended for good: no list starts another."""
        self._takes_lists = False

    def lease_renewed(self, until_s: float) -> None:
        """Exclusive attempts may run until then. All who can end them hear it, because each of the others may be
        dead."""
        self.workload.lease_renewed(until_s)
        is_wanted = any(seat.spec.exclusive for seat in self.seats.values())
        self._ground.zygotes_hear(until_s, is_wanted=is_wanted)

    def _begin(self, desired: wire.DesiredReplica) -> None:
        own = wire.DesiredReplica()
        own.CopyFrom(desired)
        try:
            seat = Seat(own, self._clock, self._ground, self)
        except InvalidRequest as problem:
            self._outgoing.report(
                wire.ReplicaStatus(
                    replica_id=desired.replica_id, state=wire.REPLICA_STATE_FAILED, reason="bundle_failed",
                    detail=str(problem),
                )
            )  # fmt: skip
            return
        self._ground.clear(seat.id)
        self.seats[seat.id] = seat
        self._outgoing.report(seat.status)
        seat.begin()

    # -------------------------------------------------------------- what replicas say

    def take_frame(self, seat: Seat, kind: int, body: bytes) -> None:
        """A frame of a replica. Kinds that are not known are left alone."""
        if kind == Kind.RESULTS:
            self.workload.results(seat, body)
        elif kind == Kind.STARTED:
            self.workload.started(seat, read_tokens(body))
        elif kind == Kind.OUTPUT:
            self.workload.output(seat, read_output(body))
        elif kind == Kind.PONG:
            pong = read_pong(body)
            self.workload.started(seat, pong.running)
            self._ground.ponged(seat, pong)
        elif kind == Kind.HELLO:
            self._hello(seat, body)
        elif kind in CALLS:
            self._ground.called(seat, kind, body)

    def _hello(self, seat: Seat, body: bytes) -> None:
        """A replica is ready; after a restart of the daemon it says what it has in hand."""
        about = json.loads(body)
        self.workload.adopt(seat, about["held"])
        seat.hello(int(about["ready_ms"]))
        if self.rollcall is not None:
            self.rollcall.answered(seat.id)

    # -------------------------------------------------------------- what seats ask: see `House`

    def changed(self, seat: Seat) -> None:
        self._ground.changed(seat)
        self._outgoing.report(seat.status)

    def has_work(self, seat: Seat) -> bool:
        return self.workload.attempts.has_work(seat.id)

    def gone(self, seat: Seat, pid: int, end: ProcessEnd) -> None:
        working_on = self._ground.working_on(seat) if self.has_work(seat) else None
        self.workload.gone(seat, working_on, was_ours=end.was_ours, why=end.why)
        if self.rollcall is not None:
            self.rollcall.gone(seat.id, pid)
