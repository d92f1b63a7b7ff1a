"""The node's stream to the controller over gRPC, made again whenever it breaks.

Everything that proves the node alive and useful goes over this one stream. `nodeagent/core/session.py` decides what is
said on it and what follows from what is heard. The other side ignores what it does not know, and so do we.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc

from agentfarm.limits import LINK_MESSAGE_MAX_BYTES
from agentfarm.service import first_of
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire.link_pb2_grpc import LinkStub
from nodeagent.core.outgoing import Outgoing
from nodeagent.core.session import WELCOME_TIMEOUT_S, Session
from nodeagent.link import release_0_1
from nodeagent.link.calls import Calls
from nodeagent.link.knock import wait_or_opened
from nodeagent.machine.logging import log

WRITE_EVERY_S: Final = 0.001
GATHER_FROM: Final = 4
"""Results in the last write from which on it is worth waiting for more."""

CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", LINK_MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", LINK_MESSAGE_MAX_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
BROKEN: Final = (
    grpc.aio.AioRpcError, grpc.aio.UsageError, TimeoutError, OSError,
    asyncio.InvalidStateError,  # gRPC's word for a write to a stream that has just ended
)  # fmt: skip
_REFUSALS: Final = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION,
     grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peer:
    """Where the controller is, and how to be sure of it. credentials: made for each stream."""

    address: str
    credentials: Callable[[], grpc.ChannelCredentials]
    expected_name: str = ""
    """The name in its certificate, where that is not the address's."""


class Refused(Exception):
    """The controller does not want us."""


class Link:
    """Keeps one stream. `run` until cancelled."""

    def __init__(self, peer: Peer, session: Session, outgoing: Outgoing, wake: asyncio.Event, calls: Calls) -> None:
        self.is_connected = False
        self.connected = asyncio.Event()
        self.problem = "not connected yet"
        self._peer = peer
        self._session = session
        self._outgoing = outgoing
        self._wake = wake
        self._calls = calls
        self._again = asyncio.Event()

    async def run(self) -> None:
        """Connect, serve, and connect again: at once after a working stream broke, then less and less often; and when
        a controller that was gone listens again."""
        try:
            while True:
                began = asyncio.get_running_loop().time()
                is_refused = False
                try:
                    await self._stream()
                    self.problem = "the controller ended the stream"
                except Refused as problem:
                    is_refused = True
                    self._complain(f"refused: {problem}", "error")
                except BROKEN as problem:
                    self._complain(_words(problem), "warning")
                finally:
                    self._disconnected()
                chance = random.random()  # noqa: S311 - not a secret
                wait_s = self._session.retry_s(began, chance, is_refused=is_refused)
                await wait_or_opened(self._peer.address, wait_s, chance)
        finally:
            self._session.close()

    def reintroduce(self) -> None:
        """The node is not what its Hello said any more: say Hello again, on a new stream."""
        self._again.set()

    # -------------------------------------------------------------- one stream

    async def _stream(self) -> None:
        """One stream, from Hello to its end. Raises what broke it."""
        options: list[tuple[str, int | str]] = [*CHANNEL_OPTIONS]
        if self._peer.expected_name:
            options.append(("grpc.ssl_target_name_override", self._peer.expected_name))
        channel = grpc.aio.secure_channel(self._peer.address, self._peer.credentials(), options=options)
        try:
            stub = LinkStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Connect()
            welcome = await self._greet(call)
            self._calls.stub = stub
            await self._serve(call, welcome)
        finally:
            self._calls.stub = None
            await channel.close(None)

    async def _greet(self, call: Any) -> wire.Welcome:
        """Hello and Welcome."""
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                await call.wait_for_connection()
                self._again.clear()
                hello = self._session.hello()
                release_0_1.fill_hello(hello)
                await call.write(wire.NodeMessage(hello=hello))
                first = await call.read()
        except grpc.aio.AioRpcError as problem:
            if problem.code() in _REFUSALS:
                raise Refused(problem.details() or problem.code().name) from problem
            raise
        if first is grpc.aio.EOF or not first.HasField("welcome"):
            if await call.code() in _REFUSALS:
                raise Refused(await call.details())
            raise OSError("the controller did not say Welcome")
        return wire.Welcome.FromString(first.welcome.SerializeToString())

    async def _serve(self, call: Any, welcome: wire.Welcome) -> None:
        self.is_connected = True
        self.problem = ""
        silence: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._session.welcomed(welcome, lambda silent_s: _give_up(silence, silent_s))
        self.connected.set()
        log.info("link.connected", controller=self._peer.address, controller_epoch=welcome.controller_epoch)
        try:
            ended = await first_of(self._read(call), self._write(call), _until(silence), self._again.wait())
            ended.result()
        finally:
            self._session.ended()
            call.cancel()

    async def _read(self, call: Any) -> None:
        take = self._session.take if self._session.has_services else release_0_1.hearing(self._session.take)
        while (message := await call.read()) is not grpc.aio.EOF:
            take(message)
        code = await call.code()
        if code in _REFUSALS:
            raise Refused(await call.details())
        if code is not grpc.StatusCode.OK:
            raise OSError(f"{code.name}: {await call.details()}")

    async def _write(self, call: Any) -> None:
        """The first fact leaves at once; under load, what gathers in a millisecond goes together."""
        loop = asyncio.get_running_loop()
        drain = self._outgoing.drain if self._session.has_services else release_0_1.draining(self._outgoing.drain)
        written_at = 0.0
        while True:
            await self._wake.wait()
            gather_s = written_at + WRITE_EVERY_S - loop.time()
            if gather_s > 0 and self._outgoing.drained_results >= GATHER_FROM:
                await asyncio.sleep(gather_s)
            self._wake.clear()
            for message in drain():
                await call.write(message)
            written_at = loop.time()

    def _disconnected(self) -> None:
        if self.is_connected:
            log.warning("link.lost", problem=self.problem)
        self.is_connected = False
        self.connected.clear()
        self._session.ended()

    def _complain(self, problem: str, level: str) -> None:
        if problem != self.problem:
            log.tell(level, "link.failed", {"controller": self._peer.address, "problem": problem})
        self.problem = problem


async def _until(silence: asyncio.Future[None]) -> None:
    await silence


def _give_up(silence: asyncio.Future[None], silent_s: float) -> None:
    if not silence.done():
        silence.set_exception(TimeoutError(f"a heartbeat went unanswered for {silent_s:g} s"))


def _words(problem: BaseException) -> str:
    if isinstance(problem, grpc.aio.AioRpcError):
        return f"{problem.code().name}: {problem.details()}"
    with suppress(Exception):
        return str(problem) or type(problem).__name__
    return type(problem).__name__
