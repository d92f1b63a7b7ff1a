"""A WebSocket to a venue, opened again whenever it ends.

Owns sockets and nothing else: every frame, and every fact about the connection, goes to the `Sink` as it comes, in
order. It is polite: one attempt at a time, with backoff, and never more messages than the venue allows. A connection
that is silent for longer than the source promises is a stall; the session cuts it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from agentfarm.backoff import Backoff
from agentfarm.service import Tasks
from nodeagent.market.model.records import Connected, RecordKind
from nodeagent.market.model.slices import SLICE_BYTES, Portion
from nodeagent.market.model.source import Channel, Signer, Source
from nodeagent.market.session.pace import Pace, is_local

FRAME_QUEUE_MAX: Final = 1024
"""Frames received and not yet taken; beyond it the socket is not read."""
CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
STEADY_AFTER_S: Final = 10.0
"""A connection that lived so long was a good one: the next wait begins small again."""


class Sink(Protocol):
    """Where everything received goes: captured first, then understood."""

    def take(self, kind: RecordKind, connection_id: int, payload: bytes) -> None:
        """Take one fact. Does not block and does not raise."""

    async def settled(self) -> None:
        """Return when nothing that was taken waits in memory any more. To be awaited after something long."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How to keep a connection."""

    channels: tuple[Channel, ...]
    reconnect_min_s: float = 0.25
    reconnect_max_s: float = 5.0
    silence_max_s: float | None = None
    """None: what the source promises."""


