"""A sink that keeps everything, and wakes whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from nodeagent.market.model.records import RecordKind

WITHIN_S: Final = 20.0


class KeptSink:
    """Implements `nodeagent.market.session.websocket.Sink`."""

    def __init__(self) -> None:
        self.taken: list[tuple[RecordKind, int, bytes]] = []
        self._more = asyncio.Event()

    def take(self, kind: RecordKind, connection_id: int, payload: bytes) -> None:
        self.taken.append((kind, connection_id, payload))
        self._more.set()

    async def settled(self) -> None:
        """Nothing ever waits here."""

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                self._more.clear()
                await self._more.wait()

    def of(self, kind: RecordKind) -> list[bytes]:
        """Payloads of that kind."""
        return [payload for taken, _, payload in self.taken if taken is kind]
