"""The calls beside the stream, with gRPC's statuses turned into our errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc

from agentfarm.errors import Conflict, FarmError, InvalidRequest, StaleToken
from agentfarm.wire import link_pb2 as wire
from nodeagent.bundles import BundleMissing, LinkAway

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

    async def fetch_bundle(self, digest: str, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """(total size, next bytes). Raises BundleMissing or LinkAway."""
        request = wire.FetchBundleRequest(digest=digest, offset=offset)
        try:
            async for piece in self._connected().FetchBundle(request, timeout=BUNDLE_TIMEOUT_S):
                yield piece.total_size, piece.data
        except grpc.aio.AioRpcError as problem:
            if problem.code() is grpc.StatusCode.NOT_FOUND:
                raise BundleMissing(digest) from problem
            raise LinkAway from problem

    async def put_checkpoint(self, request: wire.PutCheckpointRequest) -> None:
        """Durable when it returns. Raises LinkAway, StaleToken, or FarmError."""
        try:
            await self._connected().PutCheckpoint(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as problem:
            raise _translated(problem) from problem

    async def get_checkpoints(self, request: wire.GetCheckpointsRequest) -> Sequence[wire.Checkpoint]:
        """Newest first. Raises LinkAway, StaleToken, or FarmError."""
        try:
            response = await self._connected().GetCheckpoints(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as problem:
            raise _translated(problem) from problem
        checkpoints: Sequence[wire.Checkpoint] = response.checkpoints
        return checkpoints

    async def renew_certificate(self, csr_pem: bytes) -> bytes:
        """A new certificate for our name. Raises LinkAway or FarmError."""
        try:
            request = wire.RenewCertificateRequest(csr_pem=csr_pem)
            response = await self._connected().RenewCertificate(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as problem:
            raise _translated(problem) from problem
        certificate: bytes = response.certificate_pem
        return certificate

    async def push_log(self, pieces: AsyncIterator[wire.PushLogRequest]) -> None:
        """Send lines of a log until they end or the controller has enough."""
        try:
            await self._connected().PushLog(pieces)
        except grpc.aio.AioRpcError as problem:
            raise _translated(problem) from problem

    def _connected(self) -> Any:
        if self.stub is None:
            raise LinkAway
        return self.stub


def _translated(problem: grpc.aio.AioRpcError) -> Exception:
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