class FeedSession:
    """One connection after another. `connection_id` is that of the open one, 0 while there is none."""

    def __init__(
        self,
        source: Source,
        settings: SessionSettings,
        sink: Sink,
        next_connection_id: Callable[[], int],
        signer: Signer | None = None,
        *,
        products: Iterable[str] = (),
    ) -> None:
        self._source = source
        self._products = frozenset(products)
        self._refused: frozenset[str] = frozenset()
        self._has_products = asyncio.Event()
        if self._products:
            self._has_products.set()
        self._speaking = asyncio.Lock()
        self._tasks = Tasks("session")
        self._settings = settings
        self._sink = sink
        self._next_connection_id = next_connection_id
        self._signer = signer
        self._socket: ClientConnection | None = None
        self._frame_at_s = 0.0
        self._pace = Pace(source.messages_per_s, int(source.messages_per_s))
        self.connection_id = 0
        self.connects = 0
        self.problem = "not connected yet"
        """Why there is no connection; empty while there is one."""
        self.is_over = False
        """A venue never ends; a recording does."""

    @property
    def is_connected(self) -> bool:
        """Subscribed, and frames may come."""
        return self.connection_id != 0

    async def run(self) -> None:
        """Connect, subscribe, receive, and again, until cancelled. Without products there is no connection."""
        backoff = Backoff(self._settings.reconnect_min_s, self._settings.reconnect_max_s)
        while True:
            if not self._products:
                self.problem = ""
                await self._has_products.wait()
            began_s = time.monotonic()
            try:
                await self._one_connection()
            except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
                self.problem = f"{type(error).__name__}: {error}"
            if time.monotonic() - began_s > STEADY_AFTER_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    def follow(self, products: Iterable[str]) -> None:
        """From now on these are wanted; `change` then tells the venue, a new connection does by itself."""
        self._products = frozenset(products)
        if self._products:
            self._has_products.set()
        else:
            self._has_products.clear()

    async def change(self, added: Iterable[str], gone: Iterable[str]) -> None:
        """Tell the venue on the open connection; the other products' frames go on. With no product left it is
        closed."""
        async with self._speaking:
            socket = self._socket
            if socket is None:
                return
            if not self._products:
                self.problem = "no products"
                await socket.close()
                return
            added, gone = sorted(set(added) & self._products), sorted(set(gone) - self._products)
            with suppress(ConnectionClosed):
                if gone:
                    for message in self._source.unsubscribe(gone, self._settings.channels):
                        await self._say(socket, message, message)
                if added:
                    await self._subscribe(socket, added, self._settings.channels)

    async def subscribe(self, connection_id: int, product: str, refused: frozenset[str]) -> None:
        """Ask for one product alone on that connection. `refused` ones are left out by the next connection."""
        self._refused = refused
        async with self._speaking:
            if connection_id == self.connection_id and self._socket is not None and product in self._products:
                with suppress(ConnectionClosed):
                    await self._subscribe(self._socket, (product,), self._settings.channels)

    async def resubscribe(self, connection_id: int, products: Sequence[str], channels: Sequence[Channel]) -> None:
        """Ask the open connection for fresh snapshots; nothing happens when it is another one by now."""
        async with self._speaking:
            followed = [product for product in products if product in self._products]
            if connection_id != self.connection_id or self._socket is None or not followed:
                return
            with suppress(ConnectionClosed):
                for message in self._source.unsubscribe(followed, channels):
                    await self._say(self._socket, message, message)
                await self._subscribe(self._socket, followed, channels)

    async def _one_connection(self) -> None:
        """From connecting to the end of it. Raises what ended it."""
        channels = self._settings.channels
        url = self._source.connect_url(self._asked_first(), channels)
        async with connect(
            url,
            max_size=self._source.max_frame_bytes,
            max_queue=FRAME_QUEUE_MAX,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            user_agent_header="agentfarm",
            proxy=None if is_local(url) else True,
        ) as socket:
            products = self._asked_first()
            if not products:
                return  # they went while we connected
            connection_id = self._next_connection_id()
            opened = Connected(self._source.name, url, tuple(products), tuple(channel.value for channel in channels))
            self._sink.take(RecordKind.CONNECT, connection_id, msgspec.json.encode(opened))
            self._socket, self.connection_id, self._frame_at_s = socket, connection_id, time.monotonic()
            self.connects += 1
            self._tasks.errand(self._watch(socket), name="silence")
            reason = "ended by us"
            try:
                async with asyncio.timeout(self._source.subscribe_within_s), self._speaking:
                    await self._subscribe(socket, products, channels)
                self.problem = ""
                await self._receive(socket, connection_id)
            except ConnectionClosed as closed:
                reason = self.problem or str(closed)
                self.problem = reason
                raise
            except TimeoutError:
                reason = "could not subscribe in time"
                raise
            finally:
                self._tasks.cancel()
                self._socket, self.connection_id = None, 0
                self._sink.take(RecordKind.DISCONNECT, connection_id, reason.encode())

    def _asked_first(self) -> tuple[str, ...]:
        """What a new connection asks for together: one refused name could spoil the message for all of them."""
        return tuple(sorted(self._products - self._refused or self._products))

    async def _receive(self, socket: ClientConnection, connection_id: int) -> None:
        take, portion = self._sink.take, Portion()
        while True:
            frame = await socket.recv(decode=False)
            self._frame_at_s = time.monotonic()
            take(RecordKind.RECEIVED, connection_id, frame)
            if len(frame) > SLICE_BYTES:
                await self._settle(socket)
            elif portion.is_full_with(frame):
                await asyncio.sleep(0)  # frames that wait already are received without a turn of the loop between them

    async def _settle(self, socket: ClientConnection) -> None:
        """Wait until a long frame has been worked off. Meanwhile the socket is not read: more of them would gather."""
        is_reading = socket.transport.is_reading()  # false where too many frames wait: then it is for others to resume
        if is_reading:
            socket.transport.pause_reading()
        try:
            await self._sink.settled()
        finally:
            self._frame_at_s = time.monotonic()
            if is_reading:
                socket.transport.resume_reading()

    async def _watch(self, socket: ClientConnection) -> None:
        """Cut a connection that has gone silent."""
        silence_max_s = self._settings.silence_max_s or self._source.silence_max_s
        while (left_s := self._frame_at_s + silence_max_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a moving end
            await asyncio.sleep(left_s)
        self.problem = f"nothing came for {silence_max_s:g} s"
        socket.transport.abort()

    async def _subscribe(self, socket: ClientConnection, products: Sequence[str], channels: Sequence[Channel]) -> None:
        """Subscribe; what is captured is the message without credentials."""
        public = self._source.subscribe(products, channels)
        signed = self._source.subscribe(products, channels, self._signer, int(time.time())) if self._signer else public
        for message, shown in zip(signed, public, strict=True):
            await self._say(socket, message, shown)

    async def _say(self, socket: ClientConnection, message: bytes, shown: bytes) -> None:
        await self._pace.turn()
        await socket.send(message.decode())
        self._sink.take(RecordKind.SENT, self.connection_id, shown)
