"""Connections of strangers: how many, for how long, and how much they may send before they are known.

Everybody who reaches the port may open connections, send heads slowly or without end, and leave answers unread. So each
of that has a bound (`ConnectionLimits`), and a farm that is full makes room: the connection that has let us wait the
longest goes first. One whose request is being answered never does. This module must never know what a request means.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from agentfarm.errors import FarmError, Unavailable
from controller.gateway.http.limits import HEADERS_MAX, PIPELINE_MAX, ConnectionLimits
from controller.gateway.http.problems import MEDIA_TYPE, HeadTooLarge, HeadTooSlow, problem_of, status_of

SWEEP_S: Final = 1.0


class Connections:
    """Every open connection. `waiting` holds those that we wait for, the longest wait first."""

    def __init__(self, limits: ConnectionLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.refusals: Counter[str] = Counter()
        """By the name of the limit; connections that were closed to make room count too."""
        self.waiting: dict[Connection, None] = {}
        self._open: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._loop = loop
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def take(self, connection: Connection) -> bool:
        """Let it in, if there is room or room can be made."""
        address = connection.address
        of_address = self._by_address[address] if address else 0
        full = ""
        if of_address >= self.limits.connections_per_address_max:
            full = "connections_per_address_max"
        elif len(self._open) >= self.limits.connections_max:
            address, full = "", "connections_max"
        if full:
            self.refusals[full] += 1
            if not self._make_room(address):
                return False
        self._open.add(connection)
        if connection.address:
            self._by_address[connection.address] += 1
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        return True

    def drop(self, connection: Connection) -> None:
        """It is closed. Safe twice."""
        self.waiting.pop(connection, None)
        if connection not in self._open:
            return
        self._open.remove(connection)
        if address := connection.address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _make_room(self, address: str) -> bool:
        for connection in self.waiting:
            if not address or connection.address == address:
                self.drop(connection)
                connection.cut()
                return True
        return False

    def _sweep(self) -> None:
        """One timer for all: none has to be set for each request."""
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep) if self._open else None
        now = self._loop.time()
        for connection in list(self.waiting):
            connection.look(now)


class Connection(HttpToolsProtocol):
    """One connection, as uvicorn serves it, within the limits."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self.address = ""
        """Of the peer; empty on this machine, which has no limit of its own."""
        self._connections = connections
        self._limits = connections.limits
        self._is_in_head = True
        self._waits_since = self.loop.time()
        self._head_bytes = 0
        self._head_size = 0
        self._refusal: FarmError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = _counted(self.client[0] if self.client else "")
        if self._connections.take(self):
            self._wait()
        else:
            self._answer(Unavailable("Too many connections are open.", remedy="Try again later."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.drop(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._is_in_head and (self.cycle is None or self.cycle.response_complete):
            self._begin_head()
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_max_bytes:
                self._answer(_head_too_large("head_max_bytes", self._limits.head_max_bytes))
        elif self.cycle is not None and self.cycle.more_body:
            self._waits_since = self.loop.time()

    def look(self, now: float) -> None:
        """Close it where we have waited too long."""
        waited_s = now - self._waits_since
        if self._is_in_head and waited_s > self._limits.head_timeout_s:
            self._answer(HeadTooSlow("The head of the request did not come.", limit="head_timeout_s"))
        elif waited_s > self._limits.idle_timeout_s:
            self.cut()

    def cut(self) -> None:
        """Close it at once; what is unread stays so."""
        self.transport.abort()

    # -------------------------------------------------------------- what the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)
        if len(self.headers) > HEADERS_MAX:
            self._refuse(_head_too_large("HEADERS_MAX", HEADERS_MAX))

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINE_MAX:
            self._refuse(_head_too_large("PIPELINE_MAX", PIPELINE_MAX))
        self._is_in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._connections.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait()

    # -------------------------------------------------------------- answers that are not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._connections.waiting.pop(self, None)

    # -------------------------------------------------------------- small things

    def _wait(self) -> None:
        self._waits_since = self.loop.time()
        self._connections.waiting[self] = None

    def _begin_head(self) -> None:
        self._is_in_head = True
        self._head_bytes = self._head_size = 0
        self._waits_since = self.loop.time()

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._limits.head_max_bytes:
            self._refuse(_head_too_large("head_max_bytes", self._limits.head_max_bytes))

    def _refuse(self, refusal: FarmError) -> None:
        """Out of a callback of the parser: it stops, and `send_400_response` follows."""
        self._refusal = refusal
        raise ValueError(refusal.problem)

    def send_400_response(self, msg: str) -> None:
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self._answer(self._refusal)

    def _answer(self, refusal: FarmError) -> None:
        """Refuse without the application, and close."""
        self._connections.drop(self)
        if self.transport.is_closing():
            return
        if limit := refusal.data.get("limit"):
            self._connections.refusals[str(limit)] += 1
        body, status = orjson.dumps(problem_of(refusal)), status_of(refusal)
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (MEDIA_TYPE.encode(), len(body))
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def _head_too_large(limit: str, maximum: int) -> HeadTooLarge:
    return HeadTooLarge(
        f"The head of the request is beyond {limit}, {maximum:,}.", remedy="Send fewer and shorter headers.",
        limit=limit, maximum=maximum,
    )  # fmt: skip


def _counted(address: str) -> str:
    try:
        return "" if ip_address(address).is_loopback else address
    except ValueError:
        return address
