"""What the routes of one subject are made of: a table of calls, and the parameters that every route may ask for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar, cast, get_type_hints

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from controller.gateway.http.access import BodyLimits, Call, Principal
from controller.gateway.http.bodies import raw_body, read_model
from controller.gateway.http.border import limited
from controller.gateway.scope import Farm

Endpoint = TypeVar("Endpoint", bound=Callable[..., Coroutine[Any, Any, Response]])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


async def _farm_of(request: Request) -> Farm:
    return cast("Farm", request.app.state.farm)


async def _caller_of(request: Request) -> Principal:
    return cast("Principal", request.scope["principal"])


TheFarm = Annotated[Farm, Depends(_farm_of)]
"""`farm: TheFarm` among a route's parameters: the parts of the controller that a route may use."""
Caller = Annotated[Principal, Depends(_caller_of)]
"""`caller: Caller`: who calls."""


_BODIES: Final[dict[object, dict[str, Any]]] = {}
"""What each reader of `body_of` reads, in OpenAPI's form."""


def body_of(model: type[BaseModel], *, is_optional: bool = False) -> Any:
    """`body: Annotated[ScaleBody, body_of(ScaleBody)]`: the body as that model, read and described by one word.

    is_optional: an empty body is an empty object. A body that does not fit is refused as InvalidRequest.
    """

    async def read(request: Request) -> BaseModel:
        return read_model(await request.body(), model, is_optional=is_optional)

    _BODIES[read] = raw_body(model, is_required=not is_optional)
    return Depends(read)


class Room:
    """The routes of one subject. None can be made without its Call, which says what the call needs.

    tag: the chapter of the description that tells of them, where a route names no other.
    """

    def __init__(self, tag: str) -> None:
        self.calls: list[Call] = []
        self.router = APIRouter(route_class=Undeclared)
        self._tag = tag

    def route(self, call: Call, *, tag: str = "", **options: Any) -> Callable[[Endpoint], Endpoint]:
        """A route for this call. options: as of FastAPI's decorators."""
        self.calls.append(call)

        def add(endpoint: Endpoint) -> Endpoint:
            options.setdefault("openapi_extra", _described(endpoint))
            self.router.add_api_route(
                call.path, endpoint, methods=[call.method], tags=[tag or self._tag],
                route_class_override=_guarded_by(call), **options,
            )  # fmt: skip
            return endpoint

        return add


class Undeclared(APIRoute):
    """A route that was made without a Call. The gateway does not start with one."""

    def __init__(self, path: str, *_: Any, **__: Any) -> None:
        raise TypeError(f"The route {path} does not say what it needs: declare it with Room.route(Call(...)).")


def _guarded_by(call: Call) -> type[APIRoute]:
    """Routes that check permission and size of the body before anything of the request is read."""

    class Guarded(APIRoute):
        def get_route_handler(self) -> Handler:
            handler = super().get_route_handler()

            async def admitted(request: Request) -> Response:
                call.admit(request.scope["principal"])
                limits: BodyLimits = request.app.state.body_limits
                receive = limited(request.scope, request.receive, limits[call.body])
                return await handler(Request(request.scope, receive))

            return admitted

    return Guarded


def _described(endpoint: Callable[..., Any]) -> dict[str, Any] | None:
    """The body that the route takes by `body_of`, in OpenAPI's form."""
    for hint in get_type_hints(endpoint, include_extras=True).values():
        for mark in getattr(hint, "__metadata__", ()):
            description = _BODIES.get(getattr(mark, "dependency", None))
            if description is not None:
                return description
    return None
