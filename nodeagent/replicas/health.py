"""Whether replicas are well: asked by PING, more often when they work; and what they weigh, now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentfarm.service import Service
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.seat import Seat
from nodeagent.machine.measure import process_use
from nodeagent.replicas.logs import bound_rotated
from nodeagent.runner.protocol import frames
from nodeagent.runner.protocol.frames import Pong

PING_EVERY_S: Final = 1.0
IDLE_PING_EVERY_S: Final = 5.0
BLOCKED_MAX_S: Final = 10.0
"""A replica with work whose loop has not turned, or that has not answered, for this long is unhealthy."""
IDLE_SILENT_MAX_S: Final = 30.0
"""One without work that has not answered for this long is started again."""
WEIGH_EVERY_S: Final = 5.0


class Health(Service):
    """`seats` is the roster's, read here. reweighed: called when a replica needs another amount of memory."""

    def __init__(
        self,
        seats: Mapping[int, Seat],
        has_work: Callable[[Seat], bool],
        log_path: Callable[[int], Path],
        reweighed: Callable[[Seat], None],
    ) -> None:
        super().__init__("health")
        self._seats = seats
        self._has_work = has_work
        self._log_path = log_path
        self._reweighed = reweighed
        self._weighed_at = 0.0
        self._next_weighed = 0
        self.outputs_dropped: dict[int, int] = {}

    async def _begin(self) -> None:
        """Begin to ask."""
        self.run_task(self._watch())

    def pong(self, seat: Seat, pong: Pong) -> None:
        """An answer. One that says the loop is blocked is an answer too, only not a good one."""
        seat.ponged_at = asyncio.get_running_loop().time()
        self.outputs_dropped[seat.id] = pong.outputs_dropped
        if pong.blocked_s > BLOCKED_MAX_S and pong.running:
            seat.healthy(False, f"Its event loop has been blocked for {pong.blocked_s:.0f} s by what it runs.")
        else:
            seat.healthy(True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_EVERY_S)
            now = loop.time()
            for seat in self._seats.values():
                if seat.takes_work:
                    self._look(seat, now)
            if now - self._weighed_at >= WEIGH_EVERY_S:
                self._weighed_at = now
                self._weigh_one()

    def _look(self, seat: Seat, now: float) -> None:
        works = self._has_work(seat)
        silent_s = now - seat.ponged_at
        if works and silent_s > BLOCKED_MAX_S and seat.pinged_at > seat.ponged_at:
            seat.healthy(False, f"It has not answered for {silent_s:.0f} s; something holds its interpreter.")
        elif not works and silent_s > IDLE_SILENT_MAX_S and seat.pinged_at > seat.ponged_at:
            seat.kill("it has nothing to do and does not answer")
        if now - seat.pinged_at >= (PING_EVERY_S / 2 if works else IDLE_PING_EVERY_S) and seat.process is not None:
            seat.pinged_at = now
            seat.process.send(frames.frame_ping(int(now)))

    def _weigh_one(self) -> None:
        """One replica a turn: reading what a process shares with others is not free."""
        seats = [seat for seat in self._seats.values() if seat.process is not None]
        if not seats:
            return
        self._next_weighed = (self._next_weighed + 1) % len(seats)
        seat = seats[self._next_weighed]
        with suppress(OSError):
            bound_rotated(self._log_path(seat.id))
        use = process_use(seat.status.pid)
        if use is not None and seat.status.state != wire.REPLICA_STATE_STARTING:
            before, seat.status.private_mib = seat.status.private_mib, round(use.private_mib)
            if abs(before - seat.status.private_mib) > max(1, before // 10):
                self._reweighed(seat)
