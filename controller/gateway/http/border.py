"""The outermost layer: who calls, and what leaves when something breaks.

Plain ASGI, because it stands before every request, the fast ones too. It must never know what a request means.
"""

from __future__ import annotations

from collections.abc import Container

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentfarm.errors import FarmError, InvalidRequest
from controller.gateway.http.access import ANONYMOUS, Hosts, Principal, Principals, check_origin, unauthorized
from controller.gateway.http.problems import TooLarge, mistake_of, problem_response


class Border:
    """ASGI middleware: names the principal, refuses NUL in addresses and names not ours, lets no traceback out.

    open_paths: paths whose calls need no token. None: not known yet, because the routes are still being built. Then
    a call without a token goes on, to one who lets it wait; a wrong token is refused as always.
    """

    def __init__(self, app: ASGIApp, principals: Principals, hosts: Hosts, open_paths: Container[str] | None) -> None:
        self.app = app
        self._hosts = hosts
        self._principals = principals
        self._open_paths = open_paths

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
            scope["principal"] = self._admit(scope)
            await self.app(scope, receive, watched_send)
        except FarmError as error:
            if has_begun:
                raise
            await problem_response(error)(scope, receive, send)
        except Exception as error:
            mistake = mistake_of(error, f"{scope['method']} {scope['path']}")
            if not has_begun:
                await problem_response(mistake)(scope, receive, send)

    def _admit(self, scope: Scope) -> Principal:
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope["query_string"]:
            raise InvalidRequest("The address holds a NUL character.", remedy="Remove %00 from it.")
        header = self._checked(scope)
        principal = self._principals.known_by(header)
        if principal is not None:
            return principal
        may_go_on = not header if self._open_paths is None else scope["path"] in self._open_paths
        if not may_go_on:
            raise unauthorized()
        return ANONYMOUS

    def _checked(self, scope: Scope) -> bytes:
        """The Authorization header of a request for a name of ours, and of no page that is another's."""
        header = origin = host = None
        for name, value in scope["headers"]:
            if name == b"host":
                self._hosts.check(value)
                host = value
            elif name == b"authorization":
                header = value if header is None else header
            elif name == b"origin":
                origin = value
        if host is None and scope["http_version"] != "1.0":
            raise InvalidRequest("The request names no host.", remedy="Send a Host header (RFC 9112, section 3.2).")
        if origin is not None:
            check_origin(origin, host or b"")
        return header or b""


def limited(scope: Scope, receive: Receive, limit: int | None) -> Receive:
    """`receive` that refuses a body as soon as it is known to be too long, not after it was read. None: any length."""
    if limit is None:
        return receive
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    length = 0

    async def limited_receive() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > limit:
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
