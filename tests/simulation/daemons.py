"""The simulated node daemon, with its real decisions.

What it decides about attempts, results, lease and heartbeat is the shipped code of nodeagent/core. What is simulated is
the shell around it: sockets, processes, disk and time; and, in the manner of nodeagent/replicas, the lives of seats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.attempts import Ending
from nodeagent.core.desired import Presence, plan_seats
from nodeagent.core.outbox import Outbox, Row, Written
from nodeagent.core.workload import Workload
from nodeagent.runner.replica.frames import FrameReader, Kind, frame, read_tokens
from tests.simulation.agents import ReplicaProcess
from tests.simulation.daemon_link import DaemonLink
from tests.simulation.seats import Connection, Seat
from tests.simulation.world import Timer, cancel

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

EXCLUSIVE_KILL_WITHIN_S = 1.0
ADOPT_TIMEOUT_S = 3.0
DISK_S = 0.002


class OutboxDisk:
    """The `Disk` of an outbox: a commit takes its time, and dies with its daemon before or after it is durable."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def write(self, rows: list[Row], removed: list[int], done: Callable[[Written], None]) -> None:
        self._daemon.after(DISK_S, self._commit, rows, removed, done)

    def _commit(self, rows: list[Row], removed: list[int], done: Callable[[Written], None]) -> None:
        disk = self._daemon.machine.disk
        if disk.is_full:
            done(Written.FAILED)
            return
        disk.outbox.update({row[0]: row for row in rows})
        for token in removed:
            disk.outbox.pop(token, None)
        self._daemon.after(DISK_S, done, Written.DONE)


