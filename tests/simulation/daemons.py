"""The simulated node daemon: the shipped decisions of nodeagent/core on simulated sockets, processes, disk and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.outbox import Outbox, Row, Written
from nodeagent.core.problems import StartFailed
from nodeagent.core.roster import Roster
from nodeagent.core.seat import ProcessEnd, Seat
from nodeagent.core.session import Session
from nodeagent.runner.protocol.frames import FrameReader, Pong
from tests.simulation.agents import ReplicaProcess, kind_of
from tests.simulation.daemon_link import DaemonLink
from tests.simulation.seats import Connection

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

DISK_S = 0.002
PREPARE_S, SLOW_PREPARE_S = 0.02, 2.0
FORK_S = 0.02


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
    """The node daemon: the ground of its roster (`Ground` of nodeagent/core/roster.py) and the host of its session."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._reset()

    def _reset(self) -> None:
        self.roster = Roster(self, self, self.outgoing, OutboxDisk(self))
        self.workload = self.roster.workload
        services = self.machine.feed.services()
        self.session = Session(self, self.roster, self.outgoing, services, self, self._random.getrandbits(63))
        self._connections: dict[int, Connection] = {}
        self._worked_on: frozenset[int] = frozenset()
        self._lease_until_s = 0.0

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
        self._reset()
        machine = self.machine
        machine.feed.begin()
        self.outbox.restore(machine.disk.outbox.values())
        rollcall = self.roster.call_roll(lambda: self.after(0.01, self.connect))
        living = []
        for replica_id, (wanted, restarts, ended) in list(machine.disk.seats.items()):
            seat = self.roster.restore(wanted, restarts, ended)
            process = machine.processes.get(replica_id)
            if seat.presence is Presence.ENDED:
                continue
            if process is None:
                seat.begin()
                continue
            connection = self._connections[replica_id] = Connection(self, process)
            seat.adopt(connection)
            connection.open(0.001 + 0.01 * self._random.random())
            living.append(seat)
        strangers = [process for i, process in machine.processes.items() if i not in self.roster.seats]
        rollcall.begin(living, [Connection(self, process) for process in strangers])

    # -------------------------------------------------------------- what the session asks: see `Host`

    def introduction(self) -> wire.Hello:
        capacity = wire.Capacity(cpu_millicores=4000, memory_mib=self.machine.memory_mib)
        return wire.Hello(daemon_version="sim", capacity=capacity, measured=self.measured())

    def measured(self) -> wire.Measured:
        return wire.Measured(memory_available_mib=self.machine.memory_mib)

    def asked(self, kind: str, message: wire.ControllerMessage) -> None:
        """Nobody asks here."""

    def exclusive_stopped(self, attempts: int) -> None:
        """See `warn`."""

    # -------------------------------------------------------------- processes

    def heard_replica(self, process: ReplicaProcess, data: bytes) -> None:
        """Bytes of a replica."""
        seat, connection = self.roster.seats.get(process.replica_id), self._connections.get(process.replica_id)
        if seat is not None and connection is not None and connection.process is process:
            for kind, body in FrameReader().feed(data):
                self.roster.take_frame(seat, kind, body)

    def gone(self, process: ReplicaProcess, working_on: frozenset[int]) -> None:
        """The kernel says that a replica process has ended."""
        seat, connection = self.roster.seats.get(process.replica_id), self._connections.get(process.replica_id)
        if seat is None or connection is None or connection.process is not process:
            if self.roster.rollcall is not None:
                self.roster.rollcall.gone(0, process.pid)
            return
        del self._connections[process.replica_id]
        self._worked_on = working_on
        seat.gone(ProcessEnd(connection.was_killed, "it was killed by SIGKILL."))

    # -------------------------------------------------------------- what seats ask: see `Ground`

    def chance(self) -> float:
        return self._random.random()

    def prepare(self, seat: Seat) -> None:
        kind = kind_of(seat.desired.spec_json)
        wait_s = (SLOW_PREPARE_S if kind == "slow" else PREPARE_S) * (0.5 + self._random.random())
        wait_s += max(0.0, self.machine.zygote_back_at - self.world.now)
        if kind == "import_failed":
            self.after(wait_s, seat.not_started, StartFailed("import_failed", "Traceback: as scripted", is_final=True))
        elif kind == "environment_failed":
            self.after(wait_s, seat.not_started, StartFailed("environment_failed", "as scripted", is_final=True))
        else:
            self.after(wait_s, seat.prepared)

    def fork(self, seat: Seat) -> None:
        self.after(0.001, self._fork, seat)

    def _fork(self, seat: Seat) -> None:
        kind = kind_of(seat.desired.spec_json)
        process = self.machine.fork(seat.id, seat.spec)
        if seat.spec.exclusive:  # as nodeagent/replicas/zygotes.py does
            process.zygote_hears(self._lease_until_s)
        connection = self._connections[seat.id] = Connection(self, process)
        if kind == "crash_loop":
            process.after(0.05, process.die)
        elif kind != "never_ready":
            self.after(FORK_S, connection.open, 0.0)
        seat.runs(connection)

    def remember(self, seat: Seat) -> None:
        if not self.machine.disk.is_full:
            ended = None
            if seat.presence is Presence.ENDED:
                ended = wire.ReplicaStatus()
                ended.CopyFrom(seat.status)
            self.machine.disk.seats[seat.id] = (seat.desired, seat.status.restarts, ended)

    def clear(self, replica_id: int) -> None:
        self.machine.disk.seats.pop(replica_id, None)

    def working_on(self, seat: Seat) -> frozenset[int] | None:
        return self._worked_on

    def warn(self, seat: Seat, event: str, why: str) -> None:
        """Nobody reads a log here, nor what follows."""

    def changed(self, seat: Seat) -> None:
        """See `warn`."""

    def zygotes_hear(self, until_s: float, *, is_wanted: bool) -> None:
        self._lease_until_s = until_s
        for process in self.machine.processes.values() if is_wanted else ():
            process.zygote_hears(until_s)

    def rearranged(self) -> None:
        """See `warn`."""

    def ponged(self, seat: Seat, pong: Pong) -> None:
        """Nobody pings here."""

    def called(self, seat: Seat, kind: int, body: bytes) -> None:
        """Nobody calls the farm here."""
