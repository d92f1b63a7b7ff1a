"""One replica of the farm on this node, from the wish to have it until nothing of it remains. Pure.

A seat has its process prepared (bundle, environment, zygote) and forked, hears of its end, starts it again when it
crashed, and gives up when that is useless. It decides; the machine acts, and answers by a call of the seat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from agentfarm.agents.view import SpecView
from agentfarm.backoff import backoff_s
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.clock import Clock, Timer
from nodeagent.core.desired import Presence
from nodeagent.core.problems import LinkAway, StartFailed
from nodeagent.core.restarts import Crashes
from nodeagent.runner.protocol.frames import Kind, frame

RETRY_MIN_S, RETRY_MAX_S = 0.5, 5.0
LINK_RETRY_S: Final = 0.2


class Process(Protocol):
    """The process of a replica, and the daemon's end of its socket."""

    @property
    def pid(self) -> int: ...
    def send(self, data: bytes, /) -> None: ...
    def kill(self) -> None:
        """End it and all it started, now."""

    def detach(self) -> None:
        """Let it live on without us."""


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended."""

    was_ours: bool
    """We killed it."""
    why: str
    """For people; its last lines of output follow on lines of their own."""
    ran_out_of_memory: bool = False


class Machine(Protocol):
    """What a seat needs of the machine."""

    def chance(self) -> float:
        """A random number in [0, 1)."""
        ...

    def prepare(self, seat: Seat) -> None:
        """Begin to prepare bundle, environment and zygote. Answered by `prepared` or `not_started`."""

    def fork(self, seat: Seat) -> None:
        """Begin to fork its process. Answered by `runs`, `vanished` or `not_started`."""

    def remember(self, seat: Seat) -> None:
        """Write down what the next daemon needs to know."""

    def warn(self, seat: Seat, event: str, why: str) -> None:
        """An event that an operator may want to know."""


class House(Protocol):
    """The node's replicas, as one of them sees the others' business. It owns the seats, and they call it: a ring."""

    def changed(self, seat: Seat) -> None:
        """Its state is another."""

    def has_work(self, seat: Seat) -> bool:
        """Whether it has attempts in hand."""
        ...

    def gone(self, seat: Seat, pid: int, end: ProcessEnd) -> None:
        """Its process is gone: its attempts end now."""


class Stage(Enum):
    """How far the next process has come. It is beside `presence`, which says whether one should be."""

    WAITING = "waiting"
    PREPARING = "preparing"
    FORKING = "forking"
    LIVING = "living"
    OVER = "over"


class Seat:
    """See the module. Others read its attributes; the health check alone writes some: `pinged_at`, `ponged_at` and
    `status.private_mib`."""

    def __init__(self, desired: wire.DesiredReplica, clock: Clock, machine: Machine, house: House) -> None:
        """Raises InvalidRequest when its spec cannot be read."""
        self.desired = desired
        self.id: int = desired.replica_id
        self.spec = SpecView.from_json(desired.spec_json)
        self.process: Process | None = None
        self.status = wire.ReplicaStatus(replica_id=self.id, state=wire.REPLICA_STATE_STARTING)
        self.presence = Presence.ACTIVE
        self.pinged_at = self.ponged_at = 0.0
        self.environment = self.zygote = ""
        """Names of what its process was forked from; kept for as long as a seat needs them."""
        self._clock = clock
        self._machine = machine
        self._house = house
        self._stage = Stage.WAITING
        self._is_ready = False
        self._crashes = Crashes()
        self._failures = 0
        self._timer: Timer | None = None
        """The next step of the start, or the end of the patience with a process that is not ready."""
        self._kill_timer: Timer | None = None

    @property
    def name(self) -> str:
        """deployment/seat, as people know it."""
        return f"{self.desired.deployment}/{self.desired.seat}"

    @property
    def takes_work(self) -> bool:
        """Whether attempts can be handed to its process now."""
        return self.process is not None and self._is_ready and self.presence is not Presence.STOPPING

    # -------------------------------------------------------------- what should be

    def begin(self) -> None:
        """Begin to live."""
        self._machine.remember(self)
        self._start()

    def adopt(self, process: Process) -> None:
        """Go on with a process that an earlier daemon started."""
        self._live(process)

    def end_as(self, status: wire.ReplicaStatus) -> None:
        """It had ended under an earlier daemon, like this."""
        self.status = status
        self.presence = Presence.ENDED
        self._stage = Stage.OVER

    def retire(self) -> None:
        """Take nothing new, finish what is in hand, then stop."""
        if self.presence is Presence.ACTIVE:
            self.presence = Presence.RETIRING
            if self.process is not None:
                self._become(wire.REPLICA_STATE_STOPPING)
        self.settle()

    def settle(self) -> None:
        """Called when an attempt ended: one that retires stops with its last."""
        if self.presence is Presence.RETIRING and not self._house.has_work(self):
            self.stop()

    def stop(self, *, at_once: bool = False) -> None:
        """Interrupt what runs and end the process: by asking, and by force after the spec's time for it."""
        if self.presence is Presence.ENDED:
            return
        is_new = self.presence is not Presence.STOPPING
        self.presence = Presence.STOPPING
        if self._stage in (Stage.WAITING, Stage.PREPARING):  # nothing runs; a fork that is under way is waited for
            self._end(wire.REPLICA_STATE_STOPPED)
            return
        if is_new and self.process is not None:
            self._become(wire.REPLICA_STATE_STOPPING)
            self.process.send(frame(Kind.STOP))
        self._cancel(self._kill_timer)
        self._kill_timer = self._after(0.0 if at_once else self.spec.shutdown_timeout_s, self.kill)

    def kill(self, why: str = "") -> None:
        """End the process and all it started, now; unless it is to stop, it is started again."""
        if why:
            self._machine.warn(self, "replica.killed", why)
        if self.process is not None:
            self.process.kill()

    def detach(self) -> None:
        """Let the process live on without us."""
        self._stage = Stage.OVER
        self._cancel(self._timer)
        self._cancel(self._kill_timer)
        if self.process is not None:
            self.process.detach()

    def forked_from(self, environment: str, zygote: str) -> None:
        """What its next process needs on this node."""
        self.environment, self.zygote = environment, zygote
        if self._stage is not Stage.OVER:  # what is left of it may be removed already
            self._machine.remember(self)

    # -------------------------------------------------------------- what becomes of it

    def prepared(self) -> None:
        """All is there to fork its process. Does nothing where the seat has ended meanwhile."""
        if self._stage is Stage.PREPARING:
            self._stage = Stage.FORKING
            self._machine.fork(self)

    def not_started(self, problem: StartFailed | LinkAway) -> None:
        """It could not be prepared or forked."""
        if self._stage not in (Stage.PREPARING, Stage.FORKING):
            return
        if isinstance(problem, StartFailed) and problem.is_final:
            self._end(wire.REPLICA_STATE_FAILED, problem.reason, problem.detail)
        elif self.presence is Presence.STOPPING:
            self._end(wire.REPLICA_STATE_STOPPED)
        elif isinstance(problem, LinkAway):
            self._next(LINK_RETRY_S, self._prepare)
        else:
            self._failures += 1
            self._machine.warn(self, "replica.not_started", str(problem))
            self._become(wire.REPLICA_STATE_STARTING, problem.reason, problem.detail)
            wait_s = backoff_s(self._failures, RETRY_MIN_S, RETRY_MAX_S, self._machine.chance())
            self._next(wait_s, self._prepare)

    def runs(self, process: Process) -> None:
        """Its process was forked."""
        if self._stage is Stage.FORKING:
            self._live(process)

    def vanished(self) -> None:
        """Its process ended as soon as it was forked."""
        if self._stage is Stage.FORKING:
            self._crashed(ProcessEnd(was_ours=False, why="it ended as soon as it was started"))

    def hello(self, ready_ms: int) -> None:
        """Its replica is ready for work."""
        self.ponged_at = self._clock.time()
        self.status.ready_ms = ready_ms
        self._is_ready = True
        if self.presence is Presence.ACTIVE:
            self._become(wire.REPLICA_STATE_RUNNING)

    def healthy(self, is_healthy: bool, detail: str = "") -> None:
        """What the pings say."""
        state = self.status.state
        if is_healthy and state == wire.REPLICA_STATE_UNHEALTHY:
            self._become(wire.REPLICA_STATE_RUNNING)
        elif not is_healthy and state == wire.REPLICA_STATE_RUNNING:
            self._become(wire.REPLICA_STATE_UNHEALTHY, "unhealthy", detail)

    def gone(self, end: ProcessEnd) -> None:
        """Its process has ended."""
        if self._stage is not Stage.LIVING:
            return
        self._cancel(self._timer)
        self._cancel(self._kill_timer)
        was_ready, self._is_ready = self._is_ready, False
        pid, self.status.pid = self.status.pid, 0
        self.process = None
        self._house.gone(self, pid, end)
        if self.presence is Presence.STOPPING:
            self._end(wire.REPLICA_STATE_STOPPED)
        else:
            self._crashed(end, "" if was_ready else " before it was ready")

    def lost(self, problem: str) -> None:
        """The daemon lost control of it: our own mistake, which must not leave a process behind."""
        self.kill()
        self._end(wire.REPLICA_STATE_FAILED, "crashed", f"The daemon lost control of it: {problem}")

    # -------------------------------------------------------------- its life

    def _start(self) -> None:
        """Start it, after the wait that its crashes have earned; unless none should run any more."""
        if self.presence is not Presence.ACTIVE:
            self._end(wire.REPLICA_STATE_STOPPED)
            return
        self._failures = 0
        self._next(self._crashes.wait_s(self._machine.chance()), self._begin_start)

    def _begin_start(self) -> None:
        self._become(wire.REPLICA_STATE_STARTING, self.status.reason, self.status.detail)
        self._prepare()

    def _prepare(self) -> None:
        self._stage = Stage.PREPARING
        self._machine.prepare(self)

    def _live(self, process: Process) -> None:
        self._stage = Stage.LIVING
        self.process = process
        self.status.pid = process.pid
        self._is_ready = False
        self._cancel(self._timer)
        self._timer = self._after(self.spec.healthy_timeout_s, self._not_ready)
        if self.presence is Presence.STOPPING:
            process.kill()  # it was asked to stop while it was being started

    def _not_ready(self) -> None:
        if not self._is_ready and self.process is not None:
            self._machine.warn(self, "replica.not_ready", f"after {self.spec.healthy_timeout_s:g} s")
            self.process.kill()

    def _crashed(self, end: ProcessEnd, moment: str = "") -> None:
        why = f"{end.why}{moment}"
        self.status.restarts += 1
        self._machine.warn(self, "replica.crashed", why.splitlines()[0])
        if not end.was_ours:  # a kill after a run timeout is no fault of the start
            self._crashes = self._crashes.add(self._clock.time())
        if self._crashes.is_loop():
            detail = f"It crashed {len(self._crashes.at)} times in a minute; at last {why}"
            self._end(wire.REPLICA_STATE_FAILED, "crash_loop", detail)
            return
        self._become(wire.REPLICA_STATE_STARTING, "out_of_memory" if end.ran_out_of_memory else "crashed", why)
        self._start()

    def _next(self, after_s: float, step: Callable[[], None]) -> None:
        self._stage = Stage.WAITING
        self._timer = self._after(after_s, step)

    def _after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self._clock.call_at(self._clock.time() + delay_s, call)

    def _cancel(self, timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()

    # -------------------------------------------------------------- its state

    def _become(self, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        status = self.status
        if (status.state, status.reason, status.detail) == (state, reason, detail) and status.pid:
            return
        status.state, status.reason, status.detail = state, reason, detail
        self._house.changed(self)

    def _end(self, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        self._stage = Stage.OVER
        self.presence = Presence.ENDED
        self._cancel(self._timer)
        self._cancel(self._kill_timer)
        self.status.pid = self.status.private_mib = 0
        self._become(state, reason, detail)
        self._machine.remember(self)
