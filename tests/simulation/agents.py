"""What simulated agents do: scripts in tasks' inputs, and replica processes that follow them.

A replica process lives on when its daemon dies. What it decides is the shipped code of nodeagent/runner; the process,
its socket, its event loop and what the agent does are simulated. It records every execution, for the checkers'
independent eye.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agentfarm.agents.view import SpecView
from nodeagent.runner.protocol.frames import FrameReader, Kind, Outcome, Result, Run, frame_results, frame_tokens
from nodeagent.runner.protocol.launch import Launch
from nodeagent.runner.replica.control import CHORES_EVERY_S
from nodeagent.runner.replica.lease import ReplicaLease, Verdict
from nodeagent.runner.replica.ledger import Ledger
from nodeagent.runner.replica.orders import announcement, obey
from nodeagent.runner.replica.queue import Queue
from nodeagent.runner.replica.reporter import STARTED_AFTER_S
from nodeagent.runner.zygote.guard import GUARD_AFTER_S, LOOK_EVERY_S, LeaseGuard
from tests.simulation.world import Process, Timer, cancel

if TYPE_CHECKING:
    from tests.simulation.machines import Machine

SOCKET_S = 0.0002


class Step(NamedTuple):
    """What one attempt does. does: ok, fail, reject, crash or hang."""

    does: str
    after_s: float
    is_stubborn: bool = False  # does not end when it is cancelled


def script_of(data: bytes) -> list[Step]:
    """A task's input."""
    return [Step(*step) for step in json.loads(data)["steps"]]


class AgentSpec(NamedTuple):
    """What matters of a version. `kind` is known to simulated nodes alone; the rest is an agent spec as any other."""

    kind: str = "good"  # or import_failed, environment_failed, crash_loop, never_ready, slow
    concurrency: int = 1
    is_exclusive: bool = False
    shutdown_s: float = 2.0
    run_timeout_s: float = 6.0

    def text(self) -> str:
        """As the controller stores it."""
        timeouts = {"run_s": self.run_timeout_s, "shutdown_s": self.shutdown_s}
        spec = {"name": "agent", "concurrency": self.concurrency, "exclusive": self.is_exclusive, "timeouts": timeouts}
        return json.dumps({**spec, "kind": self.kind})


def kind_of(spec_json: str) -> str:
    """What a simulated node does with a version."""
    kind: str = json.loads(spec_json)["kind"]
    return kind


@dataclass(slots=True)
class Execution:
    """One attempt as a replica lived through it."""

    token: int
    task_id: int
    attempt: int
    replica_id: int
    pid: int
    machine: str
    began_at: float
    ended_at: float | None = None
    does: str = ""
    output: bytes | None = None  # set when it succeeded
    is_crash: bool = False
    timer: Timer | None = None


class Loop:
    """The `Orders` of a simulated replica: its event loop obeys at once."""

    def __init__(self, process: ReplicaProcess) -> None:
        self.run = process.run
        self.cancel = process.cancel
        self.stop = process.shut_down

    def probe(self) -> None:
        """Nobody pings here."""

    def answer(self, body: bytes) -> None:
        """Nobody calls the farm here."""

    def connected(self) -> None:
        """As `answer`."""


