"""The express way of `POST /v1/tasks` and `POST /v1/tasks?wait=SECONDS`, the call that programs make most.

A framework's routing, dependencies and validation cost more than the whole submit. Plain ASGI takes what is plainly
that call. Everything else, and all that could be read in two ways, goes on to the route, which knows all options and
says what is wrong. Both ways check the same Call and end in `submission`; a test sends the same calls
both ways.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.gateway.http.access import BodySize, Call, Permission, body_limits
from controller.gateway.http.border import limited
from controller.gateway.http.limits import WAIT_MAX_S
from controller.gateway.scope import Farm
from controller.gateway.tasks.submission import answer_submitted, submit_one

SUBMIT: Final = Call("POST", "/v1/tasks", Permission.TASKS_SUBMIT, BodySize.PAYLOAD)
"""The line of the table that both ways check."""
_PLAIN_QUERY: Final = re.compile(rb"wait=([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_KEY_HEADER: Final = b"idempotency-key"


class Express:
    """ASGI middleware, inside the border: the border has named the principal, and it answers errors."""

    def __init__(self, app: ASGIApp, farm: Farm) -> None:
        self.app = app
        self._farm = farm
        self._body_max_bytes = body_limits(farm.settings.payload_max_bytes)[SUBMIT.body]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == SUBMIT.path and scope["method"] == SUBMIT.method:
            SUBMIT.admit(scope["principal"])
            wait_s = _wait_of(scope["query_string"])
            keys = [value for name, value in scope["headers"] if name == _KEY_HEADER]
            if wait_s is not None and len(keys) < 2:
                key = keys[0].decode("latin-1") if keys else None
                await self._submit(key, wait_s, scope, limited(scope, receive, self._body_max_bytes), send)
                return
        await self.app(scope, receive, send)

    async def _submit(self, key: str | None, wait_s: float, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return
        done = await submit_one(self._farm, body, key, scope["principal"].name)
        answer = await answer_submitted(self._farm, done, wait_s, receive)
        await answer(scope, receive, send)


def _wait_of(query: bytes) -> float | None:
    """Seconds to wait; None when the query says more or other than that."""
    if not query:
        return 0.0
    match = _PLAIN_QUERY.fullmatch(query)
    if match is None:
        return None
    wait_s = float(match[1])
    return wait_s if wait_s <= WAIT_MAX_S else None


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the caller left before its end."""
    parts: list[bytes] = []
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
