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
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from agentfarm.backoff import backoff_s
from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.sdk.models.chat import ChatPiece, ChatRequest
from agentfarm.sdk.models.completions import body_of, check, streamed_piece, whole_piece

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 120.0
"""Longest silence: until the first piece, and between pieces."""
OK: Final = 200
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
        with closing(self._pieces(request, streamed=False)) as pieces:
            return next(pieces)

    async def acomplete(self, request: ChatRequest) -> ChatPiece:
        """As `complete`."""
        async with aclosing(self._apieces(request, streamed=False)) as pieces:
            return await anext(pieces)

    def stream(self, request: ChatRequest) -> Iterator[ChatPiece]:
        """The answer as it is written."""
        return self._pieces(request, streamed=True)

    def astream(self, request: ChatRequest) -> AsyncIterator[ChatPiece]:
        """As `stream`."""
        return self._apieces(request, streamed=True)

    def _pieces(self, request: ChatRequest, *, streamed: bool) -> Generator[ChatPiece, None, None]:
        for attempt in self._tries():
            with attempt, _translated(self._url), _http().Client(**_options()) as client:
                with client.stream("POST", self._url, **self._message(request, streamed=streamed)) as answer:
                    if not streamed or answer.status_code != OK:
                        answer.read()
                        yield _whole(answer)
                        return
                    for line in answer.iter_lines():
                        if piece := streamed_piece(line):
                            attempt.has_begun = True
                            yield piece
                return
            self._sleep(attempt.wait_s)

    async def _apieces(self, request: ChatRequest, *, streamed: bool) -> AsyncGenerator[ChatPiece, None]:
        """As `_pieces`."""
        for attempt in self._tries():
            with attempt, _translated(self._url):
                async with (
                    _http().AsyncClient(**_options()) as client,
                    client.stream("POST", self._url, **self._message(request, streamed=streamed)) as answer,
                ):
                    if not streamed or answer.status_code != OK:
                        await answer.aread()
                        yield _whole(answer)
                        return
                    async for line in answer.aiter_lines():
                        if piece := streamed_piece(line):
                            attempt.has_begun = True
                            yield piece
                return
            await self._asleep(attempt.wait_s)

    def _tries(self) -> Iterator[_Try]:
        return (_Try(number, self._chance) for number in range(1, TRIES_MAX + 1))

    def _message(self, request: ChatRequest, *, streamed: bool) -> dict[str, Any]:
        return {"content": body_of(request, streamed=streamed), "headers": self._headers()}

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


class _Try:
    """One try, as a context: holds an error back when another try may help, and says how long to wait before it."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self._number = number
        self._chance = chance
        self.has_begun = False
        """A piece was given: from now on a failure is the caller's to see."""
        self.wait_s = 0.0

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        is_last = self._number >= TRIES_MAX or self.has_begun
        if is_last or not isinstance(error, Unavailable) or not error.data.get("may_pass", True):
            return False
        asked_s = error.data.get("retry_after_s")
        if isinstance(asked_s, float):
            self.wait_s = asked_s
            return asked_s <= RETRY_WAIT_MAX_S
        self.wait_s = backoff_s(self._number, RETRY_WAIT_FIRST_S, RETRY_WAIT_MAX_S, self._chance.random())
        return True


def _whole(answer: Any) -> ChatPiece:
    """An answer that was read to its end. Raises what its status says."""
    check(answer.status_code, answer.headers, answer.content, time.time())
    return whole_piece(answer.content)


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
