"""The node's stream to the controller: Hello, heartbeats, work in, results out; made again whenever it breaks.

Everything that proves the node alive and useful goes over this one stream. What the other side does not know it
ignores, and so do we. Only the monotonic clock decides.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from agentfarm.backoff import Backoff, backoff_s
from agentfarm.limits import LINK_MESSAGE_MAX_BYTES
from agentfarm.service import first_of
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire.link_pb2_grpc import LinkStub
from nodeagent.core.heartbeat import Heartbeat
from nodeagent.core.lease import Lease
from nodeagent.core.outgoing import Outgoing
from nodeagent.link import release_0_1
from nodeagent.link.calls import Calls
from nodeagent.link.knock import wait_or_opened
from nodeagent.machine.logging import log

PROTOCOL: Final = 1
WELCOME_TIMEOUT_S: Final = 10.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 1.0
REFUSED_BACKOFF_S: Final = 10.0
EXCLUSIVE_KILL_WITHIN_S: Final = 1.0
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


class Node(Protocol):
    """What the link tells and asks of the rest of the daemon."""

    def hello(self) -> wire.Hello:
        """Everything the controller must know; on a new stream, before anything else."""
        ...

    def measured(self) -> wire.Measured: ...
    def reports(self) -> list[wire.ServiceReport]:
        """What its services have to say with the next heartbeat."""
        ...

    def waiting_results(self) -> list[wire.AttemptResult]: ...
    def welcomed(self, welcome: wire.Welcome) -> None: ...
    def obey(self, message: wire.ControllerMessage) -> None:
        """An order: anything but Welcome and BeatAck."""

    def stop_exclusive(self, within_s: float) -> None: ...
    def lease_renewed(self, until_s: float) -> None:
        """The controller was heard: exclusive attempts may run until then, on the machine's monotonic clock."""


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

    def __init__(self, peer: Peer, node: Node, outgoing: Outgoing, wake: asyncio.Event, calls: Calls) -> None:
        self.epoch = secrets.randbits(63) | 1
        self.is_connected = False
        self.connected = asyncio.Event()
        self.streams_total = 0
        self.problem = "not connected yet"
        self._peer = peer
        self._node = node
        self._outgoing = outgoing
        self._wake = wake
        self._calls = calls
        self._lease = Lease(asyncio.get_running_loop(), self._lease_is_over)
        self._heartbeat = Heartbeat(asyncio.get_running_loop(), self._beat, self._proven)
        self._again = asyncio.Event()
        self._has_services = True
        """Whether the controller speaks of services by name; one of 0.1 does not. 0.3.0 removes this."""

    @property
    def round_trip_s(self) -> float:
        """Of the last heartbeat."""
        return self._heartbeat.round_trip_s

    async def run(self) -> None:
        """Connect, serve, and connect again: at once after a working stream broke, then less and less often; and when
        a controller that was gone listens again."""
        backoff = Backoff(BACKOFF_MIN_S, BACKOFF_MAX_S)
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
                lasted_s = asyncio.get_running_loop().time() - began
                if lasted_s > BACKOFF_MAX_S:
                    backoff.reset()
                wait_s = backoff.next_s()
                chance = random.random()  # noqa: S311 - not a secret
                if is_refused:
                    wait_s = backoff_s(1, REFUSED_BACKOFF_S, REFUSED_BACKOFF_S, chance)
                await wait_or_opened(self._peer.address, wait_s, chance)
        finally:
            self._lease.stop()

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
            welcome, sent_at = await self._greet(call)
            self._calls.stub = stub
            await self._serve(call, welcome, sent_at)
        finally:
            self._calls.stub = None
            await channel.close(None)

    async def _greet(self, call: Any) -> tuple[wire.Welcome, float]:
        """Hello and Welcome, and when the Hello left. In one turn the Hello says what the node holds, and what waits is
        queued, so nothing falls between."""
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                await call.wait_for_connection()
                sent_at = asyncio.get_running_loop().time()
                self._again.clear()
                hello = self._node.hello()
                hello.protocol, hello.daemon_epoch = PROTOCOL, self.epoch
                release_0_1.fill_hello(hello)
                self._outgoing.open(self._node.waiting_results())
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
        return wire.Welcome.FromString(first.welcome.SerializeToString()), sent_at

    async def _serve(self, call: Any, welcome: wire.Welcome, sent_at: float) -> None:
        self.is_connected = True
        self.problem = ""
        self.streams_total += 1
        self._lease.granted(sent_at, welcome.stop_exclusive_after_ms / 1000)
        self._has_services = welcome.has_services
        self._node.welcomed(welcome)
        self._node.lease_renewed(self._lease.until_s)
        self.connected.set()
        log.info("link.connected", controller=self._peer.address, controller_epoch=welcome.controller_epoch)
        interval_s = max(0.05, welcome.beat_interval_ms / 1000)
        silence: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heartbeat.start(interval_s, lambda silent_s: _give_up(silence, silent_s))
        try:
            ended = await first_of(self._read(call), self._write(call), _until(silence), self._again.wait())
            ended.result()
        finally:
            self._heartbeat.stop()
            call.cancel()

    async def _read(self, call: Any) -> None:
        obey = self._node.obey if self._has_services else release_0_1.obeying(self._node.obey)
        while (message := await call.read()) is not grpc.aio.EOF:
            kind = message.WhichOneof("body")
            if kind == "beat_ack":
                self._heartbeat.answered(message.beat_ack.seq)
            elif kind is not None and kind != "welcome":
                obey(message)
        code = await call.code()
        if code in _REFUSALS:
            raise Refused(await call.details())
        if code is not grpc.StatusCode.OK:
            raise OSError(f"{code.name}: {await call.details()}")

    async def _write(self, call: Any) -> None:
        """The first fact leaves at once; under load, what gathers in a millisecond goes together."""
        loop = asyncio.get_running_loop()
        written_at = 0.0
        while True:
            await self._wake.wait()
            gather_s = written_at + WRITE_EVERY_S - loop.time()
            if gather_s > 0 and self._outgoing.drained_results >= GATHER_FROM:
                await asyncio.sleep(gather_s)
            self._wake.clear()
            for message in self._outgoing.drain():
                await call.write(message)
            written_at = loop.time()

    # -------------------------------------------------------------- time

    def _beat(self, seq: int) -> None:
        beat = wire.Beat(seq=seq, measured=self._node.measured(), services=self._node.reports())
        if not self._has_services and (report := release_0_1.change_beat(beat)) is not None:
            self._outgoing.market(report)
        self._outgoing.beat(beat)

    def _proven(self, sent_at: float) -> None:
        self._lease.proven(sent_at)
        self._node.lease_renewed(self._lease.until_s)

    def _lease_is_over(self) -> None:
        self._node.stop_exclusive(EXCLUSIVE_KILL_WITHIN_S)

    def _disconnected(self) -> None:
        if self.is_connected:
            log.warning("link.lost", problem=self.problem)
        self.is_connected = False
        self.connected.clear()
        self._outgoing.close()

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
