"""The exchange as a server: one loopback port for the WebSocket and for REST.

Owns time, sockets and the books of record. A pump sends the content at its pace; each session has its own protocol, its
own queue and its own sender. What the venue says, allows and answers is the protocol's (`protocol.VenueProtocol`); the
server keeps to it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from agentfarm.service import Service
from nodeagent.market.exchange.clock import VenueClock
from nodeagent.market.exchange.events import NS, Content, VenueTrade
from nodeagent.market.exchange.faults import Fault, FaultKind, FaultPlan, Frame
from nodeagent.market.exchange.generated import GeneratedContent
from nodeagent.market.exchange.protocol import RestAnswer, Rules
from nodeagent.market.exchange.registry import PROTOCOLS, Protocol
from nodeagent.market.exchange.session import Session, VenueConnection
from nodeagent.market.exchange.venue import Venue

LOOPBACK: Final = "127.0.0.1"
SESSION_QUEUE_MAX: Final = 5000
"""Frames kept for a client that does not read; then it is cut."""
YIELD_EVERY: Final = 20
FIRST_SUBSCRIBER_GRACE_S: Final = 0.3
"""A recording starts this long after the first subscription, so that the subscriptions that follow it miss nothing."""


@dataclass(frozen=True, slots=True)
class HouseRules:
    """What takes the place of the venue's own rules, so that a test need not wait. None: as the venue."""

    rest_per_s: float | None = None
    subscribe_within_s: float | None = None
    idle_close_s: float | None = None
    ping_every_s: float | None = None
    lives_s: float | None = None
    wait_for_subscriber: bool | None = None
    """Whether the content waits for the first subscription; None: where it is finite."""
    session_queue_max: int = SESSION_QUEUE_MAX

    def over(self, rules: Rules) -> Rules:
        """The venue's rules of connections, with these times where they are given."""
        times: dict[str, Any] = {
            "subscribe_within_s": self.subscribe_within_s,
            "idle_close_s": self.idle_close_s,
            "ping_every_s": self.ping_every_s,
            "lives_s": self.lives_s,
        }
        return replace(rules, **{name: time_s for name, time_s in times.items() if time_s})


