"""The gateway as one ASGI application: routes, the border around them, and the description of it all."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agentfarm.errors import FarmError, InvalidRequest, NotFound
from agentfarm.names import suggestion
from controller.gateway.agents import bundles, deployments, replicas
from controller.gateway.agents import explain as explain_agents
from controller.gateway.farm import routes as farm
from controller.gateway.farm.views import VERSION
from controller.gateway.http.access import Call, Hosts, Permission, Principals, body_limits, operators
from controller.gateway.http.bodies import DESCRIBED, invalid_request
from controller.gateway.http.border import Border
from controller.gateway.http.models import ProblemView
from controller.gateway.http.problems import MEDIA_TYPE, problem_response
from controller.gateway.http.room import Room, Undeclared
from controller.gateway.market import products, questions
from controller.gateway.nodes import routes as nodes
from controller.gateway.scope import Farm
from controller.gateway.tasks import explain as explain_tasks
from controller.gateway.tasks import routes as tasks
from controller.gateway.tasks.express import Express

ROOMS: Final[tuple[Room, ...]] = (
    tasks.room, explain_tasks.room, deployments.room, bundles.room, replicas.room, explain_agents.room, nodes.room,
    products.room, questions.room, farm.room,
)  # fmt: skip
CALLS: Final[tuple[Call, ...]] = tuple(call for room in ROOMS for call in room.calls)
"""The table: every call of the gateway, what it needs and how much it takes."""
OPEN_PATHS: Final = frozenset(call.path for call in CALLS if call.permission is Permission.OPEN)

SUMMARY: Final = "Submit tasks, follow them, and run the farm."
DESCRIPTION: Final = """Every call takes the operator's token as `Authorization: Bearer …` unless it says otherwise.
Errors are problem details (RFC 9457): `detail` says what was wrong, `remedy` what to do about it.
Streams are server-sent events that resume by `Last-Event-ID`."""


class _Gateway(FastAPI):
    """FastAPI with a description of its own making."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _described(self)
        return self.openapi_schema


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method does not."""

    code = "method_not_allowed"


def app_of(the_farm: Farm, principals: Principals | None = None) -> FastAPI:
    """The application over a farm. It owns nothing that must be started or stopped.

    principals: who has which token; by default there is the operator's alone, which may do everything.
    """
    settings = the_farm.settings
    app = _Gateway(
        title="Agent Farm", version=VERSION, summary=SUMMARY, description=DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.state.farm = the_farm
    app.state.body_limits = body_limits(settings.payload_max_bytes)
    app.router.route_class = Undeclared
    for room in ROOMS:
        app.include_router(room.router)
    app.add_exception_handler(FarmError, _on_farm_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(Express, farm=the_farm)
    app.add_middleware(  # the last one added is the outermost
        Border,
        principals=principals or operators(settings.operator_token),
        hosts=Hosts(settings.hosts),
        open_paths=OPEN_PATHS,
    )
    return app


async def _on_farm_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FarmError)
    return problem_response(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(invalid_request(error.errors()))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return problem_response(_no_route(request), headers)
    if error.status_code == 405:
        allowed = headers.get("allow", headers.get("Allow", ""))
        problem = f"{request.url.path} does not take {request.method}."
        return problem_response(MethodNotAllowed(problem, remedy=f"It takes {allowed}." if allowed else ""), headers)
    return problem_response(InvalidRequest(str(error.detail)), headers)


def _no_route(request: Request) -> NotFound:
    path = request.url.path
    if path != "/" and path.endswith("/"):
        return NotFound(f"There is no {path}.", remedy=f"Leave the last slash out: {path.rstrip('/')}.")
    paths = sorted(request.app.openapi()["paths"])
    return NotFound(f"There is no {path}.", remedy=suggestion(path, paths) or "All calls are described at /docs.")


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI: what FastAPI sees, plus bodies we read ourselves, problems as every error, and the token."""
    schema = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    components = schema.setdefault("components", {})
    described: list[type[BaseModel]] = [*DESCRIBED, ProblemView]
    _, definitions = models_json_schema(
        [(model, "validation") for model in described], ref_template="#/components/schemas/{model}"
    )
    components.setdefault("schemas", {}).update(definitions["$defs"])
    for leftover in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(leftover, None)
    components["securitySchemes"] = {"operator": {"type": "http", "scheme": "bearer"}}
    problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemView"}}}}
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "A problem, and what to do about it."} | problem
            if path not in OPEN_PATHS:
                operation["security"] = [{"operator": []}]
    return schema
