"""Finding again what an earlier daemon left: each replica says what it has in hand, or is settled without its word.

What a Hello does not name is given to others at once. So nothing may go on here that must not overlap with that: an
exclusive replica that does not answer in time, and a process of which we do not even know whose it is, are ended and
seen to be gone before the daemon says Hello.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

from nodeagent.core.desired import Presence
from nodeagent.machine.logging import log
from nodeagent.replicas.process import ReplicaProcess, living_process
from nodeagent.replicas.seat import Seat, Surroundings, recall

ADOPT_TIMEOUT_S: Final = 3.0
"""How long a new daemon waits for replicas it found to say what they run."""
KILL_TIMEOUT_S: Final = 5.0
"""A killed process that is not gone after this hangs in the kernel, and will not run the agent's code again."""


class Adoption:
    """Used once, at the daemon's start."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._said_hello: dict[int, asyncio.Future[None]] = {}
        self._found: list[tuple[Seat, ReplicaProcess]] = []
        self._nobodys: list[ReplicaProcess] = []

    async def adopt(self, replicas: Path, seats: dict[int, Seat]) -> None:
        """Fill `seats` from that folder; return when of each that lives it is known what it has in hand, or that it
        may go on unheard."""
        for folder in sorted(replicas.iterdir()) if replicas.is_dir() else ():
            seat = recall(folder, self._around)
            if seat is None:
                self._clear(folder)
            else:
                seats[seat.id] = seat  # before it can speak
                self._take_up(seat)
        await asyncio.gather(*(self._settle(seat, process) for seat, process in self._found))
        await asyncio.gather(*(_end(process) for process in self._nobodys))
        if self._found:
            heard = sum(hello.done() for hello in self._said_hello.values())
            log.info("replicas.found", replicas=heard, silent=len(self._found) - heard)
        self._said_hello.clear()

    def hello(self, replica_id: int) -> None:
        """A replica said what it has in hand."""
        hello = self._said_hello.get(replica_id)
        if hello is not None and not hello.done():
            hello.set_result(None)

    def _take_up(self, seat: Seat) -> None:
        if seat.presence is Presence.ENDED:
            return
        process = living_process(seat.folder, seat.on_frame)
        if process is None:
            seat.start()
        else:
            self._said_hello[seat.id] = asyncio.get_running_loop().create_future()
            self._found.append((seat, process))
            seat.adopt(process)

    def _clear(self, folder: Path) -> None:
        """A folder that says nothing of use. A process that lives in it is nobody's."""
        process = living_process(folder, lambda kind, body: None)
        if process is not None:
            log.warning("replica.killed", folder=str(folder), pid=process.pid, why="nothing says what it is")
            self._nobodys.append(process)
        shutil.rmtree(folder, ignore_errors=True)

    async def _settle(self, seat: Seat, process: ReplicaProcess) -> None:
        """Hear it, or see it gone, or, if it may go on unheard, let it be."""
        hello = self._said_hello[seat.id]
        await asyncio.wait((hello, process.exited), timeout=ADOPT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        is_silent = not hello.done() and not process.exited.done()
        if is_silent and seat.spec.exclusive:
            log.warning("replica.killed", replica=seat.name, replica_id=seat.id,
                        why="it is exclusive, and did not say what it has in hand")  # fmt: skip
            await _end(process)


async def _end(process: ReplicaProcess) -> None:
    """Kill it, and see by its pidfd that it is gone."""
    process.kill()
    try:
        await asyncio.wait_for(asyncio.shield(process.exited), KILL_TIMEOUT_S)
    except TimeoutError:
        log.error("replica.not_killed", pid=process.pid, after_s=KILL_TIMEOUT_S, why="it hangs in the kernel")