class ExchangeServer(Service):
    """Use as an async context manager: it serves inside, on the port it chose."""

    _server: Server | None = None

    def __init__(
        self,
        protocol: Protocol | str = Protocol.ADVANCED,
        *,
        products: Sequence[str] = (),
        content: Content | None = None,
        seed: int = 1,
        speed: float = 1.0,
        faults: Sequence[Fault] = (),
        port: int = 0,
        house: HouseRules = HouseRules(),
    ) -> None:
        """`speed` 0 sends the content as fast as clients take it. Without `products` those of the protocol. A recording
        waits for slow clients; a generated market is a live venue and cuts them off."""
        super().__init__("exchange")
        self.protocol = Protocol(protocol)
        self._speech = PROTOCOLS[self.protocol]
        self._rules = house.over(self._speech.rules)
        self.content = content or GeneratedContent(products or self._speech.products, seed, time.time_ns())
        self.venue = Venue(self.content.openings())
        self.plan = FaultPlan(seed, list(faults))
        self.frames = Counter[str]()
        """Frames meant for clients, by channel, before faults."""
        self.refused = Counter[int]()
        """Questions over REST that were refused, by status."""
        self.speed = speed
        self.session_ended = asyncio.Event()
        """Set when a connection has ended, on either side."""
        self.is_over = asyncio.Event()
        """Set when finite content has come to its end."""
        self._port, self._session_queue_max = port, house.session_queue_max
        self._connects, self._allowance = self._rules.connects(), self._speech.allowance(house.rest_per_s)
        self._sessions: set[Session] = set()
        self._first_sent: dict[str, int] = {}
        self._go, self._subscribed = asyncio.Event(), asyncio.Event()
        if not (self.content.is_finite if house.wait_for_subscriber is None else house.wait_for_subscriber):
            self._subscribed.set()
        self._clock = VenueClock(self.content.start_ns, speed)
        self._go.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _begin(self) -> None:
        """Listen and begin the story."""
        self._server = await serve(
            self._serve_session,
            LOOPBACK,
            self._port,
            process_request=self._process_request,
            create_connection=VenueConnection,
            ping_interval=self._rules.ping_every_s,
            ping_timeout=self._rules.pong_within_s,
            max_size=64 * 1024,
            write_limit=256 * 1024,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self.run_task(self._pump(), name="pump")
        self.run_task(self._beat(), name="beat")

    async def _finish(self) -> None:
        """Close every session and the port."""
        await self._tasks.end()
        if self._server is not None:
            self._server.close()
            for session in list(self._sessions):
                session.cut()
            await self._server.wait_closed()
            self._server = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def ws_url(self) -> str:
        """The feed's address."""
        return f"ws://{LOOPBACK}:{self._port}{self._speech.ws_path}"

    @property
    def rest_url(self) -> str:
        """The REST base that belongs to the protocol spoken."""
        return f"http://{LOOPBACK}:{self._port}{self._speech.rest_base}"

    @property
    def sent_trades(self) -> dict[str, dict[int, VenueTrade]]:
        """The truth: per product every trade from the first that reached any client on, sent or lost."""
        return {
            name: {trade.trade_id: trade for trade in self.venue.markets[name].trades if trade.trade_id >= first}
            for name, first in self._first_sent.items()
        }

    @property
    def sessions(self) -> int:
        """Connections now open."""
        return len(self._sessions)

    def inject(self, fault: Fault | FaultKind | str, **settings: object) -> Fault:
        """Let a fault happen: a kind alone happens once."""
        if not isinstance(fault, Fault):
            fault = Fault(FaultKind(fault), **{"count": 1, **settings})  # type: ignore[arg-type]
        if fault.kind is FaultKind.CLOCK_STEP:
            self._clock.step(fault.seconds)
            self.plan.happened[fault.kind] += 1
        else:
            self.plan.faults.append(fault)
        return fault

    def heal(self) -> None:
        """No more faults from now on."""
        self.plan.faults.clear()

    def pause(self) -> None:
        """Let nothing more happen at the venue, apart from heartbeats."""
        self._go.clear()
        self._clock.pause()

    def resume(self) -> None:
        """Go on."""
        self._clock.resume()
        self._go.set()

    def disconnect_all(self) -> None:
        """Cut every connection."""
        for session in list(self._sessions):
            session.cut()

    def disconnect_one(self) -> None:
        """Cut one connection."""
        next(iter(self._sessions)).cut()

    def now_ns(self) -> int:
        """The venue's clock."""
        return self._clock.now_ns()

    def note(self, frames: Sequence[Frame]) -> list[Frame]:
        """Enter frames into the books of record."""
        noted = list(frames)
        for frame in noted:
            self.frames[frame.channel] += 1
        return noted

    def delivered(self, frame: Frame) -> None:
        """A frame has gone out as it was meant."""
        if frame.first_trade_id:
            first = self._first_sent.get(frame.product, frame.first_trade_id)
            self._first_sent[frame.product] = min(first, frame.first_trade_id)

    def subscribed(self) -> None:
        """A session has subscribed: content that waited may start."""
        self._subscribed.set()

    async def _pump(self) -> None:
        """Send the content at its pace."""
        if not self._subscribed.is_set():
            await self._subscribed.wait()
            await asyncio.sleep(FIRST_SUBSCRIBER_GRACE_S)
        self._clock.start()
        for number, batch in enumerate(self.content.batches()):
            await self._until(batch.sent_at_ns)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)  # a pump that is behind must not starve the senders
            self.venue.apply(batch)
            self._clock.happened(batch.sent_at_ns)
            for session in list(self._sessions):
                await session.send_event(batch, is_patient=self.content.is_finite or self.speed == 0)
        self.is_over.set()

    async def _until(self, sent_at_ns: int) -> None:
        await self._go.wait()
        while (wait_s := self._clock.wait_s(sent_at_ns)) > 0:
            await asyncio.sleep(min(wait_s, 0.5))
            await self._go.wait()

    async def _beat(self) -> None:
        """Once a second of the venue's clock, whatever else happens."""
        while True:
            await asyncio.sleep(1.0 - (self.now_ns() % NS) / NS if self.speed == 1 else 1.0)
            for session in list(self._sessions):
                session.second()

    async def _serve_session(self, connection: ServerConnection) -> None:
        assert isinstance(connection, VenueConnection)
        assert connection.request is not None
        speaker = self._speech.speaker(self.venue, connection.request.path)
        assert speaker is not None  # the handshake was let pass
        session = Session(self, connection, speaker, self._rules, self._session_queue_max)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            self.session_ended.set()

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP; let a WebSocket handshake pass, unless there are too many or no stream is there."""
        now_s = time.monotonic()
        fault = self.plan.draw((FaultKind.TOO_MANY_REQUESTS,))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if fault is not None or not self._connects.take(now_s):
                return connection.respond(429, "Too Many Requests\n")
            is_there = self._speech.speaker(self.venue, request.path) is not None
            return None if is_there else connection.respond(404, "Not Found\n")
        if fault is not None:
            return self._respond(self._allowance.refuse(fault.seconds, now_s))
        refusal = self._allowance.judge(request.path, now_s)
        return self._respond(refusal or self._speech.answer(self.venue, request.path, self.now_ns()))

    def _respond(self, answer: RestAnswer) -> Response:
        """The answer as HTTP; half of a snapshot where its fault strikes."""
        body, is_good = answer.encode(), answer.status == 200
        if not is_good:
            self.refused[answer.status] += 1
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **(self._allowance.headers() if is_good else {}),
            **answer.headers,
        }
        if answer.is_snapshot and self.plan.draw((FaultKind.CLOSE_IN_SNAPSHOT,)):
            body = body[: len(body) // 2]
        return Response(answer.status, "OK" if is_good else "Refused", Headers(headers), body)
