"""The streams of the nodes, as they are open now. The engine sends its effects through them.

Sessions hold no state that matters: when one breaks, the next Hello settles everything. The table knows neither the
engine nor gRPC, so it is made before both.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from agentfarm.wire import link_pb2 as wire
from controller.core.model import NodeName
from controller.core.transition import AckResults, CloseSession, Effect, SetDesired
from controller.link import release_0_1, translate

log = structlog.get_logger("controller.link")

OUTBOX_MESSAGES_MAX: Final = 20_000
"""Unsent messages after which a session counts as stuck."""
ACK_GATHER_S: Final = 0.02
"""How long acknowledgements are gathered. A node writes results that are not acknowledged within 50 ms."""


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
        self._unread: set[str] = set()

    def unread(self, service: str, problem: DecodeError) -> None:
        """A message of this service cannot be read. The log says it once a stream."""
        if service not in self._unread:
            self._unread.add(service)
            log.error(
                "link.service_not_read", node=self.node, session=self.number, service=service, problem=str(problem)
            )

    def acknowledge(self, tokens: Sequence[int]) -> None:
        """Tell the node that these results are stored, or refused. It waits a moment and sends many at once: the node
        only has to hear it before it would write them to its disk."""
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


class Sessions:
    """Every open stream, by its number."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._numbers = itertools.count(1)

    def open(self, node: NodeName, *, has_services: bool) -> Session:
        """A new session of a node. Its number was never used before."""
        session = Session(next(self._numbers), node, has_services=has_services)
        self._sessions[session.number] = session
        return session

    def drop(self, session: Session) -> None:
        """Its stream has ended. Safe twice."""
        self._sessions.pop(session.number, None)

    def get(self, number: int) -> Session | None:
        """The session of that number, if its stream is open."""
        return self._sessions.get(number)

    def deliver(self, effect: Effect) -> None:
        """Send one effect of a committed turn. Without a session nothing is sent: the node will say Hello."""
        session = self._sessions.get(effect.session)
        if session is None:
            return
        if isinstance(effect, AckResults):
            session.acknowledge(effect.tokens)
            return
        message = translate.message(effect)
        if message is None:
            assert isinstance(effect, CloseSession)
            session.close(effect.reason)
        else:
            if isinstance(effect, SetDesired) and not session.has_services:
                release_0_1.desired(message.desired)
            session.put(message)

    def close_all(self, reason: str) -> None:
        """End every stream."""
        for session in list(self._sessions.values()):
            session.close(reason)
