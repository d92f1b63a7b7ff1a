"""The gRPC server that nodes connect to: one stream per node, and the calls beside it.

It turns the messages of a node into commands. It knows the node by its certificate; a Hello cannot claim another name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import structlog

from agentfarm.calls.checkpoints import GET, PUT
from agentfarm.errors import Conflict, FarmError, Forbidden, InvalidRequest, NotFound, StaleToken, Unavailable
from agentfarm.limits import BEAT_INTERVAL_S, LINK_MESSAGE_MAX_BYTES, LINK_PORT, STOP_EXCLUSIVE_AFTER_S
from agentfarm.service import Service, first_of
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import link_pb2_grpc
from controller.core.commands import AttemptsEnded, AttemptsStarted, NodeStreamEnded, ReplicasReported
from controller.core.model import Limits, NodeName, ReplicaId, TaskId, Token
from controller.engine import Engine
from controller.link import release_0_1, translate
from controller.link.agent_calls import AgentCalls, Caller, ReadCheckpoints, handlers
from controller.link.answers import Answers
from controller.link.sessions import Session, Sessions

log = structlog.get_logger("controller.link")

HELLO_DEADLINE_S: Final = 10.0
LEAD_WAIT_S: Final = 1.0
"""A node that comes while the state is being read waits this long instead of going away."""

GRPC_STATUS: Final[dict[type[FarmError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    StaleToken: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    FarmError: grpc.StatusCode.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where nodes connect, and the times both sides go by, in seconds."""

    host: str = "127.0.0.1"
    port: int = LINK_PORT
    """0: any free port."""
    beat_interval_s: float = BEAT_INTERVAL_S
    stop_exclusive_after_s: float = STOP_EXCLUSIVE_AFTER_S


@dataclass(frozen=True, slots=True)
class LinkTls:
    """Who the server is, and whose certificates it accepts; all PEM."""

    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes


@dataclass(frozen=True, slots=True)
class LinkPorts:
    """What the link needs of the rest of the controller, as plain functions. The blocking ones run on threads."""

    read_bundle: Callable[[str, int], tuple[int, list[bytes]]]
    """From digest and offset to the total size and the next chunks; no chunks at the end."""
    read_checkpoints: ReadCheckpoints
    sign_csr: Callable[[bytes, str], bytes]


Leased = wire.AgentCallRequest | wire.PutCheckpointRequest | wire.GetCheckpointsRequest
"""A request of an attempt."""


