"""A client that speaks to the exchange and remembers what it heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from nodeagent.market.exchange import ExchangeServer

WITHIN_S = 10.0


class Client:
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(WITHIN_S):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        self.heard.append(message)
        return message

    async def hear_until(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Messages up to the first that is it."""
        while not is_it(message := await self.hear()):
            pass
        return message

    async def end(self) -> tuple[int, str]:
        """Read up to the close: code and reason. Behind frames that fill the queue a close is not seen."""
        async with asyncio.timeout(WITHIN_S):
            with suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
        return self.socket.close_code or 0, self.socket.close_reason or ""


@asynccontextmanager
async def client_of(exchange: ExchangeServer) -> AsyncIterator[Client]:
    """Connect."""
    async with connect(exchange.ws_url, max_size=2**24, close_timeout=1, proxy=None) as socket:
        yield Client(socket)
