"""Simulated machines: power, disk, processes, and the node daemon with its real decisions.

What the daemon decides is the real code: the table of attempts and what is reported of each (nodeagent/attempts.py),
the comparison of wanted and present replicas (nodeagent/desired.py), restarts (nodeagent/restarts.py). What is
simulated is the shell around them (nodeagent/supervisor.py, seat.py, outbox.py, outgoing.py, link.py, lease.py):
sockets, processes, disk and time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agentfarm.wire import link_pb2 as wire
from nodeagent.attempts import Attempt, Attempts, Ending, interrupted, report, report_gone
from nodeagent.desired import Presence, plan_seats
from nodeagent.replica.frames import Result, Run
from nodeagent.restarts import Crashes
from tests.simulation.agents import AgentSpec, ReplicaProcess, Step
from tests.simulation.checkers import Checkers
from tests.simulation.controllers import Controller
from tests.simulation.network import Network, Stream
from tests.simulation.world import Process, Timer, World, cancel

WELCOME_TIMEOUT_S = 10.0
UNANSWERED_INTERVALS_MAX = 5
UNPROVEN = -1e9
EXCLUSIVE_KILL_WITHIN_S = 1.0
STORE_AFTER_S = 0.04
STORE_RETRY_S = 1.0
ENDINGS = {
    wire.CANCEL_REASON_REQUESTED: Ending.CANCELLED,
    wire.CANCEL_REASON_STALE: Ending.STALE,
    wire.CANCEL_REASON_MOVED: Ending.INTERRUPTED,
}


@dataclass(slots=True)
class Disk:
    """What survives the daemon and the power: stored results, and what each seat was asked to be."""

    outbox: dict[int, tuple[wire.AttemptResult, int]] = field(default_factory=dict)
    seats: dict[int, tuple[wire.DesiredReplica, int, wire.ReplicaStatus | None]] = field(default_factory=dict)
    is_full: bool = False


class Machine:
    """One microserver."""

    def __init__(
        self, world: World, name: str, memory_mib: int, network: Network, controllers: list[Controller],
        checks: Checkers,
    ) -> None:  # fmt: skip
        self.world = world
        self.name = name
        self.memory_mib = memory_mib
        self.network = network
        self.controllers = controllers
        self.checks = checks
        self.random: random.Random = world.chance(f"machine {name}")
        self.disk = Disk()
        self.processes: dict[int, ReplicaProcess] = {}
        self.scripts: dict[int, list[Step]] = {}
        self.daemon = Daemon(self)
        self.has_power = False
        self.zygote_back_at = 0.0
        self._pids = 1_000

    def boot(self) -> None:
        """Power on; the daemon is started by the system."""
        if not self.has_power:
            self.has_power = True
            self.daemon.boot()

    def cut_power(self) -> None:
        """Everything on it is gone at once, and nobody is told."""
        if not self.has_power:
            return
        self.has_power = False
        self.daemon.end()
        self.daemon.stream = None
        self.network.vanish(self.name, "down")
        for process in list(self.processes.values()):
            process.die()

    def kill_daemon(self) -> None:
        """SIGKILL: replicas live on; the kernel closes the stream."""
        if self.daemon.is_alive:
            self.daemon.end()
            if self.daemon.stream is not None:
                self.daemon.stream.close("down")
            self.daemon.stream = None

    def start_daemon(self) -> None:
        """The system starts it again."""
        if self.has_power and not self.daemon.is_alive:
            self.daemon.boot()

    def fork(self, replica_id: int, spec: AgentSpec) -> ReplicaProcess:
        """A new replica process."""
        self._pids += 1
        process = self.processes[replica_id] = ReplicaProcess(self, replica_id, spec, self._pids)
        return process

    def to_daemon(self, process: ReplicaProcess, kind: str, what: list[Any]) -> None:
        """What a replica says over its socket. With no daemon at the other end it is said again to the next."""
        daemon = self.daemon
        if daemon.is_alive:
            daemon.after(0.0002, daemon.heard, process, kind, what)

    def process_gone(self, process: ReplicaProcess, working_on: frozenset[int]) -> None:
        """The kernel tells the daemon, if there is one."""
        if self.processes.get(process.replica_id) is process:
            del self.processes[process.replica_id]
        if self.daemon.is_alive:
            self.daemon.after(0.001, self.daemon.gone, process, working_on)


class Seat:
    """One replica as its daemon knows it."""

    __slots__ = (
        "crashes", "id", "is_ready", "kill_timer", "presence", "process", "spec", "status", "wanted",
        "was_killed",
    )  # fmt: skip

    def __init__(self, wanted: wire.DesiredReplica) -> None:
        self.wanted = wanted
        self.id: int = wanted.replica_id
        self.spec = AgentSpec.read(wanted.spec_json)
        self.status = wire.ReplicaStatus(replica_id=self.id, state=wire.REPLICA_STATE_STARTING)
        self.presence = Presence.ACTIVE
        self.process: ReplicaProcess | None = None
        self.is_ready = False
        self.was_killed = False
        self.crashes = Crashes()
        self.kill_timer: Timer | None = None

    @property
    def takes_work(self) -> bool:
        return self.process is not None and self.is_ready and self.presence is not Presence.STOPPING


class Daemon(Process):
    """The node daemon."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.world)
        self.machine = machine
        self.stream: Stream | None = None
        self.seats: dict[int, Seat] = {}
        self.attempts = Attempts()
        self.outbox: dict[int, tuple[wire.AttemptResult, int]] = {}
        self._random = machine.random
        self._next_controller = 0

    # -------------------------------------------------------------- life

    def boot(self) -> None:
        """Start: read the disk, find the replicas that live, hear what they run, then connect."""
        self.begin()
        machine = self.machine
        self.epoch = self._random.getrandbits(63)
        self.stream = None
        self.seats, self.attempts = {}, Attempts()
        self.outbox = dict(machine.disk.outbox)
        self._unstored: set[int] = set()
        self._store_timer: Timer | None = None
        self._sweep_at: float | None = None
        self._proven_at = UNPROVEN  # whatever an earlier daemon knew of the lease, its replicas know too
        self._lease_timer: Timer | None = None
        self._stop_after_s = 6.0
        self._generation = 0
        self._seq = 0
        self._beats: dict[int, float] = {}  # the one that waits for its answer
        self._beat_interval_s = 0.0
        self._is_welcomed = False
        self._failures = 0
        self._reports: dict[int, wire.ReplicaStatus] = {}
        self._started: list[int] = []
        self._results: list[wire.AttemptResult] = []
        self._is_drain_due = False
        waits = False
        for replica_id, (wanted, restarts, ended) in list(machine.disk.seats.items()):
            seat = self.seats[replica_id] = Seat(wanted)
            seat.status.restarts = restarts
            process = machine.processes.get(replica_id)
            if ended is not None:
                seat.status, seat.presence = ended, Presence.ENDED
            elif process is not None:
                seat.process, waits = process, True
                seat.status.pid = process.pid
                self.after(0.001 + 0.01 * self._random.random(), self._reached, seat, process)
            else:
                self._start(seat)
        for replica_id in [i for i in machine.processes if i not in self.seats]:
            machine.processes[replica_id].die()  # its folder says nothing of use
        self.after(0.05 if waits else 0.01, self._connect)

    def _reached(self, seat: Seat, process: ReplicaProcess) -> None:
        """The replica answers a new daemon: what it has in hand, and every result that nobody keeps."""
        if not process.is_alive or seat.process is not process:
            return
        held, results = process.snapshot()
        for token, task_id, is_started in held:
            if token not in self.attempts:
                self.attempts.add(Attempt(token, task_id, seat.id, seat.spec.run_timeout_s, seat.spec.is_exclusive))
            if is_started:
                _, due_at = self.attempts.start([token], self.world.now)
                self._sweep_by(due_at)
        self._ready(seat)
        if results:
            self.heard(process, "results", results)

    # -------------------------------------------------------------- the stream

    def _connect(self) -> None:
        controllers = self.machine.controllers
        controller = controllers[self._next_controller % len(controllers)]
        self._next_controller += 1
        network, name = self.machine.network, self.machine.name
        if network.is_blocked(name, "up") or network.is_blocked(name, "down"):
            self.after(WELCOME_TIMEOUT_S, self._again)
            return
        if not controller.is_alive:
            self.after(0.001, self._again)
            return
        stream = self.stream = network.open(name, self, controller)
        self._is_welcomed = False
        self._generation = 0
        self._hello_at = self.world.now
        hello = wire.Hello(
            protocol=1, daemon_version="sim", daemon_epoch=self.epoch,
            capacity=wire.Capacity(cpu_millicores=4000, memory_mib=self.machine.memory_mib),
            replicas=[_copy(seat.status) for seat in self.seats.values()],
            running_tokens=list(self.attempts.tokens), finished_tokens=list(self.outbox),
        )  # fmt: skip
        self._reports.clear()
        self._started.clear()
        self._results = [result for result, _ in self.outbox.values()]
        stream.send_up((name, hello))
        self._tell()
        self.after(WELCOME_TIMEOUT_S, self._unwelcome, stream)

    def _unwelcome(self, stream: Stream) -> None:
        if self.stream is stream and not self._is_welcomed:
            self._give_up()

    def _again(self) -> None:
        self._failures += 1
        wait_s = min(1.0, 0.1 * 2 ** min(self._failures, 10))
        self.after(wait_s * (0.5 + self._random.random() / 2), self._connect)

    def _give_up(self) -> None:
        if self.stream is not None:
            self.stream.close("down")
        self._lost()

    def _lost(self) -> None:
        self.stream = None
        self._reports.clear()
        self._started.clear()
        self._results.clear()
        self._again()

    def broken(self, stream: Stream) -> None:
        """The stream is gone."""
        self.soon(self._broken, stream)

    def _broken(self, stream: Stream) -> None:
        if self.stream is stream:
            self._lost()

    def heard_controller(self, stream: Stream, message: wire.ControllerMessage) -> None:
        """A message; what comes on another stream than the present one is ignored."""
        if self.stream is not stream:
            return
        kind = message.WhichOneof("body")
        if kind == "beat_ack":
            self._acknowledged(message.beat_ack.seq)
        elif kind == "assign":
            self._assign(message.assign.assignments)
        elif kind == "results_ack":
            self._results_kept(message.results_ack.tokens)
        elif kind == "desired":
            self._apply(message.desired)
        elif kind == "cancel_attempts":
            cancels = message.cancel_attempts
            self._end_attempts(list(cancels.tokens), ENDINGS.get(cancels.reason, Ending.CANCELLED))
        elif kind == "welcome":
            self._welcomed(message.welcome)

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self._is_welcomed = True
        self._failures = 0
        self._stop_after_s = welcome.stop_exclusive_after_ms / 1000
        self._beats.clear()
        self._proven(self._hello_at)
        self._beat(self.stream, welcome.beat_interval_ms / 1000)
        self._tell()

    def _beat(self, stream: Stream | None, interval_s: float) -> None:
        """The next goes when this one was answered."""
        if self.stream is not stream or stream is None:
            return
        self._seq += 1
        self._beat_interval_s = interval_s
        self._beats[self._seq] = self.world.now
        stream.send_up(wire.Beat(seq=self._seq))
        self.after(UNANSWERED_INTERVALS_MAX * interval_s, self._unanswered, stream, self._seq)

    def _unanswered(self, stream: Stream, seq: int) -> None:
        if self.stream is stream and seq in self._beats:
            self._give_up()

    def _acknowledged(self, seq: int) -> None:
        sent_at = self._beats.pop(seq, None)
        if sent_at is not None:
            self._proven(sent_at)
            due_s = max(0.0, sent_at + self._beat_interval_s - self.world.now)
            self.after(due_s, self._beat, self.stream, self._beat_interval_s)

    def _tell(self) -> None:
        """Send what waits, soon: many facts, few messages."""
        if not self._is_drain_due and self.stream is not None:
            self._is_drain_due = True
            self.after(0.0001, self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        if self.stream is None or not self._is_welcomed:
            return
        if self._reports:
            self.stream.send_up(wire.ReplicaReport(replicas=list(self._reports.values())))
            self._reports.clear()
        if self._started:
            self.stream.send_up(wire.AttemptsStarted(tokens=self._started))
            self._started = []
        if self._results:
            self.stream.send_up(wire.AttemptResults(results=self._results))
            self._results = []

    def _report(self, status: wire.ReplicaStatus) -> None:
        if self.stream is not None:
            self._reports.pop(status.replica_id, None)
            self._reports[status.replica_id] = _copy(status)
            self._tell()

    # -------------------------------------------------------------- the lease

    def _proven(self, sent_at: float) -> None:
        self._proven_at = max(self._proven_at, sent_at)
        until = self._proven_at + self._stop_after_s
        for process in self.machine.processes.values():
            process.lease_holds_until(until)
        if self._lease_timer is None:
            self._lease_timer = self.after(max(0.0, until - self.world.now), self._look_at_lease)

    def _look_at_lease(self) -> None:
        self._lease_timer = None
        until = self._proven_at + self._stop_after_s
        if self.world.now < until - 1e-9:
            self._lease_timer = self.after(until - self.world.now, self._look_at_lease)
        elif self.attempts.exclusive:
            self._end_attempts(list(self.attempts.exclusive), Ending.INTERRUPTED, within_s=EXCLUSIVE_KILL_WITHIN_S)

    # -------------------------------------------------------------- attempts

    def _assign(self, assignments: Iterable[wire.Assignment]) -> None:
        runs: dict[int, list[Run]] = {}
        refused = []
        for item in assignments:
            token, replica_id = item.fencing_token, item.replica_id
            if token in self.attempts or token in self.outbox:
                continue
            seat = self.seats.get(replica_id)
            if seat is None or not seat.takes_work:
                refused.append(interrupted(item.task_id, token, "The replica takes no work now."))
                continue
            self.attempts.add(Attempt(token, item.task_id, replica_id, item.run_timeout_ms / 1000, item.exclusive))
            runs.setdefault(replica_id, []).append(Run(item.task_id, item.attempt, token, item.thread_id, item.input))
        for replica_id, batch in runs.items():
            process = self.seats[replica_id].process
            assert process is not None
            process.after(0.0002, process.take, batch)
        if refused:
            self._deliver(refused, 0)

    def _end_attempts(self, tokens: list[int], ending: Ending, *, within_s: float | None = None) -> None:
        cancels: dict[int, list[int]] = {}
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is None:
                continue
            grace_s = self.seats[attempt.replica_id].spec.shutdown_s
            kill_at = self.world.now + (grace_s if within_s is None else min(grace_s, within_s))
            if self.attempts.end([token], ending, kill_at):
                cancels.setdefault(attempt.replica_id, []).append(token)
                self._sweep_by(kill_at)
        for replica_id, named in cancels.items():
            process = self.seats[replica_id].process
            if process is not None:
                process.after(0.0002, process.cancel, named)

    def _sweep_by(self, moment: float | None) -> None:
        if moment is not None and (self._sweep_at is None or moment < self._sweep_at):
            self._sweep_at = moment
            self.after(max(0.0, moment - self.world.now), self._sweep, moment)

    def _sweep(self, moment: float) -> None:
        if self._sweep_at != moment:
            return
        self._sweep_at = None
        sweep = self.attempts.sweep(self.world.now)
        for replica_id in sweep.replicas_to_kill:
            seat = self.seats[replica_id]
            for attempt in self.attempts.of(replica_id):
                if attempt.kill_at is not None:
                    attempt.kill_at += seat.spec.shutdown_s + 1.0
            self._kill(seat)
        if sweep.timed_out:
            self._end_attempts([attempt.token for attempt in sweep.timed_out], Ending.TIMED_OUT)
        self._sweep_by(sweep.next_at)

    def heard(self, source: Any, what: Any, payload: Any = None) -> None:
        """A message of the controller's (stream, message), or a replica's (process, kind, what)."""
        if isinstance(source, Stream):
            self.soon(self.heard_controller, source, what)
            return
        seat = self.seats.get(source.replica_id)
        if seat is None or seat.process is not source:
            return
        if what == "results":
            self._replica_results(seat, payload)
        elif what == "started":
            fresh, due_at = self.attempts.start(payload, self.world.now)
            self._sweep_by(due_at)
            if fresh and self.stream is not None:
                self._started.extend(fresh)
                self._tell()

    def _replica_results(self, seat: Seat, results: list[Result]) -> None:
        told, unheard = [], []
        for result in results:
            attempt = self.attempts.remove(result.token)
            if attempt is None:
                if result.token in self.outbox:
                    continue
                attempt = Attempt(result.token, result.task_id, seat.id, 0.0, is_exclusive=False)
            answer = report(attempt, result)
            if answer is None:
                unheard.append(result.token)
            else:
                told.append(answer)
        if told:
            self._deliver(told, seat.id)
        if unheard:
            self._kept([(token, seat.id) for token in unheard])
        self._settle(seat)

    # -------------------------------------------------------------- the outbox

    def _deliver(self, results: list[wire.AttemptResult], replica_id: int) -> None:
        for result in results:
            token = result.fencing_token
            if token not in self.outbox:
                self.outbox[token] = (result, replica_id)
                self._unstored.add(token)
        self._store_by(STORE_AFTER_S)
        if self.stream is not None:
            self._results.extend(results)
            self._tell()

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
        self._kept(kept)

    def _results_kept(self, tokens: Iterable[int]) -> None:
        kept = []
        for token in tokens:
            entry = self.outbox.pop(token, None)
            if entry is not None:
                kept.append((token, entry[1]))
                self._unstored.discard(token)
        self._kept(kept)
        self._store_by(STORE_AFTER_S)

    def _kept(self, pairs: list[tuple[int, int]]) -> None:
        by_replica: dict[int, list[int]] = {}
        for token, replica_id in pairs:
            by_replica.setdefault(replica_id, []).append(token)
        for replica_id, tokens in by_replica.items():
            process = self.machine.processes.get(replica_id)
            if process is not None:
                process.after(0.0002, process.kept, tokens)

    # -------------------------------------------------------------- seats

    def _apply(self, desired: wire.Desired) -> None:
        if desired.generation < self._generation:
            return
        self._generation = desired.generation
        plan = plan_seats(desired.replicas, {seat.id: seat.presence for seat in self.seats.values()})
        for wanted in plan.start:
            seat = self.seats[wanted.replica_id] = Seat(wanted)
            self._report(seat.status)
            self._remember(seat)
            self._start(seat)
        for replica_id in plan.retire:
            seat = self.seats[replica_id]
            seat.presence = Presence.RETIRING
            if seat.process is not None:
                self._become(seat, wire.REPLICA_STATE_STOPPING)
            self._settle(seat)
        for replica_id in plan.stop:
            self.attempts.end(
                [attempt.token for attempt in self.attempts.of(replica_id)], Ending.INTERRUPTED,
                self.world.now + self.seats[replica_id].spec.shutdown_s,
            )  # fmt: skip
            self._stop(self.seats[replica_id])
        for replica_id in plan.forget:
            del self.seats[replica_id]
            self.machine.disk.seats.pop(replica_id, None)
        for replica_id in plan.report_stopped:
            self._report(wire.ReplicaStatus(replica_id=replica_id, state=wire.REPLICA_STATE_STOPPED))

    def _remember(self, seat: Seat) -> None:
        if not self.machine.disk.is_full:
            ended = seat.status if seat.presence is Presence.ENDED else None
            self.machine.disk.seats[seat.id] = (seat.wanted, seat.status.restarts, ended)

    def _start(self, seat: Seat) -> None:
        """Prepare (bundle, environment, import) and fork, after the wait that crashes have earned."""
        kind = seat.spec.kind
        wait_s = seat.crashes.wait_s(self._random.random())
        wait_s += (2.0 if kind == "slow" else 0.02) * (0.5 + self._random.random())
        wait_s += max(0.0, self.machine.zygote_back_at - self.world.now)
        self.after(wait_s, self._prepared, seat)

    def _prepared(self, seat: Seat) -> None:
        if seat.presence is not Presence.ACTIVE or seat.process is not None:
            if seat.process is None and seat.presence is not Presence.ENDED:
                self._end(seat, wire.REPLICA_STATE_STOPPED)
            return
        if seat.spec.kind in ("import_failed", "environment_failed"):
            self._end(seat, wire.REPLICA_STATE_FAILED, seat.spec.kind, "Traceback: as scripted")
            return
        process = seat.process = self.machine.fork(seat.id, seat.spec)
        seat.status.pid = process.pid
        seat.was_killed = False
        if seat.spec.kind == "crash_loop":
            process.after(0.05, process.die)
        elif seat.spec.kind != "never_ready":
            self.after(0.02, self._forked, seat, process)

    def _forked(self, seat: Seat, process: ReplicaProcess) -> None:
        if process.is_alive and seat.process is process:
            self._ready(seat)

    def _ready(self, seat: Seat) -> None:
        seat.is_ready = True
        if seat.process is not None:
            seat.process.lease_holds_until(self._proven_at + self._stop_after_s)
        if seat.presence is Presence.ACTIVE:
            self._become(seat, wire.REPLICA_STATE_RUNNING)

    def _settle(self, seat: Seat) -> None:
        if seat.presence is Presence.RETIRING and not self.attempts.has_work(seat.id):
            self._stop(seat)

    def _stop(self, seat: Seat) -> None:
        if seat.presence in (Presence.ENDED, Presence.STOPPING):
            return
        seat.presence = Presence.STOPPING
        if seat.process is None:
            self._end(seat, wire.REPLICA_STATE_STOPPED)
            return
        self._become(seat, wire.REPLICA_STATE_STOPPING)
        seat.process.after(0.0002, seat.process.shut_down)
        seat.kill_timer = self.after(seat.spec.shutdown_s, self._kill, seat)

    def _kill(self, seat: Seat) -> None:
        if seat.process is not None:
            seat.was_killed = True
            seat.process.die()

    def gone(self, process: ReplicaProcess, working_on: frozenset[int]) -> None:
        """A replica process has ended."""
        seat = self.seats.get(process.replica_id)
        if seat is None or seat.process is not process:
            return
        cancel(seat.kill_timer)
        seat.process, seat.is_ready = None, False
        seat.status.pid = 0
        attempts = self.attempts.of(seat.id)
        if attempts:
            was_ours = seat.was_killed or seat.presence is Presence.STOPPING
            results = report_gone(attempts, working_on, was_ours=was_ours, why="The replica died.")
            for attempt in attempts:
                self.attempts.remove(attempt.token)
            self._deliver(results, seat.id)
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
        self._report(seat.status)

    def _end(self, seat: Seat, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        seat.presence = Presence.ENDED
        cancel(seat.kill_timer)
        seat.status.pid = 0
        self._become(seat, state, reason, detail)
        self._remember(seat)


def _copy(status: wire.ReplicaStatus) -> wire.ReplicaStatus:
    made = wire.ReplicaStatus()
    made.CopyFrom(status)
    return made
