"""The farm as a whole over HTTP: status, events, health, scrape targets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Header, Query, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from agentfarm.errors import Unavailable
from controller.core.lives import NodeState
from controller.core.model import TaskId
from controller.gateway.farm.metrics import metrics_text
from controller.gateway.farm.models import EventView, HealthView, StatusView, TargetGroup
from controller.gateway.farm.views import VERSION, event_view, status_view
from controller.gateway.history import EventFilter
from controller.gateway.http import sse
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import dump, json_response
from controller.gateway.http.limits import EVENTS_PAGE, SSE_KEEPALIVE_S
from controller.gateway.http.reference import reference_page
from controller.gateway.http.room import Room, TheFarm
from controller.gateway.prefixes import find_deployment, find_node
from controller.gateway.scope import Farm

if TYPE_CHECKING:
    from controller.journal.queries.reader import StoredEvent

room = Room("farm")

NDJSON: Final = "application/x-ndjson"
PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
FOLLOW_GATHER_S: Final = 0.05
"""Events that come close together are read together."""


@room.route(Call("GET", "/v1/status", Permission.FARM_READ), response_model=StatusView, operation_id="status")
async def status(farm: TheFarm) -> Response:
    """The farm in one answer: nodes, deployments, replicas, tasks by state, market."""
    ended = await farm.history.ended_counts()
    return json_response(status_view(farm.state, farm.now(), ended))


@room.route(
    Call("GET", "/v1/events", Permission.FARM_READ),
    response_model=EventView,
    operation_id="list_events",
    responses={200: {"content": {NDJSON: {}, "text/event-stream": {}}}},
)
async def events(
    farm: TheFarm,
    follow: Annotated[bool, Query(description="Stay, and send events as they come.")] = False,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="Only events with a greater id.")] = None,
    limit: Annotated[int, Query(ge=1, le=EVENTS_PAGE, description="Without `after`: the newest this many.")] = 50,
    node: str | None = None,
    agent: str | None = None,
    task: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    last_event_id: Annotated[str | None, Header(description="Resume a followed stream after this event.")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = NDJSON,
) -> Response:
    """The farm's story, oldest first: NDJSON, or server-sent events by Accept."""
    if follow:
        sse.check_room()
    about = _filter(farm, node, agent, task)
    start = sse.event_id(last_event_id) if last_event_id else after
    is_sse = "text/event-stream" in accept
    first = await farm.history.events(start, limit if start is None or not follow else EVENTS_PAGE, about)
    if not follow:
        body = b"".join(_written(event, is_sse=is_sse) for event in first)
        return Response(body, media_type="text/event-stream" if is_sse else NDJSON)
    pieces = _follow(farm, first, start or 0, about, is_sse=is_sse)
    return sse.event_stream(pieces) if is_sse else sse.StreamedAnswer(pieces, NDJSON, b"\n")


@room.route(
    Call("GET", "/healthz", Permission.OPEN),
    response_model=HealthView,
    operation_id="health",
    responses={503: {"model": HealthView}},
)
async def health(farm: TheFarm) -> Response:
    """200 while this controller leads; 503 while it stands by or reads its state again. Needs no token."""
    try:
        return json_response(HealthView(status="ok", version=VERSION, epoch=farm.state.epoch))
    except Unavailable:
        return json_response(HealthView(status="standby", version=VERSION), 503, {"Retry-After": "1"})


@room.route(
    Call("GET", "/v1/sd/prometheus", Permission.METRICS_READ),
    response_model=list[TargetGroup],
    operation_id="prometheus_targets",
)
async def prometheus_targets(farm: TheFarm) -> Response:
    """Scrape targets, the daemons of all nodes that have metrics, in the form of http_sd."""
    groups = [
        {
            "targets": [node.metrics_address],
            "labels": {"job": "agentfarm-node", "node": node.name, "state": node.state.value},
        }
        for node in sorted(farm.state.nodes.values(), key=lambda node: node.name)
        if node.metrics_address and node.state is not NodeState.LOST
    ]
    return json_response(groups)


@room.route(
    Call("GET", "/metrics", Permission.OPEN),
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(farm: TheFarm) -> Response:
    """The controller's metrics in Prometheus' text form. Needs no token."""
    return Response(metrics_text(farm), media_type="text/plain; version=0.0.4; charset=utf-8")


@room.route(Call("GET", "/openapi.json", Permission.OPEN), include_in_schema=False)
async def description(request: Request) -> Response:
    """The description of every call, for programs."""
    return JSONResponse(request.app.openapi())


@room.route(Call("GET", "/docs", Permission.OPEN), include_in_schema=False)
async def reference(request: Request) -> Response:
    """The description of every call, for people."""
    page = reference_page(request.app.openapi())
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


@room.route(Call("GET", "/", Permission.OPEN), include_in_schema=False)
async def root() -> Response:
    """A person with a browser wants the description."""
    return RedirectResponse("/docs")


def _filter(farm: Farm, node: str | None, agent: str | None, task: int | None) -> EventFilter:
    return EventFilter(
        node=find_node(farm.state, node) if node is not None else None,
        deployment=find_deployment(farm.state, agent) if agent is not None else None,
        task=TaskId(task) if task is not None else None,
    )


async def _follow(
    farm: Farm, first: Sequence[StoredEvent], after: int, about: EventFilter, *, is_sse: bool
) -> AsyncGenerator[bytes, None]:
    """Events as they are committed. The bus only wakes this; the journal is read, so none is missed or doubled."""
    queue = farm.engine.events.follow()
    page = first
    try:
        while True:
            for event in page:
                after = max(after, event.id)
            if page:
                yield b"".join(_written(event, is_sse=is_sse) for event in page)
            if len(page) < EVENTS_PAGE and not await _woken(queue):
                farm.engine.events.unfollow(queue)
                queue = farm.engine.events.follow()
            with suppress(Unavailable):  # PostgreSQL is away: the events of that time are read when it is back
                page = await farm.history.events(after, EVENTS_PAGE, about)
                continue
            page = ()
            await asyncio.sleep(1.0)
    finally:
        farm.engine.events.unfollow(queue)


async def _woken(queue: asyncio.Queue[Any]) -> bool:
    """Wait for news, or for the time to look anyway. False: this queue is over."""
    try:
        async with asyncio.timeout(SSE_KEEPALIVE_S):
            item = await queue.get()
            await asyncio.sleep(FOLLOW_GATHER_S)
    except TimeoutError:
        return True
    while item is not None and not queue.empty():
        item = queue.get_nowait()
    return item is not None


def _written(event: StoredEvent, *, is_sse: bool) -> bytes:
    text = dump(event_view(event))
    return sse.message("event", text, str(event.id)) if is_sse else text + b"\n"
