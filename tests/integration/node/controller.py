"""A controller that does what a test says: the real wire, real TLS, scripted decisions."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from agentfarm.agents.bundle import digest_of
from agentfarm.agents.spec import AgentSpec
from agentfarm.wire import link_pb2 as wire
from agentfarm.wire import link_pb2_grpc, market_pb2
from nodeagent.link.release_0_1 import answer_parts, checkpoint_request
from tests.integration.node.certificates import Authority

DEADLINE_S = 60.0  # as long as any machine may need: it only says when to give up


class ScriptedController(link_pb2_grpc.LinkServicer):
    """One node's controller. Everything it hears is kept; `until` waits for a condition on it."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.bundles: dict[str, bytes] = {}
        self.hellos: list[wire.Hello] = []
        self.on_hello: Callable[[], object] = lambda: None  # called before the Welcome
        self.replicas: dict[int, wire.ReplicaStatus] = {}
        self.history: list[tuple[int, str, str]] = []
        self.started: list[int] = []
        self.results: list[wire.AttemptResult] = []
        self.outputs: list[wire.AttemptOutput] = []
        self.logs: dict[int, bytes] = {}
        self.log_ends: dict[int, str] = {}
        self.calls: list[wire.AgentCallRequest] = []
        self.is_0_1 = False  # it knows nothing of what 0.2 brought
        self.checkpoints: list[wire.PutCheckpointRequest] = []
        self.stored_checkpoints: list[wire.Checkpoint] = []
        self.stale_tokens: set[int] = set()
        self.fetches: list[int] = []
        self.fetch_breaks_after: int | None = None
        self.calls_asked = 0  # fetches and checkpoint calls; they wait while `calls_wait`
        self.calls_wait = False
        self.market: dict[str, market_pb2.ProductStatus] = {}
        self.market_reports = 0
        self.beats = 0
        self.measured = wire.Measured()
        self.market_measured = market_pb2.MarketMeasured()
        self.acknowledges = True
        self.answers_beats = True
        self.stop_exclusive_after_ms = 6_000
        self.beat_interval_ms = 200
        self.port = 0
        self._changed = asyncio.Condition()
        self._stream: asyncio.Queue[wire.ControllerMessage | None] | None = None
        self._server: Any = None
        self._generation = 0
        self._desired: list[wire.DesiredReplica] = []

    async def start(self) -> None:
        key_pem, certificate_pem = self.authority.issue("controller")
        credentials = grpc.ssl_server_credentials([(key_pem, certificate_pem)], self.authority.pem, True)
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2**24)])
        link_pb2_grpc.add_LinkServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    # ---------------------------------------------------------- orders

    def bundle(self, **files: str) -> str:
        """An agent of these files (name without .py); returns its digest."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(name if "." in name else f"{name}.py")
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        digest = digest_of(data.getvalue())
        self.bundles[digest] = data.getvalue()
        return digest

    async def desire(self, *replicas: wire.DesiredReplica) -> None:
        self._generation += 1
        self._desired = list(replicas)
        await self.send(desired=wire.Desired(generation=self._generation, replicas=self._desired))

    async def desire_products(self, *products: str) -> None:
        """The replicas stay as they are desired."""
        self._generation += 1
        desired = wire.Desired(generation=self._generation, replicas=self._desired)
        if self.is_0_1:
            desired.market.CopyFrom(wire.DesiredMarket(products=products))
        else:
            payload = market_pb2.MarketDesired(products=products).SerializeToString()
            desired.services.add(name="market", payload=payload)
        await self.send(desired=desired)

    async def ask_market(self, number: int, verb: str, **arguments: Any) -> None:
        """A question to the node's market data; its answer comes as lines of `logs[number]`."""
        if self.is_0_1:
            question = wire.FeedRequest(request_id=number, verb=verb, arguments_json=json.dumps(arguments))
            await self.send(feed_request=question)
        else:
            payload = market_pb2.MarketQuestion(verb=verb, arguments=arguments).SerializeToString()
            await self.send(service_request=wire.ServiceRequest(request_id=number, name="market", payload=payload))

    @property
    def market_hello(self) -> market_pb2.MarketHello:
        """What the newest Hello says of the node's market data, in whichever form this controller reads."""
        hello = self.hellos[-1]
        if self.is_0_1:
            return market_pb2.MarketHello(
                products=hello.products, takes_products=hello.takes_products, source=hello.market_source
            )
        found = [service.payload for service in hello.services if service.name == "market"]
        return market_pb2.MarketHello.FromString(found[0]) if found else market_pb2.MarketHello()

    def is_good(self, *products: str) -> bool:
        """Whether the node's market data is said to be these products, all of them good."""
        states = {item.product: item.state for item in self.market.values()}
        return states == dict.fromkeys(products, market_pb2.PRODUCT_STATE_GOOD)

    async def assign(self, *assignments: wire.Assignment) -> None:
        await self.send(assign=wire.Assign(assignments=assignments))

    async def send(self, **body: Any) -> None:
        await self.until(lambda: self._stream is not None)
        assert self._stream is not None
        self._stream.put_nowait(wire.ControllerMessage(**body))

    def break_stream(self) -> None:
        if self._stream is not None:
            self._stream.put_nowait(None)

    # ---------------------------------------------------------- waiting

    async def until(self, claim: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        try:
            async with asyncio.timeout(deadline_s):
                async with self._changed:
                    await self._changed.wait_for(claim)
        except TimeoutError:
            raise AssertionError(
                f"did not come true within {deadline_s} s; replicas {self.history}, results {self.results}"
            ) from None
        return claim()

    async def until_state(self, replica_id: int, *states: int, deadline_s: float = DEADLINE_S) -> wire.ReplicaStatus:
        def reached() -> wire.ReplicaStatus | None:
            status = self.replicas.get(replica_id)
            return status if status is not None and status.state in states else None

        found = await self.until(reached, deadline_s)
        assert isinstance(found, wire.ReplicaStatus)
        return found

    async def until_running(self, *replica_ids: int, deadline_s: float = DEADLINE_S) -> None:
        for replica_id in replica_ids:
            await self.until_state(replica_id, wire.REPLICA_STATE_RUNNING, deadline_s=deadline_s)

    async def result_of(self, token: int, deadline_s: float = DEADLINE_S) -> wire.AttemptResult:
        def found() -> wire.AttemptResult | None:
            return next((result for result in self.results if result.fencing_token == token), None)

        result = await self.until(found, deadline_s)
        assert isinstance(result, wire.AttemptResult)
        return result

    # ---------------------------------------------------------- the wire

    async def Connect(self, requests: AsyncIterator[wire.NodeMessage], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        hello = (await anext(requests)).hello
        async with self._changed:
            self.hellos.append(hello)
            self.on_hello()
            for status in hello.replicas:
                self._note(status)
            stream = self._stream = asyncio.Queue()
            self._changed.notify_all()
        yield wire.ControllerMessage(
            welcome=wire.Welcome(
                protocol=1, controller_epoch=1, beat_interval_ms=self.beat_interval_ms, unreachable_after_ms=3_000,
                reissue_after_ms=8_000, stop_exclusive_after_ms=self.stop_exclusive_after_ms,
                has_services=not self.is_0_1,
            )
        )  # fmt: skip
        reader = asyncio.ensure_future(self._listen(requests, stream))
        try:
            while (message := await stream.get()) is not None:
                yield message
        finally:
            reader.cancel()
            if self._stream is stream:
                self._stream = None

    async def _listen(self, requests: AsyncIterator[wire.NodeMessage], stream: asyncio.Queue[Any]) -> None:
        async for message in requests:
            async with self._changed:
                answer = self._hear(message)
                self._changed.notify_all()
            if answer is not None:
                stream.put_nowait(answer)
        stream.put_nowait(None)

    def _hear(self, message: wire.NodeMessage) -> wire.ControllerMessage | None:
        kind = message.WhichOneof("body")
        if kind == "beat":
            self.beats += 1
            self.measured = message.beat.measured
            self.market_measured = market_pb2.MarketMeasured(
                state=self.measured.market_state, rows=self.measured.market_rows, lag_ms=self.measured.market_lag_ms
            )
            for service in message.beat.services:
                self._hear_market(market_pb2.MarketReport.FromString(service.payload))
            if self.answers_beats:
                return wire.ControllerMessage(beat_ack=wire.BeatAck(seq=message.beat.seq))
        elif kind == "replica_report":
            for status in message.replica_report.replicas:
                self._note(status)
        elif kind == "attempts_started":
            self.started.extend(message.attempts_started.tokens)
        elif kind == "attempt_results":
            self.results.extend(message.attempt_results.results)
            if self.acknowledges:
                tokens = [result.fencing_token for result in message.attempt_results.results]
                return wire.ControllerMessage(results_ack=wire.ResultsAck(tokens=tokens))
        elif kind == "attempt_output":
            self.outputs.append(message.attempt_output)
        elif kind == "market_report":
            assert self.is_0_1
            self._hear_market(message.market_report)
        elif kind == "log_end":
            self.log_ends[message.log_end.request_id] = message.log_end.problem
        return None

    def _hear_market(self, report: market_pb2.MarketReport) -> None:
        if not self.is_0_1:
            self.market_measured = report.measured
        if not report.products_unchanged:
            self.market = {item.product: item for item in report.products}
            self.market_reports += 1

    def _note(self, status: wire.ReplicaStatus) -> None:
        self.replicas[status.replica_id] = status
        name = wire.ReplicaState.Name(status.state).removeprefix("REPLICA_STATE_")
        self.history.append((status.replica_id, name, status.reason))

    async def FetchBundle(self, request: wire.FetchBundleRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.fetches.append(request.offset)
        await self._wait_if_told()
        data = self.bundles.get(request.digest)
        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such bundle")
        assert data is not None
        for at in range(request.offset, len(data), 1024):
            if self.fetch_breaks_after is not None and at - request.offset >= self.fetch_breaks_after:
                self.fetch_breaks_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
            yield wire.FetchBundleResponse(total_size=len(data), data=data[at : at + 1024])

    async def AgentCall(self, request: wire.AgentCallRequest, context: Any) -> Any:  # noqa: N802
        if self.is_0_1:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        self.calls.append(request)
        old = checkpoint_request(request)
        if isinstance(old, wire.PutCheckpointRequest):
            await self.PutCheckpoint(old, context)
            return wire.AgentCallResponse()
        return wire.AgentCallResponse(parts=answer_parts((await self.GetCheckpoints(old, context)).checkpoints))

    async def PutCheckpoint(self, request: wire.PutCheckpointRequest, context: Any) -> Any:  # noqa: N802
        await self._wait_if_told()
        if request.fencing_token in self.stale_tokens:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the lease is void")
        async with self._changed:
            self.checkpoints.append(request)
            self.stored_checkpoints.insert(0, request.checkpoint)
            self._changed.notify_all()
        return wire.PutCheckpointResponse()

    async def _wait_if_told(self) -> None:
        async with self._changed:
            self.calls_asked += 1
            self._changed.notify_all()
        if self.calls_wait:
            await asyncio.Event().wait()

    async def GetCheckpoints(self, request: wire.GetCheckpointsRequest, context: Any) -> Any:  # noqa: N802
        await self._wait_if_told()
        mine = [item for item in self.stored_checkpoints if item.thread_id == request.thread_id]
        return wire.GetCheckpointsResponse(checkpoints=mine[: request.limit or 1])

    async def PushLog(self, requests: AsyncIterator[wire.PushLogRequest], context: Any) -> Any:  # noqa: N802
        async for piece in requests:
            async with self._changed:
                self.logs[piece.request_id] = self.logs.get(piece.request_id, b"") + piece.lines
                self._changed.notify_all()
        return wire.PushLogResponse()

    async def RenewCertificate(self, request: wire.RenewCertificateRequest, context: Any) -> Any:  # noqa: N802
        return wire.RenewCertificateResponse(certificate_pem=self.authority.sign_csr(request.csr_pem))


def wanted(replica_id: int, digest: str, *, stopping: bool = False, **spec: Any) -> wire.DesiredReplica:
    """A replica of an agent named `agent`, with these keys in its spec."""
    text = AgentSpec.model_validate_json(json.dumps({"name": "agent", **spec})).canonical_json()
    return wire.DesiredReplica(
        replica_id=replica_id, deployment="agent", seat=replica_id, version=1, bundle_digest=digest, spec_json=text,
        stopping=stopping,
    )  # fmt: skip


def task(token: int, replica_id: int, payload: Any = None, **more: Any) -> wire.Assignment:
    """An attempt whose token is also its task's id."""
    return wire.Assignment(
        task_id=token, attempt=1, fencing_token=token, replica_id=replica_id, input=json.dumps(payload).encode(), **more
    )
