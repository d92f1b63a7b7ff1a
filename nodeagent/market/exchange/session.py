"""One connection to the exchange: its protocol, its queue, its sender, and the venue's rules about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame as SocketFrame
from websockets.frames import Opcode
from websockets.protocol import Event

from agentfarm.service import first_of
from nodeagent.market.exchange.events import Batch
from nodeagent.market.exchange.faults import FaultKind, FaultPlan, Frame
from nodeagent.market.exchange.protocol import Rules, Speaker
from nodeagent.market.exchange.venue import Venue

PATIENCE_S: Final = 30.0
GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER = 1001, 1008, 1013


class VenueConnection(ServerConnection):
    """A connection that also reports the client's PING and PONG, which some venues count."""

    on_control: Callable[[], None] | None = None

    def process_event(self, event: Event) -> None:
        """Called by the library for each event of the protocol."""
        super().process_event(event)
        is_control = isinstance(event, SocketFrame) and event.opcode in (Opcode.PING, Opcode.PONG)
        if is_control and self.on_control is not None:
            self.on_control()


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
        connection: VenueConnection,
        speaker: Speaker,
        rules: Rules,
        queue_max: int,
    ) -> None:
        self._office = office
        self._connection = connection
        self._speaker = speaker
        self._rules = rules
        self._queue: asyncio.Queue[Frame] = asyncio.Queue(queue_max)
        self._room = asyncio.Event()
        self._held: list[str] = []
        self._messages = rules.messages()
        self._data_at_s = time.monotonic()
        self._subscribed = asyncio.Event()
        self._spoke_too_much = asyncio.Event()
        if rules.counts_control_frames:
            connection.on_control = self._count_message
        if speaker.is_subscribed:
            self._has_subscribed()

    async def run(self) -> None:
        """Serve until either side ends it."""
        rules = self._rules
        work = [self._listen(), self._send(), self._end_talk()]
        if rules.subscribe_within_s is not None:
            work.append(self._end_unsubscribed(rules.subscribe_within_s))
        if rules.idle_close_s is not None:
            work.append(self._end_idle(rules.idle_close_s))
        if rules.lives_s is not None:
            work.append(self._end_old(rules.lives_s))
        await first_of(*work)

    async def send_event(self, batch: Batch, *, is_patient: bool) -> None:
        """Queue the frames that an event brings here; a patient sender waits for room first, so that frames are
        queued in the order of their numbers."""
        if is_patient and self._queue.qsize() > self._queue.maxsize // 2:
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), PATIENCE_S)
        for frame in self._office.note(self._speaker.frames_of(batch, self._office.now_ns())):
            self._put(frame)

    def second(self) -> None:
        """Queue what comes once a second."""
        for frame in self._office.note(self._speaker.second(self._office.now_ns())):
            self._put(frame)

    def cut(self) -> None:
        """Drop the connection without a word, as a network does."""
        self._connection.transport.abort()

    def _count_message(self) -> None:
        if not self._messages.take(time.monotonic()):
            self._spoke_too_much.set()

    def _has_subscribed(self) -> None:
        self._subscribed.set()
        self._office.subscribed()

    def _put(self, frame: Frame) -> None:
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.cut()

    async def _listen(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self._connection:
                self._count_message()
                if self._spoke_too_much.is_set():
                    await self._end_talk()
                    return
                text = message if isinstance(message, str) else message.decode(errors="replace")
                for frame in self._office.note(self._speaker.receive(text, self._office.now_ns())):
                    self._put(frame)
                if self._speaker.is_subscribed:
                    self._has_subscribed()

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
                if verdict.befallen is FaultKind.SHUTDOWN:
                    return await self._shut_down()

    async def _send_half(self, text: str) -> None:
        """The first half of a message as a fragment, then silence."""

        async def fragments() -> AsyncIterator[str]:
            yield text[: len(text) // 2]
            self.cut()
            await asyncio.sleep(0)
            yield text[len(text) // 2 :]

        with suppress(ConnectionClosed):
            await self._connection.send(fragments())

    async def _shut_down(self) -> None:
        for frame in self._office.note(self._speaker.farewell(self._office.now_ns())):
            await self._connection.send(frame.text)
        await self._connection.close(GOING_AWAY, "the server shuts down")

    async def _end_talk(self) -> None:
        await self._spoke_too_much.wait()
        await self._connection.close(POLICY_VIOLATION, "ErrSlowRead: rate limit exceeded")

    async def _end_unsubscribed(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._subscribed.wait()
        except TimeoutError:
            await self._connection.close(POLICY_VIOLATION, "no subscription in time")
            return
        await asyncio.Event().wait()

    async def _end_idle(self, idle_close_s: float) -> None:
        await self._subscribed.wait()
        while (left_s := self._data_at_s + idle_close_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a moving end
            await asyncio.sleep(left_s)
        await self._connection.close(TRY_AGAIN_LATER, "no updates")

    async def _end_old(self, lives_s: float) -> None:
        await asyncio.sleep(lives_s)
        await self._connection.close(GOING_AWAY, "the connection is too old")
