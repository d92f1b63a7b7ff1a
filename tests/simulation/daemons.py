"""The simulated node daemon, with its real decisions.

What it decides is the real code: the table of attempts and what is reported of each (nodeagent/core/attempts.py), the
comparison of wanted and present replicas (nodeagent/core/desired.py), restarts (nodeagent/core/restarts.py). What is
simulated is the shell around them (supervisor, workload and seat of nodeagent/replicas, nodeagent/link/outbox.py):
sockets, processes, disk and time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from agentfarm.wire import link_pb2 as wire
from nodeagent.core.attempts import Attempt, Attempts, Ending, interrupted, report, report_gone
from nodeagent.core.desired import Presence, plan_seats
from nodeagent.runner.replica.frames import Result, Run
from tests.simulation.agents import ReplicaProcess
from tests.simulation.daemon_link import copy_of
from tests.simulation.daemon_outbox import DaemonOutbox
from tests.simulation.seats import Seat
from tests.simulation.world import Timer, cancel

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

EXCLUSIVE_KILL_WITHIN_S = 1.0
ADOPT_TIMEOUT_S = 3.0
ENDINGS = {
    wire.CANCEL_REASON_REQUESTED: Ending.CANCELLED,
    wire.CANCEL_REASON_STALE: Ending.STALE,
    wire.CANCEL_REASON_MOVED: Ending.INTERRUPTED,
}


class Daemon(DaemonOutbox):
    """The node daemon."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.seats: dict[int, Seat] = {}
        self.attempts = Attempts()

    # -------------------------------------------------------------- life

    def boot(self) -> None:
        """Start: read the disk, find the replicas that live, hear what they run, then connect."""
        self.begin()
        machine = self.machine
        self.epoch = self._random.getrandbits(63)
        self.seats, self.attempts = {}, Attempts()
        self.open_outbox()
        self._sweep_at: float | None = None
        self._generation = 0
        self._unheard: dict[int, ReplicaProcess] = {}
        for replica_id, (wanted, restarts, ended) in list(machine.disk.seats.items()):
            seat = self.seats[replica_id] = Seat(wanted)
            seat.status.restarts = restarts
            process = machine.processes.get(replica_id)
            if ended is not None:
                seat.status, seat.presence = ended, Presence.ENDED
            elif process is not None:
                seat.process = self._unheard[replica_id] = process
                seat.status.pid = process.pid
                process.after(0.001 + 0.01 * self._random.random(), process.answer, self, self.life)
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
            self._kill(self.seats[process.replica_id])
        self._unheard.clear()
        self.after(0.01, self.connect)

    def not_to_go_on(self, silent: list[ReplicaProcess]) -> list[ReplicaProcess]:
        """Those of exclusive work: what Hello does not name is given to others at once."""
        return [process for process in silent if process.spec.is_exclusive]

    def _heard_from(self, replica_id: int) -> None:
        if self._unheard.pop(replica_id, None) is not None and not self._unheard:
            self._adopted()

    def reached(self, process: ReplicaProcess) -> None:
        """The replica answers a new daemon: what it has in hand, and every result that nobody keeps."""
        seat = self.seats.get(process.replica_id)
        if seat is None or not process.is_alive or seat.process is not process:
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
            self.heard_replica(process, "results", results)
        self._heard_from(seat.id)

    # -------------------------------------------------------------- what the link asks

    def hello(self) -> wire.Hello:
        """On a new stream, which has its own count of generations."""
        self._generation = 0
        return wire.Hello(
            protocol=1, daemon_version="sim", daemon_epoch=self.epoch,
            capacity=wire.Capacity(cpu_millicores=4000, memory_mib=self.machine.memory_mib),
            replicas=[copy_of(seat.status) for seat in self.seats.values()],
            running_tokens=list(self.attempts.tokens), finished_tokens=list(self.outbox),
        )  # fmt: skip

    def obey(self, kind: str, message: wire.ControllerMessage) -> None:
        """An order of the controller's."""
        if kind == "assign":
            self._assign(message.assign.assignments)
        elif kind == "results_ack":
            self.acknowledged(message.results_ack.tokens)
        elif kind == "desired":
            self._apply(message.desired)
        elif kind == "cancel_attempts":
            cancels = message.cancel_attempts
            self._end_attempts(list(cancels.tokens), ENDINGS.get(cancels.reason, Ending.CANCELLED))
        elif kind == "recall_attempts":
            self._recall(message.recall_attempts.tokens)

    def _recall(self, tokens: Iterable[int]) -> None:
        wanted: dict[int, list[int]] = {}
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is not None and attempt.is_waiting:
                wanted.setdefault(attempt.replica_id, []).append(token)
        for replica_id, named in wanted.items():
            process = self.seats[replica_id].process
            if process is not None:
                process.after(0.0002, process.recall, named)

    def lease_is_over(self) -> None:
        """The replicas look at the lease themselves; one that is slow is helped."""
        if self.attempts.exclusive:
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
            self.deliver(refused, 0)

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

    def heard_replica(self, process: ReplicaProcess, what: str, payload: list[Any]) -> None:
        """A message of a replica over its socket."""
        seat = self.seats.get(process.replica_id)
        if seat is None or seat.process is not process:
            return
        if what == "results":
            self._replica_results(seat, payload)
        elif what == "started":
            fresh, due_at = self.attempts.start(payload, self.world.now)
            self._sweep_by(due_at)
            if fresh and self.stream is not None:
                self._started.extend(fresh)
                self.tell()

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
            self.deliver(told, seat.id)
        if unheard:
            self.kept([(token, seat.id) for token in unheard])
        self._settle(seat)

    # -------------------------------------------------------------- seats

    def _apply(self, desired: wire.Desired) -> None:
        if desired.generation < self._generation:
            return
        self._generation = desired.generation
        plan = plan_seats(desired.replicas, {seat.id: seat.presence for seat in self.seats.values()})
        for wanted in plan.start:
            seat = self.seats[wanted.replica_id] = Seat(wanted)
            self.report_replica(seat.status)
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
            self.report_replica(wire.ReplicaStatus(replica_id=replica_id, state=wire.REPLICA_STATE_STOPPED))

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
            seat.process.lease_holds_until(self.lease_until)
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
        self._heard_from(seat.id)
        cancel(seat.kill_timer)
        seat.process, seat.is_ready = None, False
        seat.status.pid = 0
        attempts = self.attempts.of(seat.id)
        if attempts:
            was_ours = seat.was_killed or seat.presence is Presence.STOPPING
            results = report_gone(attempts, working_on, was_ours=was_ours, why="The replica died.")
            for attempt in attempts:
                self.attempts.remove(attempt.token)
            self.deliver(results, seat.id)
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
        self.report_replica(seat.status)

    def _end(self, seat: Seat, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        seat.presence = Presence.ENDED
        cancel(seat.kill_timer)
        seat.status.pid = 0
        self._become(seat, state, reason, detail)
        self._remember(seat)
