"""One node's stream as the controller writes it: what waits to be sent, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from agentfarm.wire import link_pb2 as wire
from controller.core.model import NodeName
from controller.link import translate

OUTBOX_MESSAGES_MAX: Final = 20_000
"""A session with more unsent messages is given up: its node does not read."""
ACK_GATHER_S: Final = 0.02
"""A node writes results to its disk that are not acknowledged within 50 ms."""


class Session:
    """One node's stream."""

    def __init__(self, number: int, node: NodeName, *, has_services: bool) -> None:
        self.number = number
        self.node = node
        self.has_services = has_services
        self._outbox: deque[wire.ControllerMessage] = deque()
        self._wake = asyncio.Event()
        self._acknowledged: list[int] = []
        self.closed = ""

    def acknowledge(self, tokens: Sequence[int]) -> None:
        """Say that these results are stored, or refused: soon, many at once. The node only has to hear it before it
        would write them to its disk."""
        if not self._acknowledged:
            asyncio.get_running_loop().call_later(ACK_GATHER_S, self._put_acknowledged)
        self._acknowledged.extend(tokens)

    def _put_acknowledged(self) -> None:
        tokens, self._acknowledged = self._acknowledged, []
        self.put(translate.results_ack(tokens))

    def put(self, message: wire.ControllerMessage) -> None:
        """Queue a message for the node."""
        if len(self._outbox) >= OUTBOX_MESSAGES_MAX:
            self.close("the node does not read")
            return
        self._outbox.append(message)
        self._wake.set()

    def close(self, reason: str) -> None:
        """End the stream once what is being written is written."""
        self.closed = self.closed or reason
        self._wake.set()

    async def pump(self, context: Any) -> None:
        """Write what is queued until the session is closed."""
        while not self.closed:
            while self._outbox and not self.closed:
                await context.write(self._outbox.popleft())
            if not self._outbox and not self.closed:
                self._wake.clear()
                await self._wake.wait()
