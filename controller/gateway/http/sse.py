"""Server-sent events (WHATWG HTML, section 9.2) over plain ASGI.

A stream is an async iterator of messages; between them, after a silence, a comment keeps proxies from closing the
connection. When the client goes, the iterator is closed, so that it lets go of what it holds at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import ClassVar, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.service import Tasks, first_of
from controller.gateway.http.limits import SSE_KEEPALIVE_S, STREAMS_MAX

KEEPALIVE: Final = b": still here\n\n"


def message(event: str, data: bytes, event_id: str | None = None) -> bytes:
    """One event. `data` is one line of JSON or text; line breaks within it become further data lines."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    lines = b"".join(b"data: " + line + b"\n" for line in data.splitlines() or [b""])
    return head + b"event: " + event.encode() + b"\n" + lines + b"\n"


def event_id(text: str | None) -> int:
    """A Last-Event-ID of ours, or 0."""
    if text is None or not text.strip():
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(
            f"Last-Event-ID {text[:40]!r} is not one of ours.", remedy="Leave it out to start from the beginning."
        )
    return int(text)


class StreamedAnswer(StreamingResponse):
    """A response that lasts: flushed piece by piece, with keep-alive comments when `keepalive` is given."""

    open_now: ClassVar[int] = 0

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str,
        keepalive: bytes | None = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            _with_keepalive(pieces, keepalive),
            status_code=status,
            media_type=media_type,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | dict(headers or {}),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the pieces end or the client has gone."""
        StreamedAnswer.open_now += 1
        try:
            await self._send_while_wanted(receive, send)
        finally:
            StreamedAnswer.open_now -= 1

    async def _send_while_wanted(self, receive: Receive, send: Send) -> None:
        ended = await first_of(self.stream_response(send), disconnected(receive))
        with suppress(asyncio.CancelledError, OSError):
            ended.result()


def event_stream(
    pieces: AsyncGenerator[bytes, None], status: int = 200, headers: Mapping[str, str] | None = None
) -> StreamedAnswer:
    """The response for a stream of `message`s."""
    return StreamedAnswer(pieces, "text/event-stream", KEEPALIVE, status=status, headers=headers)


def check_room() -> None:
    """Raises Unavailable when STREAMS_MAX streams are open. Asked before anything begins for a new stream."""
    if StreamedAnswer.open_now >= STREAMS_MAX:
        raise Unavailable(
            f"{STREAMS_MAX} streams are open, the limit.", remedy="Try again later.", limit="STREAMS_MAX",
            maximum=STREAMS_MAX,
        )  # fmt: skip


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _with_keepalive(pieces: AsyncGenerator[bytes, None], keepalive: bytes | None) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        if keepalive is None:
            async for piece in pieces:
                yield piece
            return
        tasks = Tasks("stream")
        coming: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                coming = coming or tasks.awaited(_next(pieces))
                done, _ = await asyncio.wait((coming,), timeout=SSE_KEEPALIVE_S)
                if not done:
                    yield keepalive
                    continue
                latest = coming.result()
                if latest is None:
                    return
                coming = None
                yield latest
        finally:
            await tasks.end()


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(pieces, None)
