"""SQL over QuestDB's HTTP API, with nothing but the standard library.

For schema, health and tests; rows in bulk go through the official client, agents use the PostgreSQL wire.
Source: the REST API's `GET /exec?query=…`.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from agentfarm.errors import FarmError, Unavailable
from nodeagent.market.store.endpoint import Endpoint

QUERY_TIMEOUT_S: Final = 10.0
ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024


class SqlRefused(FarmError):
    """The server understood and said no; `problem` is its own text."""

    code = "sql_refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names and rows as JSON values: timestamps are text, decimals are text or numbers as the server sends
    them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def dicts(self) -> list[dict[str, Any]]:
        """Each row by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


async def query(endpoint: Endpoint, sql: str, *, timeout_s: float = QUERY_TIMEOUT_S) -> Answer:
    """Run one statement. Raises SqlRefused, or Unavailable when the server cannot be reached in time."""
    return await asyncio.to_thread(query_now, endpoint, sql, timeout_s=timeout_s)


def query_now(endpoint: Endpoint, sql: str, *, timeout_s: float = QUERY_TIMEOUT_S) -> Answer:
    """`query`, blocking."""
    status, body = get(endpoint, f"/exec?{urlencode({'query': sql, 'timings': 'false'})}", timeout_s)
    try:
        content: dict[str, Any] = json.loads(body)
    except ValueError:
        content = {}
    if status >= 500 and "error" not in content:
        raise Unavailable(f"QuestDB answered {status}.")
    if status != 200 or "error" in content:
        raise SqlRefused(f"{content.get('error', body[:200])} (in: {sql.strip()[:200]})", status=status)
    columns = tuple(column["name"] for column in content.get("columns", ()))
    return Answer(columns, tuple(tuple(row) for row in content.get("dataset", ())))


def get(endpoint: Endpoint, path: str, timeout_s: float, *, port: int | None = None) -> tuple[int, bytes]:
    """One GET: status and body. Raises Unavailable when there is no answer."""
    kind = http.client.HTTPSConnection if endpoint.is_tls and port is None else http.client.HTTPConnection
    connection = kind(endpoint.host, port or endpoint.http_port, timeout=timeout_s)
    headers = {"Connection": "close"}
    if endpoint.user:
        users = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
        headers["Authorization"] = f"Basic {users}"
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_MAX_BYTES)
    except (OSError, http.client.HTTPException) as failure:
        raise Unavailable(f"QuestDB at {endpoint.http_url} does not answer: {failure}") from failure
    finally:
        connection.close()
