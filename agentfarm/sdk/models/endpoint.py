"""A client of any OpenAI-compatible endpoint: chat completions, streamed or whole, with tools.

Owns deadlines and retries. A request that failed before its first piece is tried again when the failure may pass (no
connection, 408, 429, 5xx). It waits as `Retry-After` says, or with a growing, jittered backoff. After the first piece
the caller gets the failure.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.sdk.models.chat import ChatPiece, ChatRequest
from agentfarm.sdk.models.completions import body_of, check, streamed_piece, whole_piece

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 120.0
"""Longest silence: until the first piece, and between pieces."""
TRIES_MAX: Final = 4
RETRY_WAIT_FIRST_S: Final = 0.5
RETRY_WAIT_MAX_S: Final = 30.0


class EndpointEngine:
    """Answers through `URL/chat/completions`. The key is read from its file at each request, so that it can change."""

    def __init__(
        self,
        url: str,
        key_file: Path | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._key_file = key_file
        self._sleep, self._asleep = sleep, asleep
        self._chance = chance or random.Random()  # noqa: S311 - jitter, no secret

    def complete(self, request: ChatRequest) -> ChatPiece:
        """The whole answer."""
        for attempt in range(1, TRIES_MAX + 1):
            try:
                with _translated(self._url), _http().Client(**_options()) as client:
                    answer = client.post(self._url, content=body_of(request, streamed=False), headers=self._headers())
                    check(answer.status_code, answer.headers, answer.content, time.time())
                    return whole_piece(answer.content)
            except Unavailable as error:
                self._sleep(self._wait_s(error, attempt))
        raise AssertionError  # the last attempt raises

    async def acomplete(self, request: ChatRequest) -> ChatPiece:
        """As `complete`."""
        for attempt in range(1, TRIES_MAX + 1):
            try:
                with _translated(self._url):
                    async with _http().AsyncClient(**_options()) as client:
                        body = body_of(request, streamed=False)
                        answer = await client.post(self._url, content=body, headers=self._headers())
                        check(answer.status_code, answer.headers, answer.content, time.time())
                        return whole_piece(answer.content)
            except Unavailable as error:
                await self._asleep(self._wait_s(error, attempt))
        raise AssertionError  # the last attempt raises

    def stream(self, request: ChatRequest) -> Iterator[ChatPiece]:
        """The answer as it is written."""
        for attempt in range(1, TRIES_MAX + 1):
            has_begun = False
            try:
                with _translated(self._url), _http().Client(**_options()) as client:
                    body = body_of(request, streamed=True)
                    with client.stream("POST", self._url, content=body, headers=self._headers()) as answer:
                        if answer.status_code != 200:
                            check(answer.status_code, answer.headers, answer.read(), time.time())
                        for line in answer.iter_lines():
                            if piece := streamed_piece(line):
                                has_begun = True
                                yield piece
                        return
            except Unavailable as error:
                self._sleep(self._wait_s(error, attempt, has_begun=has_begun))

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatPiece]:
        """As `stream`."""
        for attempt in range(1, TRIES_MAX + 1):
            has_begun = False
            try:
                with _translated(self._url):
                    async with (
                        _http().AsyncClient(**_options()) as client,
                        client.stream(
                            "POST", self._url, content=body_of(request, streamed=True), headers=self._headers()
                        ) as answer,
                    ):
                        if answer.status_code != 200:
                            check(answer.status_code, answer.headers, await answer.aread(), time.time())
                        async for line in answer.aiter_lines():
                            if piece := streamed_piece(line):
                                has_begun = True
                                yield piece
                        return
            except Unavailable as error:
                await self._asleep(self._wait_s(error, attempt, has_begun=has_begun))

    def _wait_s(self, error: Unavailable, attempt: int, *, has_begun: bool = False) -> float:
        """How long to wait before the next try. Raises the error when there is none."""
        if has_begun or attempt >= TRIES_MAX or not error.data.get("may_pass", True):
            raise error
        asked = error.data.get("retry_after_s")
        if isinstance(asked, float):
            if asked > RETRY_WAIT_MAX_S:
                raise error
            return asked
        longest: float = min(RETRY_WAIT_FIRST_S * 2 ** (attempt - 1), RETRY_WAIT_MAX_S)
        return longest * self._chance.uniform(0.5, 1.0)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self._key_file is not None:
            try:
                headers["Authorization"] = f"Bearer {self._key_file.read_text('utf-8').strip()}"
            except OSError as error:
                raise InvalidRequest(
                    f"The key of the language model cannot be read from {self._key_file}: {error.strerror}."
                ) from error
        return headers


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Errors of the connection as ours."""
    http = _http()
    try:
        yield
    except http.TimeoutException as error:
        raise Unavailable(f"The language model at {url} did not answer in time.") from error
    except http.TransportError as error:
        raise Unavailable(f"The language model at {url} cannot be reached: {error}.") from error
    except http.InvalidURL as error:
        raise InvalidRequest(f"AGENTFARM_LLM_URL is no URL: {url}.") from error


def _options() -> dict[str, Any]:
    timeout = _http().Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return {"timeout": timeout, "verify": _tls()}


@cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the trusted certificates takes longer than a request."""
    return ssl.create_default_context()


@cache
def _http() -> Any:
    try:
        import httpx  # noqa: PLC0415 - only for agents that ask an endpoint
    except ImportError as error:
        raise Unavailable(
            "An endpoint for language models is configured, and httpx is not installed here.",
            remedy="Name httpx in the agent's requirements.txt.",
            may_pass=False,
        ) from error
    return httpx