class Daemon(DaemonLink):
    """The node daemon."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._reset()

    def _reset(self) -> None:
        self.seats: dict[int, Seat] = {}
        self.workload = Workload(self, self.seats, self.outgoing, OutboxDisk(self))

    @property
    def outbox(self) -> Outbox:
        """Results that are not acknowledged yet."""
        return self.workload.outbox

    @property
    def in_hand(self) -> set[int]:
        """Tokens of attempts and of results: what a Hello names."""
        return {*self.workload.attempts.tokens, *self.outbox.tokens}

    # -------------------------------------------------------------- life

    def boot(self) -> None:
        """Start: read the disk, find the replicas that live, hear what they run, then connect."""
        self.begin()
        machine = self.machine
        self.epoch = self._random.getrandbits(63)
        self._reset()
        self.outbox.restore(machine.disk.outbox.values())
        self._generation = 0
        self._unheard: dict[int, ReplicaProcess] = {}
        for replica_id, (wanted, restarts, ended) in list(machine.disk.seats.items()):
            seat = self.seats[replica_id] = Seat(self, wanted)
            seat.status.restarts = restarts
            process = machine.processes.get(replica_id)
            if ended is not None:
                seat.status, seat.presence = ended, Presence.ENDED
            elif process is not None:
                self._unheard[replica_id] = process
                connection = seat.process = Connection(self, process)
                seat.status.pid = process.pid
                connection.open(0.001 + 0.01 * self._random.random())
            else:
                self._start(seat)
        for replica_id in [i for i in machine.processes if i not in self.seats]:
            machine.processes[replica_id].die()  # its folder says nothing of use
        self._adopted_timer: Timer | None = None
        if self._unheard:
            self._adopted_timer = self.after(ADOPT_TIMEOUT_S, self._adopted)
        else:
            self.after(0.01, self.connect)

    def _adopted(self) -> None:
        """All have spoken or are gone, or had their time. What must not go on unheard is ended before Hello."""
        cancel(self._adopted_timer)
        for process in self.not_to_go_on(list(self._unheard.values())):
            self.kill(self.seats[process.replica_id])
        self._unheard.clear()
        self.after(0.01, self.connect)

    def not_to_go_on(self, silent: list[ReplicaProcess]) -> list[ReplicaProcess]:
        """Those of exclusive work: what Hello does not name is given to others at once."""
        return [process for process in silent if process.is_exclusive]

    def _heard_from(self, replica_id: int) -> None:
        if self._unheard.pop(replica_id, None) is not None and not self._unheard:
            self._adopted()

    # -------------------------------------------------------------- what the link asks

    def hello(self) -> wire.Hello:
        """On a new stream, which has its own count of generations."""
        self._generation = 0
        return wire.Hello(
            protocol=1, daemon_version="sim", daemon_epoch=self.epoch,
            capacity=wire.Capacity(cpu_millicores=4000, memory_mib=self.machine.memory_mib),
            replicas=[seat.status for seat in self.seats.values()],
            running_tokens=list(self.workload.attempts.tokens), finished_tokens=list(self.outbox.tokens),
        )  # fmt: skip

    def waiting_results(self) -> list[wire.AttemptResult]:
        """All that the outbox holds."""
        return self.outbox.results

    def obey(self, kind: str, message: wire.ControllerMessage) -> None:
        """An order of the controller's."""
        if kind == "assign":
            self.workload.assign(message.assign.assignments)
        elif kind == "results_ack":
            self.outbox.acknowledge(message.results_ack.tokens)
        elif kind == "desired":
            self._apply(message.desired)
        elif kind == "cancel_attempts":
            self.workload.cancel(message.cancel_attempts.tokens, message.cancel_attempts.reason)
        elif kind == "recall_attempts":
            self.workload.recall(message.recall_attempts.tokens)

    def lease_is_over(self) -> None:
        """The replicas look at the lease themselves; one that is slow is helped."""
        self.workload.stop_exclusive(EXCLUSIVE_KILL_WITHIN_S)

    def lease_renewed(self, until_s: float) -> None:
        """Replicas hear it, and zygotes."""
        self.workload.lease_renewed(until_s)
        for process in self.machine.processes.values():
            process.zygote_hears(until_s)

    # -------------------------------------------------------------- what replicas say

    def heard_replica(self, process: ReplicaProcess, data: bytes) -> None:
        """Bytes of a replica."""
        seat = self._seat_of(process)
        if seat is None:
            return
        for kind, body in FrameReader().feed(data):
            if kind == Kind.RESULTS:
                self.workload.results(seat, body)
            elif kind == Kind.STARTED:
                self.workload.started(read_tokens(body))
            elif kind == Kind.HELLO:
                self.workload.found(seat, json.loads(body)["held"])
                self._ready(seat)
                self._heard_from(seat.id)

    def _seat_of(self, process: ReplicaProcess) -> Seat | None:
        seat = self.seats.get(process.replica_id)
        return seat if seat is not None and seat.process is not None and seat.process.process is process else None

    # -------------------------------------------------------------- seats

    def _apply(self, desired: wire.Desired) -> None:
        if desired.generation < self._generation:
            return
        self._generation = desired.generation
        plan = plan_seats(desired.replicas, {seat.id: seat.presence for seat in self.seats.values()})
        for wanted in plan.start:
            seat = self.seats[wanted.replica_id] = Seat(self, wanted)
            self.outgoing.report(seat.status)
            self._remember(seat)
            self._start(seat)
        for replica_id in plan.retire:
            seat = self.seats[replica_id]
            seat.presence = Presence.RETIRING
            if seat.process is not None:
                self._become(seat, wire.REPLICA_STATE_STOPPING)
            self.settle(seat)
        for replica_id in plan.stop:
            self.workload.end_all_of(replica_id, Ending.INTERRUPTED)
            self._stop(self.seats[replica_id])
        for replica_id in plan.forget:
            del self.seats[replica_id]
            self.machine.disk.seats.pop(replica_id, None)
        for replica_id in plan.report_stopped:
            self.outgoing.report(wire.ReplicaStatus(replica_id=replica_id, state=wire.REPLICA_STATE_STOPPED))

    def _remember(self, seat: Seat) -> None:
        if not self.machine.disk.is_full:
            ended = seat.status if seat.presence is Presence.ENDED else None
            self.machine.disk.seats[seat.id] = (seat.wanted, seat.status.restarts, ended)

    def _start(self, seat: Seat) -> None:
        """Prepare (bundle, environment, import) and fork, after the wait that crashes have earned."""
        kind = seat.kind
        wait_s = seat.crashes.wait_s(self._random.random())
        wait_s += (2.0 if kind == "slow" else 0.02) * (0.5 + self._random.random())
        wait_s += max(0.0, self.machine.zygote_back_at - self.world.now)
        self.after(wait_s, self._prepared, seat)

    def _prepared(self, seat: Seat) -> None:
        if seat.presence is not Presence.ACTIVE or seat.process is not None:
            if seat.process is None and seat.presence is not Presence.ENDED:
                self._end(seat, wire.REPLICA_STATE_STOPPED)
            return
        if seat.kind in ("import_failed", "environment_failed"):
            self._end(seat, wire.REPLICA_STATE_FAILED, seat.kind, "Traceback: as scripted")
            return
        process = self.machine.fork(seat.id, seat.spec)
        connection = seat.process = Connection(self, process)
        seat.status.pid = process.pid
        seat.was_killed = False
        if seat.kind == "crash_loop":
            process.after(0.05, process.die)
        elif seat.kind != "never_ready":
            self.after(0.02, connection.open, 0.0)

    def _ready(self, seat: Seat) -> None:
        seat.is_ready = True
        if seat.presence is Presence.ACTIVE:
            self._become(seat, wire.REPLICA_STATE_RUNNING)

    def settle(self, seat: Seat) -> None:
        if seat.presence is Presence.RETIRING and not self.workload.attempts.has_work(seat.id):
            self._stop(seat)

    def _stop(self, seat: Seat) -> None:
        if seat.presence in (Presence.ENDED, Presence.STOPPING):
            return
        seat.presence = Presence.STOPPING
        if seat.process is None:
            self._end(seat, wire.REPLICA_STATE_STOPPED)
            return
        self._become(seat, wire.REPLICA_STATE_STOPPING)
        seat.process.send(frame(Kind.STOP))
        seat.kill_timer = self.after(seat.spec.shutdown_timeout_s, self.kill, seat)

    def kill(self, seat: Seat) -> None:
        if seat.process is not None:
            seat.was_killed = True
            seat.process.process.die()

    def gone(self, process: ReplicaProcess, working_on: frozenset[int]) -> None:
        """A replica process has ended."""
        seat = self._seat_of(process)
        if seat is None:
            return
        self._heard_from(seat.id)
        cancel(seat.kill_timer)
        seat.process, seat.is_ready = None, False
        seat.status.pid = 0
        self.workload.gone(seat, working_on, was_ours=seat.was_killed, why="it was killed by SIGKILL")
        if seat.presence is not Presence.ACTIVE:
            self._end(seat, wire.REPLICA_STATE_STOPPED)
            return
        seat.status.restarts += 1
        if not seat.was_killed:
            seat.crashes = seat.crashes.add(self.world.now)
        if seat.crashes.is_loop():
            self._end(seat, wire.REPLICA_STATE_FAILED, "crash_loop", "It crashed again and again.")
            return
        self._become(seat, wire.REPLICA_STATE_STARTING, "crashed")
        self._start(seat)

    def _become(self, seat: Seat, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        seat.status.state, seat.status.reason, seat.status.detail = state, reason, detail
        self.outgoing.report(seat.status)

    def _end(self, seat: Seat, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        seat.presence = Presence.ENDED
        cancel(seat.kill_timer)
        seat.status.pid = 0
        self._become(seat, state, reason, detail)
        self._remember(seat)
