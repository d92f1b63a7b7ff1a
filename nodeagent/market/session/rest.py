"""Questions to a venue over REST: politely, each once, and every answer to the sink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import httpx

from agentfarm.errors import InvalidRequest
from nodeagent.market.model.records import RecordKind, RestAnswer
from nodeagent.market.model.source import Purpose, RestRequest, Source
from nodeagent.market.session.pace import Pace, is_local
from nodeagent.market.session.websocket import Sink

REST_TIMEOUT_S: Final = 20.0
REST_AT_ONCE: Final = 4
REST_PAGES_MAX: Final = 500
"""Pages followed for one hole in one go; the rest of the hole is asked for at its next turn."""
REST_ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024
RETRY_AFTER_MAX_S: Final = 3 * 86_400.0
"""The longest ban that Binance documents."""


class RestClient:
    """Asks the venue within its budget. A question that is under way is not put a second time.

    When the venue names a time to wait (`Retry-After`), the client asks nothing before it is over. The venue bans those
    that ask.
    """

    def __init__(
        self, source: Source, sink: Sink, is_wanted: Callable[[RestRequest], bool] = lambda request: True
    ) -> None:
        """`is_wanted`: asked when it is a question's turn; it may have waited long."""
        self._source = source
        self._sink = sink
        self._is_wanted = is_wanted
        self._pace = Pace(source.rest_budget.per_s, source.rest_budget.burst)
        self._slots = asyncio.Semaphore(REST_AT_ONCE)
        self._under_way: set[RestRequest] = set()
        self._waits_until_s = 0.0
        self._client = httpx.AsyncClient(
            timeout=REST_TIMEOUT_S, headers={"User-Agent": "agentfarm"}, trust_env=not is_local(source.rest_url)
        )
        self.requests = 0
        self.failures = 0
        self.problem = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the venue makes us wait: a question put now is not asked."""
        return time.monotonic() < self._waits_until_s

    async def ask(self, request: RestRequest) -> None:
        """Ask, and follow the pages of a hole. Failures are counted; the caller asks again by its own clock."""
        if request in self._under_way:
            return
        self._under_way.add(request)
        try:
            async with self._slots:
                await self._ask_pages(request)
        finally:
            self._under_way.discard(request)

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()

    async def _ask_pages(self, request: RestRequest) -> None:
        following: RestRequest | None = request
        for _ in range(REST_PAGES_MAX):
            if following is None:
                return
            answer = await self._get(following)
            if answer is None:
                return
            self._sink.take(RecordKind.REST, max(0, following.connection_id), answer.encode())
            if answer.status != httpx.codes.OK:
                self.failures += 1
                return
            self.problem = ""
            following = self._next_page(answer)

    async def _get(self, request: RestRequest) -> RestAnswer | None:
        if not self._may_ask(request):
            return None
        await self._pace.turn(self._source.rest_cost(request))
        if not self._may_ask(request):
            return None
        self.requests += 1
        try:
            async with self._client.stream("GET", request.url) as response:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > REST_ANSWER_MAX_BYTES:
                        raise httpx.HTTPError("the answer is too large")
                self._heed(request, response)
                return RestAnswer(request, response.status_code, bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.failures += 1
            self.problem = f"{request.url}: {type(error).__name__} {error}"
            return None

    def _may_ask(self, request: RestRequest) -> bool:
        return not self.is_waiting and self._is_wanted(request)

    def _heed(self, request: RestRequest, response: httpx.Response) -> None:
        """Note a refusal, and how long to wait where the venue says it."""
        if response.status_code == httpx.codes.OK:
            return
        self.problem = f"{request.url} answered {response.status_code}"
        wait_s = response.headers.get("Retry-After", "")
        if wait_s.isascii() and wait_s.isdigit():
            self._waits_until_s = time.monotonic() + min(float(wait_s), RETRY_AFTER_MAX_S)
            self.problem += f": it is to be asked nothing for {wait_s} s"

    def _next_page(self, answer: RestAnswer) -> RestRequest | None:
        if answer.request.purpose is not Purpose.TRADES:
            return None
        try:
            return self._source.parse_trades(answer.request, answer.body).next_request
        except InvalidRequest:
            return None
