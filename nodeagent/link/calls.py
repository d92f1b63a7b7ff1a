"""The calls beside the stream, with gRPC's statuses turned into our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import grpc

from agentfarm.errors import Conflict, FarmError, InvalidRequest, StaleToken
from agentfarm.wire import link_pb2 as wire
from nodeagent.core.problems import BundleMissing, LinkAway

CALL_TIMEOUT_S: Final = 10.0
BUNDLE_TIMEOUT_S: Final = 300.0

_AWAY: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
     grpc.StatusCode.UNAUTHENTICATED}
)  # fmt: skip
_STALE: Final = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED})


class Calls:
    """On the connection of the moment; `stub` is set by the link while there is one."""

    def __init__(self) -> None:
        self.stub: Any = None
        self._stub_0_1: Any = None
        """The connection whose controller knows no AgentCall. 0.3.0 removes this."""

    async def fetch_bundle(self, digest: str, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """(total size, next bytes). Raises BundleMissing or LinkAway."""
        request = wire.FetchBundleRequest(digest=digest, offset=offset)
        try:
            with _away_when_closed():
                async for piece in self._connected().FetchBundle(request, timeout=BUNDLE_TIMEOUT_S):
                    yield piece.total_size, piece.data
        except grpc.aio.AioRpcError as problem:
            if problem.code() is grpc.StatusCode.NOT_FOUND:
                raise BundleMissing(digest) from problem
            raise LinkAway from problem

    async def agent_call(self, request: wire.AgentCallRequest) -> Sequence[bytes]:
        """The parts of the controller's answer to a call of an attempt. Raises LinkAway, StaleToken, or FarmError."""
        stub = self._connected()
        with _translated():
            if stub is not self._stub_0_1:
                try:
                    response = await stub.AgentCall(request, timeout=CALL_TIMEOUT_S)
                except grpc.aio.AioRpcError as problem:
                    if problem.code() is not grpc.StatusCode.UNIMPLEMENTED:
                        raise
                    self._stub_0_1 = stub
                else:
                    parts: Sequence[bytes] = response.parts
                    return parts
            return await _agent_call_0_1(stub, request)

    async def renew_certificate(self, csr_pem: bytes) -> bytes:
        """A new certificate for our name. Raises LinkAway or FarmError."""
        with _translated():
            request = wire.RenewCertificateRequest(csr_pem=csr_pem)
            response = await self._connected().RenewCertificate(request, timeout=CALL_TIMEOUT_S)
        certificate: bytes = response.certificate_pem
        return certificate

    async def push_log(self, pieces: AsyncIterator[wire.PushLogRequest]) -> None:
        """Send lines of a log until they end or the controller has enough."""
        with _translated():
            await self._connected().PushLog(pieces)

    def _connected(self) -> Any:
        if self.stub is None:
            raise LinkAway
        return self.stub


async def _agent_call_0_1(stub: Any, request: wire.AgentCallRequest) -> Sequence[bytes]:
    """The same of a controller of 0.1, which has calls of their own for checkpoints and no others. 0.3.0 removes it."""
    from nodeagent.link.release_0_1 import answer_parts, checkpoint_request  # noqa: PLC0415 - few nodes need it

    if not request.method.startswith("checkpoints."):
        raise FarmError(f"The controller's release knows no call {request.method!r}.", remedy="Upgrade the controller.")
    asked = checkpoint_request(request)
    if isinstance(asked, wire.PutCheckpointRequest):
        await stub.PutCheckpoint(asked, timeout=CALL_TIMEOUT_S)
        return ()
    return answer_parts((await stub.GetCheckpoints(asked, timeout=CALL_TIMEOUT_S)).checkpoints)


@contextmanager
def _translated() -> Iterator[None]:
    """gRPC's statuses as our errors."""
    try:
        with _away_when_closed():
            yield
    except grpc.aio.AioRpcError as problem:
        raise _error(problem) from problem


@contextmanager
def _away_when_closed() -> Iterator[None]:
    """When the stream breaks its channel is closed, and gRPC ends calls on it by a CancelledError: not one of ours."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise LinkAway from None
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as problem:
        raise LinkAway from problem


def _error(problem: grpc.aio.AioRpcError) -> Exception:
    words = problem.details() or problem.code().name
    if problem.code() in _AWAY:
        return LinkAway(words)
    if problem.code() in _STALE:
        return StaleToken(words)
    if problem.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(words)
    if problem.code() is grpc.StatusCode.ALREADY_EXISTS:
        return Conflict(words)
    return FarmError(words)
