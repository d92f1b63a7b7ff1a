"""What simulated agents do: scripts in tasks' inputs, and replica processes that follow them.

A replica process lives on when its daemon dies. It holds attempts and results until the daemon says that they are kept,
as nodeagent/runner/replica does, and records every execution, for the checkers' independent eye.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nodeagent.runner.replica.frames import GIVEN_BACK, Outcome, Result, Run
from tests.simulation.world import Process, Timer, cancel

if TYPE_CHECKING:
    from tests.simulation.daemons import Daemon
    from tests.simulation.machines import Machine

GUARD_AFTER_S = 1.0


class Step(NamedTuple):
    """What one attempt does. does: ok, fail, reject, crash or hang."""

    does: str
    after_s: float
    is_stubborn: bool = False  # does not end when it is cancelled


def script_of(data: bytes) -> list[Step]:
    """A task's input."""
    return [Step(*step) for step in json.loads(data)["steps"]]


class AgentSpec(NamedTuple):
    """What matters of a version: read from its spec_json by the simulated nodes."""

    kind: str = "good"  # or import_failed, environment_failed, crash_loop, never_ready, slow
    concurrency: int = 1
    is_exclusive: bool = False
    shutdown_s: float = 2.0
    run_timeout_s: float = 6.0

    @classmethod
    def read(cls, text: str) -> AgentSpec:
        """From its JSON."""
        return cls(*json.loads(text))

    def text(self) -> str:
        """As JSON."""
        return json.dumps(list(self))


@dataclass(slots=True)
class Execution:
    """One attempt as a replica lived through it."""

    token: int
    task_id: int
    attempt: int
    replica_id: int
    machine: str
    began_at: float
    ended_at: float | None = None
    does: str = ""
    output: bytes | None = None  # set when it succeeded
    is_crash: bool = False
    timer: Timer | None = None