class ReplicaProcess(Process):
    """One process on a machine: the shipped ledger, queue, lease and orders, around agents that follow scripts."""

    def __init__(self, machine: Machine, replica_id: int, spec: SpecView, pid: int) -> None:
        super().__init__(machine.world)
        self.machine = machine
        self.replica_id = replica_id
        self.pid = pid
        self.launch = Launch(
            replica_id, spec.name, seat=1, version=1, node=machine.name, folder="", bundle="",
            concurrency=spec.concurrency, is_exclusive=spec.exclusive,
        )  # fmt: skip
        self.has_zygote = True
        self._random = machine.random
        self._ledger = Ledger()
        self._lease = ReplicaLease(spec.exclusive)
        self._queue = Queue(self._ledger, self._lease, spec.concurrency, self.time, self._report)
        self._running: dict[int, Execution] = {}
        self._cancelled: set[int] = set()
        self._loop = Loop(self)
        self._daemon_life = 0
        self._guard = LeaseGuard({pid: self.launch})
        self._guarded_until = 0.0
        self._guard_timer: Timer | None = None
        self.begin()
        if self._lease.is_needed:
            self.after(CHORES_EVERY_S * self._random.random(), self._chores)

    @property
    def is_exclusive(self) -> bool:
        """Whether its attempts must not overlap with others of the same task."""
        return self.launch.is_exclusive

    @property
    def working_on(self) -> frozenset[int]:
        """What it works on now: the slots of a real one."""
        return frozenset(self._running)

    # -------------------------------------------------------------- its socket

    def accept(self, daemon_life: int) -> None:
        """A daemon connects. The newest wins."""
        self._daemon_life = daemon_life
        for data in announcement(self._ledger, {"ready_ms": 20}):
            self._say(data)

    def receive(self, daemon_life: int, data: bytes) -> None:
        """Bytes of a daemon."""
        if daemon_life == self._daemon_life:
            for kind, body in FrameReader().feed(data):
                obey(kind, body, self._ledger, self._lease, self._loop, self._say)

    def _say(self, data: bytes) -> None:
        """Without a daemon at the other end it goes nowhere; the ledger says it again to the next."""
        daemon = self.machine.daemon
        if daemon.is_alive and daemon.life == self._daemon_life:
            daemon.after(SOCKET_S, daemon.heard_replica, self, data)

    def _report(self, result: Result) -> None:
        packed = self._ledger.end(result)
        if packed is not None:
            self._say(frame_results([packed]))

    # -------------------------------------------------------------- orders

    def run(self, runs: list[Run]) -> None:
        """Attempts to make."""
        self._queue.take(runs)
        self._start_some()

    def cancel(self, tokens: Sequence[int]) -> None:
        """End these. One that is stubborn goes on until its process is killed."""
        self._queue.cancel(tokens)
        for token in tokens:
            execution = self._running.get(token)
            if execution is not None and token not in self._cancelled:
                self._cancelled.add(token)
                if not self._step(execution).is_stubborn:
                    self.after(0.3 * self._random.random(), self._cancel_over, token)

    def _cancel_over(self, token: int) -> None:
        execution = self._end(token)
        if execution is not None:
            self._finish(Result(execution.task_id, token, Outcome.CANCELLED, 0))

    def shut_down(self) -> None:
        """Interrupt everything, report, and exit."""
        if self._queue.is_stopped:
            return
        self._queue.stop()
        for token in list(self._running):
            self._cancelled.add(token)
            self.after(0.3 * self._random.random(), self._cancel_over, token)
        self._exit_when_idle()

    def _exit_when_idle(self) -> None:
        if self._running:
            self.after(0.05, self._exit_when_idle)
        else:
            self.after(0.002, self.die)

    # -------------------------------------------------------------- the lease

    def _chores(self) -> None:
        """Its control thread looks now and then."""
        verdict = self._lease.look(self.world.now, has_work=bool(self._ledger.tokens))
        if verdict is Verdict.KILL:
            self.die()
        elif verdict is Verdict.CANCEL:
            self.cancel(self._ledger.tokens)
        self.after(max(CHORES_EVERY_S, self._lease.until_s - self.world.now), self._chores)

    def zygote_gone(self) -> None:
        """Nobody looks after it any more; so the kernel ends one of exclusive work, even where it stands still."""
        self.has_zygote = False
        if self.launch.ends_with_zygote:
            self.die()

    def zygote_hears(self, until_s: float) -> None:
        """The daemon tells its zygote of the lease."""
        self._guard.renew(until_s)
        self._guarded_until = max(self._guarded_until, until_s)
        if self._guard_timer is None and self.is_exclusive:
            self._look_after()

    def _look_after(self) -> None:
        if not self.is_alive or not self.has_zygote:
            return
        if self._guard.overdue(self.world.now) and self._running:
            self.die()
            return
        due_s = self._guarded_until + GUARD_AFTER_S - self.world.now
        self._guard_timer = self.world.at(max(LOOK_EVERY_S, due_s), self._look_after)

    # -------------------------------------------------------------- work

    def _step(self, execution: Execution) -> Step:
        steps = self._scripts[execution.token]
        return steps[min(execution.attempt, len(steps)) - 1]

    @property
    def _scripts(self) -> dict[int, list[Step]]:
        return self.machine.scripts

    def _start_some(self) -> None:
        started = []
        while (run := self._queue.begin(len(self._running))) is not None:
            self._scripts[run.token] = script_of(run.input)
            execution = Execution(
                run.token, run.task_id, run.attempt, self.replica_id, self.pid, self.machine.name, self.world.now
            )
            self.machine.checks.began(execution, self.is_exclusive)
            self._running[run.token] = execution
            step = self._step(execution)
            execution.does = step.does
            if step.does != "hang":
                execution.timer = self.after(step.after_s, self._over, run.token)
            started.append(run.token)
        if started:
            self.after(STARTED_AFTER_S, self._say_started, started)

    def _say_started(self, tokens: list[int]) -> None:
        """As the reporter does: of those that still run."""
        running = [token for token in tokens if token in self._running]
        if running:
            self._say(frame_tokens(Kind.STARTED, running))

    def _over(self, token: int) -> None:
        execution = self._running.get(token)
        if execution is None:
            return  # it was cancelled in the same moment: this had waited while the process stood still
        step = self._step(execution)
        if step.does == "crash":
            execution.is_crash = True
            self.die()
            return
        self._end(token)
        duration_us = int((self.world.now - execution.began_at) * 1e6)
        if step.does == "ok":
            execution.output = json.dumps({"task": execution.task_id, "token": token}).encode()
            self._finish(Result(execution.task_id, token, Outcome.SUCCEEDED, duration_us, execution.output))
        else:
            kind = "Reject" if step.does == "reject" else "ValueError"
            self._finish(Result(execution.task_id, token, Outcome.FAILED, duration_us, b"", kind, "as scripted"))

    def _end(self, token: int) -> Execution | None:
        execution = self._running.pop(token, None)
        if execution is not None:
            cancel(execution.timer)
            execution.ended_at = self.world.now
            self._cancelled.discard(token)
            self.machine.checks.ended(execution)
        return execution

    def _finish(self, result: Result) -> None:
        self._report(result)
        self._start_some()

    def die(self) -> None:
        """The process is gone, and with it what it worked on and what nobody kept."""
        if not self.is_alive:
            return
        working_on = self.working_on
        for token in list(self._running):
            self._end(token)
        self.end()
        self.machine.process_gone(self, working_on)
