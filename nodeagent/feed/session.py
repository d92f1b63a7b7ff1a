"""A WebSocket to a venue, kept open for ever, and its REST questions.

Owns sockets and nothing else: every frame, and every fact about the connection, goes to the `Sink` as it comes, in
order.
Polite: one attempt at a time, waits that grow, are jittered and have a cap; never more than the venue allows. A
connection
that is silent for longer than the source promises is a stall, and is cut.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from agentfarm.errors import InvalidRequest
from nodeagent.feed.records import Connected, RecordKind, RestAnswer
from nodeagent.feed.source import Channel, Purpose, RestRequest, Signer, Source

FRAME_QUEUE_MAX: Final = 1024
"""Frames received and not yet taken; beyond it the socket is not read."""
CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
STEADY_AFTER_S: Final = 10.0
"""A connection that lived so long was a good one: the next wait begins small again."""
REST_TIMEOUT_S: Final = 20.0
REST_PER_S: Final = 5.0
REST_PAGES_MAX: Final = 500
"""Pages followed for one hole in one go; the rest of the hole is asked for at its next turn."""
REST_ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024
MESSAGES_PER_S: Final = 6.0
"""Ours to the venue; Coinbase Advanced Trade allows 8."""

LONG_FRAME_BYTES: Final = 256 * 1024
"""A snapshot. Reading the largest takes 60 ms, in which nothing else runs."""


class Sink(Protocol):
    """Where everything received goes: captured first, then understood."""

    def take(self, kind: RecordKind, connection_id: int, payload: bytes) -> None:
        """Take one fact. Does not block and does not raise."""


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
        self._settings = settings
        self._sink = sink
        self._next_connection_id = next_connection_id
        self._signer = signer
        self._socket: ClientConnection | None = None
        self._frame_at_s = 0.0
        self._pace = Pace(MESSAGES_PER_S)
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
        attempt = 0
        while True:
            if not self._products:
                self.problem = ""
                await self._has_products.wait()
            began_s = time.monotonic()
            try:
                await self._one_connection()
            except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
                self.problem = f"{type(error).__name__}: {error}"
            attempt = 1 if time.monotonic() - began_s > STEADY_AFTER_S else attempt + 1
            await asyncio.sleep(backoff_s(attempt, self._settings.reconnect_min_s, self._settings.reconnect_max_s))

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
            wanted = [product for product in products if product in self._products]
            if connection_id != self.connection_id or self._socket is None or not wanted:
                return
            with suppress(ConnectionClosed):
                for message in self._source.unsubscribe(wanted, channels):
                    await self._say(self._socket, message, message)
                await self._subscribe(self._socket, wanted, channels)

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
            watch = asyncio.create_task(self._watch(socket))
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
                watch.cancel()
                self._socket, self.connection_id = None, 0
                self._sink.take(RecordKind.DISCONNECT, connection_id, reason.encode())

    def _asked_first(self) -> tuple[str, ...]:
        """What a new connection asks for together: one refused name could spoil the message for all of them."""
        return tuple(sorted(self._products - self._refused or self._products))

    async def _receive(self, socket: ClientConnection, connection_id: int) -> None:
        take = self._sink.take
        while True:
            frame = await socket.recv(decode=False)
            self._frame_at_s = time.monotonic()
            take(RecordKind.RECEIVED, connection_id, frame)
            if len(frame) >= LONG_FRAME_BYTES:
                await asyncio.sleep(0)  # frames that wait already would follow in the same turn of the loop

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


class RestClient:
    """Asks the venue, one question at a time; each answer goes to the sink, whatever its status."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._pace = Pace(REST_PER_S)
        self._client = httpx.AsyncClient(
            timeout=REST_TIMEOUT_S, headers={"User-Agent": "agentfarm"}, trust_env=not is_local(source.rest_url)
        )
        self.requests = 0
        self.failures = 0
        self.problem = ""

    async def ask(self, request: RestRequest) -> None:
        """Ask, and follow the pages of a hole. Failures are counted; whoever asked asks again by its own clock."""
        following: RestRequest | None = request
        for _ in range(REST_PAGES_MAX):
            if following is None:
                return
            answer = await self._get(following)
            if answer is None:
                return
            self._sink.take(RecordKind.REST, max(0, following.connection_id), answer.encode())
            if answer.status != httpx.codes.OK:
                self.failures += 1
                self.problem = f"{following.url} answered {answer.status}"
                return
            self.problem = ""
            following = self._next_page(answer)

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()

    async def _get(self, request: RestRequest) -> RestAnswer | None:
        await self._pace.turn()
        self.requests += 1
        try:
            async with self._client.stream("GET", request.url) as response:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > REST_ANSWER_MAX_BYTES:
                        raise httpx.HTTPError("the answer is too large")
                return RestAnswer(request, response.status_code, bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.failures += 1
            self.problem = f"{request.url}: {type(error).__name__} {error}"
            return None

    def _next_page(self, answer: RestAnswer) -> RestRequest | None:
        if answer.request.purpose is not Purpose.TRADES:
            return None
        try:
            return self._source.parse_trades(answer.request, answer.body).next_request
        except InvalidRequest:
            return None


class Pace:
    """Lets turns pass at most so often; the first come at once."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1.0 / per_s
        self._burst = max(1, int(per_s))
        self._next_s = 0.0

    async def turn(self) -> None:
        """Return when it is one's turn."""
        now_s = time.monotonic()
        self._next_s = max(self._next_s, now_s - self._gap_s * self._burst) + self._gap_s
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)


def is_local(url: str) -> bool:
    """Whether an address is this machine, which no proxy should be asked for."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def backoff_s(attempt: int, min_s: float, max_s: float) -> float:
    """The wait before the next attempt (counted from 1): doubling, capped, and between half and all of that."""
    ceiling = min(max_s, min_s * 2.0 ** min(attempt - 1, 16))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnects, guards nothing