class ReplicaProcess(Process):
    """One process on a machine."""

    def __init__(self, machine: Machine, replica_id: int, spec: AgentSpec, pid: int) -> None:
        super().__init__(machine.world)
        self.machine = machine
        self.replica_id = replica_id
        self.spec = spec
        self.pid = pid
        self.lease_until = 0.0  # for exclusive attempts; moved on by whichever daemon lives
        self._random = machine.random
        self._waiting: deque[Run] = deque()
        self._running: dict[int, Execution] = {}
        self._ended: dict[int, Result] = {}
        self._cancelled: set[int] = set()
        self._is_stopping = False
        self._lease_timer: Timer | None = None
        self._guarded_until = 0.0
        self._guard_timer: Timer | None = None
        self.has_zygote = True
        self.begin()

    # -------------------------------------------------------------- orders

    def take(self, runs: list[Run]) -> None:
        """Attempts to make."""
        known = {run.token for run in self._waiting} | self._running.keys() | self._ended.keys()
        for run in runs:
            if run.token in known:
                continue
            if self._is_stopping or (self.spec.is_exclusive and self.world.now >= self.lease_until):
                self._finish(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0))
            else:
                self._waiting.append(run)
        self._start_some()

    def recall(self, tokens: list[int]) -> None:
        """Give back those that have not begun; they never will."""
        for run in [run for run in self._waiting if run.token in tokens]:
            self._waiting.remove(run)
            self._finish(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0, b"", GIVEN_BACK, "as asked"))

    def cancel(self, tokens: list[int]) -> None:
        """End these. One that is stubborn goes on until its process is killed."""
        for run in [run for run in self._waiting if run.token in tokens]:
            self._waiting.remove(run)
            self._finish(Result(run.task_id, run.token, Outcome.CANCELLED, 0))
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
        """Interrupt everything, tell, and exit."""
        if self._is_stopping:
            return
        self._is_stopping = True
        for run in self._waiting:
            self._finish(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0))
        self._waiting.clear()
        for token in list(self._running):
            self._cancelled.add(token)
            self.after(0.3 * self._random.random(), self._cancel_over, token)
        self._exit_when_idle()

    def _exit_when_idle(self) -> None:
        if self._running:
            self.after(0.05, self._exit_when_idle)
        else:
            self.after(0.002, self.die)

    def kept(self, tokens: list[int]) -> None:
        """The daemon keeps these results from now on."""
        for token in tokens:
            self._ended.pop(token, None)

    def answer(self, daemon: Daemon, life: int) -> None:
        """HELLO, to a daemon that reached its socket; when it looks there."""
        if daemon.life == life:
            daemon.soon(daemon.reached, self)

    def lease_holds_until(self, moment: float) -> None:
        """What the daemon knows of the node's lease. Told to the zygote too, which looks when the replica does not."""
        if self.spec.is_exclusive:
            self.guard(moment)
            self.soon(self._lease_holds_until, moment)

    def zygote_gone(self) -> None:
        """Nobody looks after it any more; so the kernel ends one of exclusive work, even where it stands still."""
        self.has_zygote = False
        if self.spec.is_exclusive:
            self.die()

    def guard(self, moment: float) -> None:
        """The zygote's part: end what is at work after its lease."""
        self._guarded_until = max(self._guarded_until, moment)
        if self._guard_timer is None:
            due_s = max(0.0, self._guarded_until + GUARD_AFTER_S - self.world.now)
            self._guard_timer = self.world.at(due_s, self._look_after)

    def _look_after(self) -> None:
        self._guard_timer = None
        if not self.is_alive or not self.has_zygote:
            return
        if self.world.now < self._guarded_until + GUARD_AFTER_S:
            self.guard(self._guarded_until)
        elif self._running:
            self.die()

    def _lease_holds_until(self, moment: float) -> None:
        """An exclusive attempt ends with the lease, daemon or no daemon."""
        moment = self.lease_until = max(self.lease_until, moment)
        if self._lease_timer is None:
            self._lease_timer = self.after(max(0.0, moment - self.world.now), self._look_at_lease)

    def _look_at_lease(self) -> None:
        self._lease_timer = None
        if self.world.now < self.lease_until:
            self._lease_holds_until(self.lease_until)
            return
        for run in self._waiting:
            self._finish(Result(run.task_id, run.token, Outcome.INTERRUPTED, 0))
        self._waiting.clear()
        for token in list(self._running):
            execution = self._end(token)
            assert execution is not None
            self._finish(Result(execution.task_id, token, Outcome.INTERRUPTED, 0))

    def snapshot(self) -> tuple[list[tuple[int, int, bool]], list[Result]]:
        """(token, task, is started) of what it has in hand, and the results that nobody keeps yet."""
        held = [(run.token, run.task_id, False) for run in self._waiting]
        held += [(it.token, it.task_id, True) for it in self._running.values()]
        return held, list(self._ended.values())

    @property
    def working_on(self) -> frozenset[int]:
        """What it works on now."""
        return frozenset(self._running)

    # -------------------------------------------------------------- work

    def _step(self, execution: Execution) -> Step:
        steps = self._scripts[execution.token]
        return steps[min(execution.attempt, len(steps)) - 1]

    @property
    def _scripts(self) -> dict[int, list[Step]]:
        return self.machine.scripts

    def _start_some(self) -> None:
        started = []
        while self._waiting and len(self._running) < self.spec.concurrency:
            run = self._waiting.popleft()
            self._scripts[run.token] = script_of(run.input)
            execution = Execution(
                run.token, run.task_id, run.attempt, self.replica_id, self.machine.name, self.world.now
            )
            self.machine.checks.began(execution, self.spec.is_exclusive)
            self._running[run.token] = execution
            step = self._step(execution)
            execution.does = step.does
            if step.does != "hang":
                execution.timer = self.after(step.after_s, self._over, run.token)
            started.append(run.token)
        if started:
            self.machine.to_daemon(self, "started", started)

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
        self._ended[result.token] = result
        self.machine.to_daemon(self, "results", [result])
        if not self._is_stopping:
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
