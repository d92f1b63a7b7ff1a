"""One replica of the farm on this node, from the wish to have it until nothing of it remains.

A seat prepares (bundle, environment, zygote), starts its process, watches it, starts it again when it crashed, and
gives up when that is useless. It survives the daemon in its folder `replicas/ID/`, where the next daemon finds it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from agentfarm.agents.view import SpecView
from agentfarm.backoff import Backoff
from agentfarm.files import write_file
from agentfarm.service import Tasks
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.problems import LinkAway, StartFailed
from nodeagent.core.restarts import Crashes
from nodeagent.machine.logging import log
from nodeagent.replicas.logs import last_lines
from nodeagent.replicas.process import Exit, ReplicaProcess
from nodeagent.runner.replica import frames
from nodeagent.runner.replica.frames import Kind
from nodeagent.runner.replica.launch import LOG_NAME, Launch

T = TypeVar("T")

SEAT_NAME: Final = "seat.json"
RETRY_MIN_S, RETRY_MAX_S = 0.5, 5.0
LINK_RETRY_S: Final = 0.2
CRASH_LINES: Final = 60
LIVE_STATES: Final = frozenset({wire.REPLICA_STATE_RUNNING, wire.REPLICA_STATE_UNHEALTHY, wire.REPLICA_STATE_STOPPING})


class Surroundings(Protocol):
    """What a seat needs of the daemon."""

    async def prepare(self, seat: Seat) -> None:
        """Bundle, environment, zygote. May take long, or be left to finish alone. Raises StartFailed or LinkAway."""

    async def fork(self, seat: Seat) -> tuple[int, int]:
        """The process of a prepared seat: pid and start ticks. Takes moments. Raises StartFailed."""
        ...

    def changed(self, seat: Seat) -> None:
        """Its state is another; tell the controller."""

    def heard(self, seat: Seat, kind: int, body: bytes) -> None:
        """A frame of its replica."""

    def gone(self, seat: Seat, ended: Exit, why: str) -> None:
        """Its process is gone: its attempts end now."""

    def has_work(self, seat: Seat) -> bool:
        """Whether it has attempts in hand."""
        ...

    def ran_out_of_memory(self, ended: Exit) -> bool:
        """Whether the kernel ended it for want of memory."""
        ...


class Seat:
    """See the module. All on the event loop."""

    def __init__(self, wanted: wire.DesiredReplica, folder: Path, around: Surroundings) -> None:
        self.wanted = wanted
        self.id = wanted.replica_id
        self.folder = folder
        self.spec = SpecView.from_json(wanted.spec_json)
        self.process: ReplicaProcess | None = None
        self.status = wire.ReplicaStatus(replica_id=self.id, state=wire.REPLICA_STATE_STARTING)
        self.presence = Presence.ACTIVE
        self.pinged_at = self.ponged_at = 0.0
        self.environment = self.zygote = ""
        """Names of what its process was forked from; kept for as long as a seat needs them."""
        self._around = around
        self._ready = asyncio.Event()
        self._ending = asyncio.Event()
        self._crashes = Crashes()
        self._life: asyncio.Task[None] | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks(f"seat-{self.id}")

    @property
    def name(self) -> str:
        """deployment/seat, as people know it."""
        return f"{self.wanted.deployment}/{self.wanted.seat}"

    @property
    def log_path(self) -> Path:
        """Where its output is."""
        return self.folder / LOG_NAME

    @property
    def takes_work(self) -> bool:
        """Whether attempts can be handed to its process now."""
        return self.process is not None and self._ready.is_set() and self.presence is not Presence.STOPPING

    def start(self) -> None:
        """Begin to live."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remember()
        self._life = self._tasks.run(self._live(None))

    def adopt(self, process: ReplicaProcess) -> None:
        """Go on with a process that an earlier daemon started."""
        self.process = process
        self._life = self._tasks.run(self._live(process))

    def retire(self) -> None:
        """Take nothing new, finish what is in hand, then stop."""
        if self.presence is Presence.ACTIVE:
            self.presence = Presence.RETIRING
            if self.process is not None:
                self._become(wire.REPLICA_STATE_STOPPING)
        self.settle()

    def settle(self) -> None:
        """Called when an attempt ended: one that retires stops with its last."""
        if self.presence is Presence.RETIRING and not self._around.has_work(self):
            self.stop()

    def stop(self, *, at_once: bool = False) -> None:
        """Interrupt what runs and end the process: by asking, and by force after the spec's time for it."""
        if self.presence is Presence.ENDED:
            return
        grace_s = 0.0 if at_once else self.spec.shutdown_timeout_s
        if self.presence is not Presence.STOPPING:
            self.presence = Presence.STOPPING
            self._ending.set()
            if self.process is not None:
                self._become(wire.REPLICA_STATE_STOPPING)
                self.process.send(frames.frame(Kind.STOP))
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = asyncio.get_running_loop().call_later(grace_s, self.kill)

    def kill(self, why: str = "") -> None:
        """End the process and all it started, now; unless it is to stop, it is started again."""
        if why:
            log.warning("replica.killed", replica=self.name, replica_id=self.id, why=why)
        if self.process is not None:
            self.process.kill()

    async def ended(self) -> None:
        """Until nothing of it remains."""
        if self._life is not None:
            await asyncio.wait([self._life])

    def detach(self) -> None:
        """Let the process live on without us."""
        self._tasks.cancel()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if self.process is not None:
            self.process.detach()

    def forked_from(self, environment: str, zygote: str) -> None:
        """What its next process needs on this node."""
        self.environment, self.zygote = environment, zygote
        self._remember()

    def hello(self, ready_ms: int) -> None:
        """Its replica is ready for work."""
        self.ponged_at = asyncio.get_running_loop().time()
        self.status.ready_ms = ready_ms
        self._ready.set()
        if self.presence is Presence.ACTIVE:
            self._become(wire.REPLICA_STATE_RUNNING)

    def healthy(self, is_healthy: bool, detail: str = "") -> None:
        """What the pings say."""
        state = self.status.state
        if is_healthy and state == wire.REPLICA_STATE_UNHEALTHY:
            self._become(wire.REPLICA_STATE_RUNNING)
        elif not is_healthy and state == wire.REPLICA_STATE_RUNNING:
            self._become(wire.REPLICA_STATE_UNHEALTHY, "unhealthy", detail)

    # -------------------------------------------------------------- its life

    async def _live(self, found: ReplicaProcess | None) -> None:
        try:
            if found is not None:
                await self._run(found)
            while not self._ending.is_set():
                if self.presence is Presence.RETIRING:
                    break  # nothing runs and nothing should: no need to start it again
                await self._try()
        except StartFailed as failed:
            self._end(wire.REPLICA_STATE_FAILED, failed.reason, failed.detail)
            return
        except asyncio.CancelledError:
            raise
        except Exception as problem:
            log.error("replica.lost_control", replica=self.name, replica_id=self.id, problem=repr(problem))
            self.kill()
            self._end(wire.REPLICA_STATE_FAILED, "crashed", f"The daemon lost control of it: {problem!r}")
            return
        self._end(wire.REPLICA_STATE_STOPPED)

    async def _try(self) -> None:
        """Start it and stay with it until it is gone. Raises StartFailed when it should not be tried again."""
        await self._unless_ending(asyncio.sleep(self._crashes.wait_s(random.random())))  # noqa: S311 - jitter
        if self._ending.is_set():
            return
        self._become(wire.REPLICA_STATE_STARTING, self.status.reason, self.status.detail)
        started = await self._prepare()
        if started is None:
            return
        try:
            process = ReplicaProcess.attach(self.folder, *started, self.on_frame)
        except ProcessLookupError:
            self._crashed(Exit(None, was_ours=False), "it ended as soon as it was started")
            return
        await self._run(process)

    async def _prepare(self) -> tuple[int, int] | None:
        """Everything up to the fork, tried until it works or is known to be useless; None when it is not wanted any
        more."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while not self._ending.is_set():
            try:
                await self._unless_ending(self._around.prepare(self))
                return None if self._ending.is_set() else await self._around.fork(self)
            except LinkAway:
                await self._unless_ending(asyncio.sleep(LINK_RETRY_S))
            except StartFailed as failed:
                if failed.is_final:
                    raise
                log.warning("replica.not_started", replica=self.name, reason=failed.reason, detail=failed.detail)
                self._become(wire.REPLICA_STATE_STARTING, failed.reason, failed.detail)
                await self._unless_ending(asyncio.sleep(backoff.next_s()))
        return None

    async def _run(self, process: ReplicaProcess) -> None:
        self.process = process
        self.status.pid = process.pid
        self._ready.clear()
        if self._ending.is_set():
            process.kill()  # it was asked to stop while it was being started
        loop = asyncio.get_running_loop()
        overdue = loop.call_later(self.spec.healthy_timeout_s, self._not_ready)
        try:
            await process.connect()  # it says HELLO, and from then on takes work
            ended = await asyncio.shield(process.exited)
        finally:
            overdue.cancel()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self.process = None
        was_ready = self._ready.is_set()
        self._ready.clear()
        self.status.pid = 0
        why = self._words(ended)
        self._around.gone(self, ended, why)
        if not self._ending.is_set():
            self._crashed(ended, why if was_ready else f"{why} before it was ready")

    def _not_ready(self) -> None:
        if not self._ready.is_set() and self.process is not None:
            log.warning("replica.not_ready", replica=self.name, after_s=self.spec.healthy_timeout_s)
            self.process.kill()

    def _crashed(self, ended: Exit, why: str) -> None:
        self.status.restarts += 1
        is_memory = self._around.ran_out_of_memory(ended)
        reason = "out_of_memory" if is_memory else "crashed"
        log.warning("replica.crashed", replica=self.name, replica_id=self.id, why=why.splitlines()[0],
                    restarts=self.status.restarts)  # fmt: skip
        if not ended.was_ours:  # a kill after a run timeout is no fault of the start
            self._crashes = self._crashes.add(asyncio.get_running_loop().time())
        if self._crashes.is_loop():
            raise StartFailed("crash_loop", f"It crashed {len(self._crashes.at)} times in a minute; at last {why}",
                              is_final=True)  # fmt: skip
        self._become(wire.REPLICA_STATE_STARTING, reason, why)

    def _words(self, ended: Exit) -> str:
        lines = last_lines(self.log_path, CRASH_LINES)
        said = "\n".join(["", "Its last output:", *lines]) if lines else ""
        return f"{ended.words}.{said}"

    async def _unless_ending(self, work: Awaitable[T]) -> T | None:
        """The result of `work`, or None as soon as the seat is to end. Work that was begun is left to finish."""
        task = self._tasks.run(_outcome(work))
        ending = self._tasks.run(self._ending.wait())
        try:
            await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
        if not task.done():
            return None
        result, problem = task.result()
        if problem is not None:
            raise problem
        return result

    def on_frame(self, kind: int, body: bytes) -> None:
        """A frame of its process."""
        self._around.heard(self, kind, body)

    # -------------------------------------------------------------- its state

    def _become(self, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        status = self.status
        if (status.state, status.reason, status.detail) == (state, reason, detail) and status.pid:
            return
        status.state, status.reason, status.detail = state, reason, detail
        self._around.changed(self)

    def _end(self, state: wire.ReplicaState, reason: str = "", detail: str = "") -> None:
        self.presence = Presence.ENDED
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self.status.pid = self.status.private_mib = 0
        self._become(state, reason, detail)
        self._remember()

    def _remember(self) -> None:
        """Write down what the next daemon needs to know."""
        memory: dict[str, Any] = {"wanted": self.wanted.SerializeToString().hex(), "restarts": self.status.restarts,
                                  "environment": self.environment, "zygote": self.zygote}  # fmt: skip
        if self.presence is Presence.ENDED:
            memory["ended"] = self.status.SerializeToString().hex()
        with suppress(OSError):  # a full disk: then the next daemon hears of it from the controller
            write_file(self.folder / SEAT_NAME, json.dumps(memory).encode(), is_durable=False)


async def _outcome(work: Awaitable[T]) -> tuple[T | None, Exception | None]:
    """What came of it. Its error is for the one who still waits; nobody minds it once the seat is to end."""
    try:
        return await work, None
    except Exception as problem:
        return None, problem


def recall(folder: Path, around: Surroundings) -> Seat | None:
    """The seat that an earlier daemon left in a folder, not yet living; None when its folder says nothing of use."""
    try:
        memory = json.loads((folder / SEAT_NAME).read_text())
        seat = Seat(wire.DesiredReplica.FromString(bytes.fromhex(memory["wanted"])), folder, around)
        seat.status.restarts = int(memory["restarts"])
        seat.environment, seat.zygote = memory.get("environment", ""), memory.get("zygote", "")
        if "ended" in memory:
            seat.status = wire.ReplicaStatus.FromString(bytes.fromhex(memory["ended"]))
            seat.presence = Presence.ENDED
    except Exception:
        return None
    return seat


def launch_of(seat: Seat, bundle: Path, node: str, variables: dict[str, str], late: dict[str, str]) -> Launch:
    """What its process is told."""
    return Launch(
        replica_id=seat.id,
        deployment=seat.wanted.deployment,
        seat=seat.wanted.seat,
        version=seat.wanted.version,
        node=node,
        folder=str(seat.folder),
        bundle=str(bundle),
        entry=seat.spec.entry,
        concurrency=seat.spec.concurrency,
        memory_mib=seat.spec.memory_mib,
        is_exclusive=seat.spec.exclusive,
        environment={**variables, **seat.spec.environment},
        variables={
            "AGENTFARM_AGENT": seat.wanted.deployment,
            "AGENTFARM_REPLICA": seat.name,
            "AGENTFARM_NODE": node,
            **late,
        },
    )
