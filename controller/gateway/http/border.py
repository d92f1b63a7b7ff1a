"""The outermost layer: who may come in, how much may come in, and what leaves when something breaks.

Plain ASGI, because it stands before every request, the fast ones too. It must never know what a request means.
"""

from __future__ import annotations

import hmac
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentfarm.errors import FarmError, InvalidRequest
from controller.gateway.http.limits import BUNDLE_MAX_BYTES, CONTROL_BODY_MAX_BYTES
from controller.gateway.http.problems import TooLarge, Unauthorized, mistake_of, problem_response

OPEN_PATHS: Final = frozenset({"/healthz", "/metrics", "/v1/nodes/join", "/docs", "/openapi.json", "/"})


class Border:
    """ASGI middleware: bearer token, NUL-free address, body limits, and no traceback to anyone."""

    def __init__(self, app: ASGIApp, token: str, submit_max_bytes: int) -> None:
        self.app = app
        self._expected = f"Bearer {token}".encode()
        self._submit_max_bytes = submit_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            self._admit(scope)
            limit = self._body_limit(scope["path"])
            await self.app(scope, receive if limit is None else _limited(scope, receive, limit), watched_send)
        except FarmError as error:
            if has_begun:
                raise
            await problem_response(error)(scope, receive, send)
        except Exception as error:
            mistake = mistake_of(error, f"{scope['method']} {scope['path']}")
            if not has_begun:
                await problem_response(mistake)(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope["query_string"]:
            raise InvalidRequest("The address holds a NUL character.", remedy="Remove %00 from it.")
        if scope["path"] not in OPEN_PATHS and not self._is_known(scope):
            raise Unauthorized(
                "This call needs the operator's token.",
                remedy="Send it as 'Authorization: Bearer …'; it is in operator.token in the controller's data folder.",
            )

    def _is_known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)

    def _body_limit(self, path: str) -> int | None:
        if path == "/v1/tasks":
            return self._submit_max_bytes
        if path == "/v1/tasks/batch":
            return None  # read line by line, each with its own limit
        return BUNDLE_MAX_BYTES if path.startswith("/v1/bundles/") else CONTROL_BODY_MAX_BYTES


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """`receive` that refuses a body as soon as it is known to be too long, not after it was read."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    seen = 0

    async def limited_receive() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return limited_receive


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body is larger than {limit:,} bytes.",
        remedy="Send less, or keep the data elsewhere and send where it is.",
        limit="BODY_MAX_BYTES",
        maximum=limit,
    )
