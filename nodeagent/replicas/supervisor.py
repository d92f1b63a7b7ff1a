"""The node's replicas as processes, folders and sockets. What should become of them is decided in
`nodeagent/core/roster.py`: this is its ground, which begins what is asked, and answers by a call of the seat.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Final

from agentfarm.errors import InvalidRequest
from agentfarm.service import Service
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.desired import Presence
from nodeagent.core.outbox import Disk
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.problems import LinkAway, StartFailed
from nodeagent.core.rollcall import Rollcall
from nodeagent.core.roster import Roster
from nodeagent.core.seat import ProcessEnd, Seat
from nodeagent.machine.logging import log
from nodeagent.replicas.health import Health
from nodeagent.replicas.launcher import Launcher
from nodeagent.replicas.logs import last_lines
from nodeagent.replicas.memory import Memory, read_memory, write_memory
from nodeagent.replicas.process import Exit, ReplicaProcess, living_process
from nodeagent.replicas.relay import Relay
from nodeagent.replicas.zygotes import Zygotes
from nodeagent.runner.protocol.frames import Pong
from nodeagent.runner.protocol.launch import LOG_NAME, SLOTS_NAME
from nodeagent.runner.protocol.slots import read_slots

ZYGOTE_LINGER_S: Final = 30.0
CRASH_LINES: Final = 60


class Supervisor(Service):
    """`start` finds what an earlier daemon left; then the link gives orders."""

    def __init__(
        self, folder: Path, *, launcher: Launcher, zygotes: Zygotes, outgoing: Outgoing, storage: Disk, relay: Relay
    ) -> None:
        super().__init__("supervisor")
        self.launcher = launcher
        self.roster = Roster(asyncio.get_running_loop(), self, outgoing, storage)
        self.seats = self.roster.seats
        self.workload = self.roster.workload
        self._folder = folder
        self._zygotes = zygotes
        self._outgoing = outgoing
        self._relay = relay
        self._processes: dict[int, ReplicaProcess] = {}
        self._linger: asyncio.TimerHandle | None = None
        self._ends_replicas = self._is_hurried = False
        self._changed = asyncio.Event()
        self._health = Health(self.seats, self.roster.has_work, self.log_path, self._reweighed)
        self.own(self._health)
        self._oom_kills = _oom_kills()

    async def _begin(self) -> None:
        """Find the zygotes and replicas of an earlier daemon, and hear what they run."""
        await self._zygotes.find()
        await self._adopt()
        await self._health.start()

    async def stop(self, *, with_replicas: bool = False, at_once: bool = False) -> None:
        """Let go of everything; with the replicas: end them first, giving their attempts the time their specs say."""
        self._ends_replicas, self._is_hurried = with_replicas, at_once
        await super().stop()

    async def _finish(self) -> None:
        await self._health.stop()
        if self._ends_replicas:
            self.roster.close()
            for seat in self.seats.values():
                seat.stop(at_once=self._is_hurried)
            while any(seat.presence is not Presence.ENDED for seat in self.seats.values()):
                self._changed.clear()
                await self._changed.wait()
            await self._zygotes.stop()
        self.workload.stop()
        if self._linger is not None:
            self._linger.cancel()
        for seat in self.seats.values():
            seat.detach()
        await self._tasks.end()
        self._zygotes.disconnect()

    def hurry(self) -> None:
        """End at once what is being given time to end."""
        for seat in self.seats.values():
            seat.stop(at_once=True)

    def home(self, replica_id: int) -> Path:
        """The folder of a replica."""
        return self._folder / str(replica_id)

    def log_path(self, replica_id: int) -> Path:
        """Where the output of a replica is."""
        return self.home(replica_id) / LOG_NAME

    # -------------------------------------------------------------- what an earlier daemon left

    async def _adopt(self) -> None:
        """Returns when it is known of each replica that lives what it has in hand, or that it may go on unheard."""
        is_over = asyncio.Event()
        rollcall = self.roster.call_roll(is_over.set)
        living: list[Seat] = []
        strangers: list[ReplicaProcess] = []
        for folder in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            memory = read_memory(folder)
            seat = self._restored(memory) if memory is not None else None
            if seat is None:
                strangers += self._cleared(folder)
            elif seat.presence is not Presence.ENDED and self._take_up(seat, folder):
                living.append(seat)
        for process in strangers:
            self._tasks.errand(_see_off(process, rollcall))
        rollcall.begin(living, strangers)
        await is_over.wait()
        if living:
            log.info("replicas.found", replicas=len(living) - len(rollcall.silent), silent=len(rollcall.silent))
        for pid in rollcall.hanging:
            log.error("replica.not_killed", pid=pid, why="it hangs in the kernel")

    def _restored(self, memory: Memory) -> Seat | None:
        try:
            seat = self.roster.restore(memory.desired, memory.restarts, memory.ended)
        except InvalidRequest:
            return None
        seat.environment, seat.zygote = memory.environment, memory.zygote
        return seat

    def _take_up(self, seat: Seat, folder: Path) -> bool:
        """Go on with its process if that lives, or else start one. Returns whether it lives."""
        process = living_process(folder, partial(self.roster.take_frame, seat))
        if process is None:
            seat.begin()
            return False
        self._processes[seat.id] = process
        seat.adopt(process)
        self._tasks.errand(self._attend(seat, process), name=f"seat-{seat.id}")
        return True

    def _cleared(self, folder: Path) -> list[ReplicaProcess]:
        """A folder that says nothing of use. A process that lives in it belongs to no seat."""
        process = living_process(folder, lambda kind, body: None)
        if process is not None:
            log.warning("replica.killed", folder=str(folder), pid=process.pid, why="nothing says what it is")
        shutil.rmtree(folder, ignore_errors=True)
        return [process] if process is not None else []

    # -------------------------------------------------------------- what seats ask: see `Ground`

    def chance(self) -> float:
        return random.random()  # noqa: S311 - jitter

    def prepare(self, seat: Seat) -> None:
        self._tasks.errand(self._prepare(seat), name=f"prepare-{seat.id}")

    async def _prepare(self, seat: Seat) -> None:
        try:
            await self.launcher.prepare(seat, self.home(seat.id))
        except (StartFailed, LinkAway) as problem:
            seat.not_started(problem)
        except Exception as problem:
            self._lost_control(seat, problem)
        else:
            seat.prepared()

    def fork(self, seat: Seat) -> None:
        self._tasks.errand(self._fork(seat), name=f"seat-{seat.id}")

    async def _fork(self, seat: Seat) -> None:
        try:
            pid, ticks = await self.launcher.fork(seat)
            process = ReplicaProcess.attach(self.home(seat.id), pid, ticks, partial(self.roster.take_frame, seat))
        except (StartFailed, LinkAway) as problem:
            seat.not_started(problem)
        except ProcessLookupError:
            seat.vanished()
        except Exception as problem:
            self._lost_control(seat, problem)
        else:
            self._processes[seat.id] = process
            seat.runs(process)
            if seat.process is process:
                await self._attend(seat, process)
            else:
                process.kill()

    async def _attend(self, seat: Seat, process: ReplicaProcess) -> None:
        """Reach its socket (it says HELLO, and from then on takes work), and see its end."""
        try:
            await process.connect()
            await asyncio.wait((process.exited,))
            end = self._end_of(seat, process.exited.result())
        except Exception as problem:
            self._lost_control(seat, problem)
        else:
            seat.gone(end)

    def _end_of(self, seat: Seat, ended: Exit) -> ProcessEnd:
        lines = last_lines(self.log_path(seat.id), CRASH_LINES)
        output = "\n".join(["", "Its last output:", *lines]) if lines else ""
        before, self._oom_kills = self._oom_kills, _oom_kills()
        is_memory = ended.is_kill and not ended.was_ours and self._oom_kills > before
        return ProcessEnd(ended.was_ours, f"{ended.words}.{output}", is_memory)

    def _lost_control(self, seat: Seat, problem: Exception) -> None:
        log.error("replica.lost_control", replica=seat.name, replica_id=seat.id, problem=repr(problem))
        seat.lost(repr(problem))

    def remember(self, seat: Seat) -> None:
        write_memory(self.home(seat.id), seat)

    def warn(self, seat: Seat, event: str, why: str) -> None:
        log.warning(event, replica=seat.name, replica_id=seat.id, why=why, restarts=seat.status.restarts)

    def changed(self, seat: Seat) -> None:
        state = wire.ReplicaState.Name(seat.status.state).removeprefix("REPLICA_STATE_").lower()
        log.info("replica.state", replica=seat.name, replica_id=seat.id, state=state, reason=seat.status.reason)
        self._changed.set()

    def clear(self, replica_id: int) -> None:
        self._processes.pop(replica_id, None)
        self.launcher.forget(replica_id)
        shutil.rmtree(self.home(replica_id), ignore_errors=True)

    def working_on(self, seat: Seat) -> frozenset[int] | None:
        return read_slots(self.home(seat.id) / SLOTS_NAME)

    def ponged(self, seat: Seat, pong: Pong) -> None:
        self._health.pong(seat, pong)

    def called(self, seat: Seat, kind: int, body: bytes) -> None:
        self._relay.begin(seat, kind, body, self.workload.attempts)

    def zygotes_hear(self, until_s: float, *, is_wanted: bool) -> None:
        self._zygotes.lease_renewed(until_s, is_wanted=is_wanted)

    def rearranged(self) -> None:
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(ZYGOTE_LINGER_S, self._tidy_now)

    # -------------------------------------------------------------- small things

    def exited(self, replica_id: int, pid: int, status: int) -> None:
        """The zygote's news of an exit."""
        process = self._processes.get(replica_id)
        if process is not None:
            process.take_exit(pid, status)

    def _reweighed(self, seat: Seat) -> None:
        """It needs another amount of memory than the controller knows."""
        self._outgoing.report(seat.status)

    def _tidy_now(self) -> None:
        self._linger = None
        self._tasks.errand(self._tidy(), name="tidy")

    async def _tidy(self) -> None:
        """Forget what no seat needs any more."""
        living = [seat for seat in self.seats.values() if seat.presence is not Presence.ENDED]
        if not await self.launcher.tidy(living):
            self.rearranged()


async def _see_off(process: ReplicaProcess, rollcall: Rollcall) -> None:
    """A process that belongs to no seat has ended."""
    await asyncio.wait((process.exited,))
    rollcall.gone(0, process.pid)


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