class LinkServer(Service, link_pb2_grpc.LinkServicer):
    """The node side of the controller. It listens from `start` on, and reads what the nodes say."""

    def __init__(
        self,
        engine: Engine,
        sessions: Sessions,
        limits: Limits,
        settings: LinkSettings,
        ports: LinkPorts,
        tls: LinkTls,
    ) -> None:
        super().__init__("link")
        self._engine = engine
        self._sessions = sessions
        self._limits = limits
        self._settings = settings
        self._ports = ports
        self._tls = tls
        self._server: grpc.aio.Server | None = None
        self.answers = Answers(self._session_of)
        self._calls = AgentCalls(engine, handlers(engine, ports.read_checkpoints))
        self.port = 0

    async def _begin(self) -> None:
        """Listen. Raises Unavailable if the port cannot be had."""
        tls = self._tls
        credentials = grpc.ssl_server_credentials(
            [(tls.key_pem, tls.certificate_pem)], tls.ca_pem, require_client_auth=True
        )
        self._server = grpc.aio.server(
            options=[
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.max_receive_message_length", LINK_MESSAGE_MAX_BYTES),
                ("grpc.max_send_message_length", LINK_MESSAGE_MAX_BYTES),
                ("grpc.so_reuseport", 0),
            ]
        )
        link_pb2_grpc.add_LinkServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as problem:
            raise Unavailable(
                f"The node link cannot listen on {address}: {problem}",
                remedy="Another program has that port; choose another (link_port) or stop that program.",
            ) from problem
        await self._server.start()
        log.info("link.listening", host=self._settings.host, port=self.port)

    async def _finish(self) -> None:
        """Close every stream and the port."""
        self._sessions.close_all("the controller stops")
        if self._server is not None:
            await self._server.stop(1.0)
            self._server = None

    def _session_of(self, node: NodeName) -> Session | None:
        row = self._engine.state.nodes.get(node)
        return self._sessions.get(row.session) if row is not None else None

    # -------------------------------------------------------------- the stream

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # noqa: N802 - the contract's name
        """A node's stream, from Hello to its end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAD_WAIT_S):
                await self._engine.leading.wait()
        node = await self._authenticated(context)
        try:
            async with asyncio.timeout(HELLO_DEADLINE_S):
                first = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Hello did not come in time.")
        if first is grpc.aio.EOF or first.WhichOneof("body") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The first message must be Hello.")
        if first.hello.protocol < translate.PROTOCOL:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"Protocol {first.hello.protocol} is too old; upgrade the daemon."
            )
        session = self._sessions.open(node, has_services=first.hello.has_services)
        try:
            await self._serve(session, release_0_1.hello(first.hello), context)
        except FarmError as problem:
            await self._abort(context, problem)
        finally:
            self._sessions.drop(session)
            self._engine.tell(NodeStreamEnded(node, session.number))
            log.info("link.closed", node=node, session=session.number, reason=session.closed or "the node went")

    async def _serve(self, session: Session, hello: wire.Hello, context: Any) -> None:
        epoch = self._engine.state.epoch
        settings = self._settings
        session.put(translate.welcome(epoch, self._limits, settings.beat_interval_s, settings.stop_exclusive_after_s))
        await self._engine.ask(translate.joined(session.node, session.number, hello, session.unread))
        log.info("link.joined", node=session.node, session=session.number, daemon_version=hello.daemon_version)
        ended = await first_of(self._read(session, context), session.pump(context))
        problem = None if ended.cancelled() else ended.exception()
        if problem is not None and not isinstance(problem, grpc.aio.BaseError):  # that is a node which went
            log.error("link.stream_failed", node=session.node, session=session.number, problem=repr(problem))

    async def _read(self, session: Session, context: Any) -> None:
        node, number, engine = session.node, session.number, self._engine
        while True:
            message = await context.read()
            if message is grpc.aio.EOF:
                return
            kind = message.WhichOneof("body")
            if kind == "attempt_results":
                engine.tell(AttemptsEnded(node, number, translate.results(message.attempt_results)))
            elif kind == "beat":
                beat = message.beat if session.has_services else release_0_1.beat(message.beat)
                for command in translate.beat(node, number, beat, session.unread):
                    engine.tell(command)
            elif kind == "attempts_started":
                tokens = tuple(Token(token) for token in message.attempts_started.tokens)
                engine.tell(AttemptsStarted(node, number, tokens))
            elif kind == "attempt_output":
                piece = message.attempt_output
                if translate.is_json(piece.data):
                    engine.output(node, TaskId(piece.task_id), Token(piece.fencing_token), piece.data)
            elif kind == "replica_report":
                engine.tell(ReplicasReported(node, number, translate.replica_news(message.replica_report.replicas)))
            elif kind == "market_report":
                engine.tell(release_0_1.market_reported(node, number, message.market_report))
            elif kind == "log_end":
                self.answers.ended(node, message.log_end.request_id, message.log_end.problem)

    # -------------------------------------------------------------- calls beside the stream

    async def FetchBundle(  # noqa: N802 - the contract's name
        self, request: wire.FetchBundleRequest, context: Any
    ) -> AsyncIterator[wire.FetchBundleResponse]:
        """A bundle's bytes from an offset on."""
        await self._authenticated(context)
        offset = request.offset
        while True:
            try:
                total, chunks = await asyncio.to_thread(self._ports.read_bundle, request.digest, offset)
            except FarmError as problem:
                await self._abort(context, problem)
            for chunk in chunks:
                yield wire.FetchBundleResponse(total_size=total, data=chunk)
                offset += len(chunk)
            if not chunks or offset >= total:
                return

    async def AgentCall(  # noqa: N802 - the contract's name
        self, request: wire.AgentCallRequest, context: Any
    ) -> wire.AgentCallResponse:
        """A call of an attempt, answered by its method's handler."""
        parts = await self._answer(request, ReplicaId(request.replica_id), request.method, request.header,
                                   request.parts, context)  # fmt: skip
        return wire.AgentCallResponse(parts=parts)

    async def PutCheckpoint(  # noqa: N802 - the contract's name
        self, request: wire.PutCheckpointRequest, context: Any
    ) -> wire.PutCheckpointResponse:
        """Of a node of 0.1."""
        header, *parts = release_0_1.put_call(request)
        await self._answer(request, None, PUT, header, parts, context)
        return wire.PutCheckpointResponse()

    async def GetCheckpoints(  # noqa: N802 - the contract's name
        self, request: wire.GetCheckpointsRequest, context: Any
    ) -> wire.GetCheckpointsResponse:
        """Of a node of 0.1."""
        parts = await self._answer(request, None, GET, release_0_1.get_call(request), (), context)
        return wire.GetCheckpointsResponse(checkpoints=release_0_1.checkpoints(parts))

    async def _answer(
        self, lease: Leased, replica: ReplicaId | None, method: str, header: bytes, parts: Sequence[bytes], context: Any
    ) -> Iterable[bytes]:
        node = await self._authenticated(context)
        try:
            caller = Caller(node, replica, TaskId(lease.task_id), Token(lease.fencing_token))
            return await self._calls.answer(caller, method, header, parts)
        except FarmError as problem:
            await self._abort(context, problem)

    async def PushLog(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[wire.PushLogRequest], context: Any
    ) -> wire.PushLogResponse:
        """An answer that somebody asked for. Slow readers slow the node's reading of its file, nothing else."""
        node = await self._authenticated(context)
        async for piece in request_iterator:
            if not await self.answers.lines(node, piece.request_id, piece.lines):
                break
        return wire.PushLogResponse()

    async def RenewCertificate(  # noqa: N802 - the contract's name
        self, request: wire.RenewCertificateRequest, context: Any
    ) -> wire.RenewCertificateResponse:
        """A new certificate for the name of the old one."""
        node = await self._authenticated(context)
        try:
            pem = await asyncio.to_thread(self._ports.sign_csr, request.csr_pem, node)
        except FarmError as problem:
            await self._abort(context, problem)
        log.info("link.certificate_renewed", node=node)
        return wire.RenewCertificateResponse(certificate_pem=pem)

    # -------------------------------------------------------------- identity and errors

    async def _authenticated(self, context: Any) -> NodeName:
        """The node's name from its certificate, if it is still one of ours."""
        names = context.auth_context().get("x509_common_name", [])
        if len(names) != 1:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "A node certificate is needed.")
        node = NodeName(names[0].decode())
        try:
            is_known = node in self._engine.state.nodes
        except FarmError as problem:
            await self._abort(context, problem)
        if not is_known:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"Node {node} is not known here; invite it again.")
        return node

    async def _abort(self, context: Any, problem: FarmError) -> NoReturn:
        status = next(GRPC_STATUS[kind] for kind in type(problem).__mro__ if kind in GRPC_STATUS)
        await context.abort(status, str(problem))
        raise AssertionError("an aborted call ends here")
