"""Replicas over HTTP, and their logs, which live on their nodes and are read through the link."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from agentfarm.errors import FarmError, Unavailable
from controller.gateway.agents.models import ReplicaList, ReplicaView
from controller.gateway.agents.views import replica_view
from controller.gateway.http import sse
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import dump, json_response
from controller.gateway.http.limits import LOG_TAIL_DEFAULT, LOG_TAIL_MAX
from controller.gateway.http.problems import problem_of
from controller.gateway.http.room import Room, TheFarm
from controller.gateway.prefixes import find_deployment, find_replica

room = Room("replicas")


@room.route(Call("GET", "/v1/replicas", Permission.FARM_READ), response_model=ReplicaList, operation_id="list_replicas")
async def list_replicas(
    farm: TheFarm, agent: Annotated[str | None, Query(description="Only of this agent.")] = None
) -> Response:
    """Every replica that lives or is wanted; ended ones are forgotten."""
    state = farm.state
    name = find_deployment(state, agent) if agent is not None else None
    shown = [r for r in state.replicas.values() if name is None or r.deployment == name]
    shown.sort(key=lambda replica: (replica.deployment, replica.seat, replica.id))
    return json_response({"replicas": [replica_view(replica) for replica in shown]})


@room.route(
    Call("GET", "/v1/replicas/{replica}/log", Permission.FARM_READ),
    operation_id="read_log",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
@room.route(Call("GET", "/v1/replicas/{deployment}/{seat}/log", Permission.FARM_READ), include_in_schema=False)
async def log(
    farm: TheFarm,
    replica: str = "",
    deployment: str = "",
    seat: str = "",
    tail: Annotated[int, Query(ge=0, le=LOG_TAIL_MAX)] = LOG_TAIL_DEFAULT,
    follow: bool = False,
) -> Response:
    """The log as server-sent events: one `line` each, at last an `end`, or a `problem` if the node went away."""
    sse.check_room()
    state = farm.state
    seated = state.replicas[find_replica(state, replica or f"{deployment}/{seat}")]
    if farm.logs is None:
        raise Unavailable("This controller has no link to nodes.", remedy="Read the log on the node itself.")
    chunks = aiter(farm.logs.read(seated, tail_lines=tail, follow=follow))
    first = (
        None if follow else await anext(chunks, b"")
    )  # a node that cannot answer gives a status, not a broken stream
    return sse.event_stream(_lines(chunks, first))


@room.route(
    Call("GET", "/v1/replicas/{replica}", Permission.FARM_READ), response_model=ReplicaView, operation_id="show_replica"
)
@room.route(Call("GET", "/v1/replicas/{deployment}/{seat}", Permission.FARM_READ), include_in_schema=False)
async def show(farm: TheFarm, replica: str = "", deployment: str = "", seat: str = "") -> Response:
    """One replica, by id or as deployment/seat."""
    state = farm.state
    return json_response(replica_view(state.replicas[find_replica(state, replica or f"{deployment}/{seat}")]))


async def _lines(chunks: AsyncIterator[bytes], first: bytes | None) -> AsyncGenerator[bytes, None]:
    try:
        if first:
            yield _messages(first)
        async for chunk in chunks:
            yield _messages(chunk)
        yield sse.message("end", b"{}")
    except FarmError as problem:
        yield sse.message("problem", dump(problem_of(problem)))
    finally:
        if isinstance(chunks, AsyncGenerator):
            with suppress(RuntimeError):
                await chunks.aclose()


def _messages(chunk: bytes) -> bytes:
    return b"".join(sse.message("line", line) for line in chunk.splitlines())
