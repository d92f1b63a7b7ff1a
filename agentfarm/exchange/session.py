"""One connection to the exchange: its protocol, its queue, its sender, and the venue's rules about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from agentfarm.exchange.advanced import AdvancedSession
from agentfarm.exchange.coinbase_exchange import ExchangeSession
from agentfarm.exchange.events import Batch
from agentfarm.exchange.faults import FaultKind, FaultPlan, Frame
from agentfarm.exchange.limits import TokenBucket
from agentfarm.exchange.venue import Venue

PATIENCE_S: Final = 30.0
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


class Office(Protocol):
    """What a session needs of the server."""

    venue: Venue
    plan: FaultPlan

    def note(self, frames: Sequence[Frame]) -> list[Frame]:
        """Enter frames into the books of record."""

    def delivered(self, frame: Frame) -> None:
        """A frame has gone out as it was meant."""

    def subscribed(self) -> None:
        """A session has subscribed."""

    def now_ns(self) -> int:
        """The venue's clock."""


class Session:
    """One connection: a protocol, a queue, a sender."""

    def __init__(
        self,
        office: Office,
        connection: ServerConnection,
        protocol: type[AdvancedSession] | type[ExchangeSession],
        queue_max: int,
    ) -> None:
        self._office = office
        self._connection = connection
        self._protocol = protocol(office.venue)
        self._queue: asyncio.Queue[Frame] = asyncio.Queue(queue_max)
        self._room = asyncio.Event()
        self._held: list[str] = []
        self._messages = TokenBucket(protocol.messages_per_s, protocol.messages_per_s)
        self._data_at_s = time.monotonic()
        self._subscribed = asyncio.Event()

    async def run(self, subscribe_within_s: float, idle_close_s: float) -> None:
        """Serve until either side ends it."""
        tasks = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._send()),
            asyncio.create_task(self._watch(subscribe_within_s, idle_close_s)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def tell(self, batch: Batch, *, is_patient: bool) -> None:
        """Queue what this session is told of an event; a patient teller waits for room first, so that frames are
        queued in the order of their numbers."""
        if is_patient and self._queue.qsize() > self._queue.maxsize // 2:
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), PATIENCE_S)
        for frame in self._office.note(self._protocol.tell(batch, self._office.now_ns())):
            self._put(frame)

    def second(self) -> None:
        """Queue what comes once a second."""
        for frame in self._office.note(self._protocol.second(self._office.now_ns())):
            self._put(frame)

    def cut(self) -> None:
        """Drop the connection without a word, as a network does."""
        self._connection.transport.abort()

    def _put(self, frame: Frame) -> None:
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.cut()

    async def _listen(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self._connection:
                if not self._messages.take(time.monotonic()):
                    await self._connection.close(POLICY_VIOLATION, "ErrSlowRead: rate limit exceeded")
                    return
                text = message if isinstance(message, str) else message.decode(errors="replace")
                for frame in self._office.note(self._protocol.receive(text, self._office.now_ns())):
                    self._put(frame)
                if self._protocol.is_subscribed:
                    self._subscribed.set()
                    self._office.subscribed()

    async def _send(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                frame = await self._queue.get()
                if self._queue.qsize() < self._queue.maxsize // 4:
                    self._room.set()
                verdict = self._office.plan.judge(frame, self._held)
                match verdict.befallen:
                    case FaultKind.STALL:
                        await asyncio.sleep(verdict.seconds)
                    case FaultKind.CLOSE:
                        return self.cut()
                    case FaultKind.CLOSE_IN_SNAPSHOT:
                        return await self._send_half(frame.text)
                    case FaultKind.SLOW_CONSUMER:
                        return await self._connection.close(POLICY_VIOLATION, "ErrSlowConsume")
                for text in verdict.texts:
                    await self._connection.send(text)
                if frame.text in verdict.texts:
                    self._office.delivered(frame)
                self._data_at_s = time.monotonic()

    async def _send_half(self, text: str) -> None:
        """The first half of a message as a fragment, then silence for ever."""

        async def fragments() -> AsyncIterator[str]:
            yield text[: len(text) // 2]
            self.cut()
            await asyncio.sleep(0)
            yield text[len(text) // 2 :]

        with suppress(ConnectionClosed):
            await self._connection.send(fragments())

    async def _watch(self, subscribe_within_s: float, idle_close_s: float) -> None:
        try:
            async with asyncio.timeout(subscribe_within_s):
                await self._subscribed.wait()
        except TimeoutError:
            await self._connection.close(POLICY_VIOLATION, "no subscription in time")
            return
        while (left_s := self._data_at_s + idle_close_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a moving end
            await asyncio.sleep(left_s)
        await self._connection.close(TRY_AGAIN_LATER, "no updates")
