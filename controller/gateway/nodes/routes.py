"""Nodes over HTTP: look, invite, join, cordon, drain, forget."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from agentfarm.errors import InvalidRequest
from controller.core.commands import AddNode, Command, Cordon, ForgetNode, StartDrain, Uncordon
from controller.core.model import NodeName
from controller.explain.drains import plan_drain
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import json_response
from controller.gateway.http.room import Caller, Room, TheFarm, body_of
from controller.gateway.nodes.models import (
    DrainBody,
    DrainPlanView,
    InviteAnswer,
    InviteBody,
    JoinAnswer,
    JoinBody,
    NodeList,
    NodeView,
    ReasonBody,
)
from controller.gateway.nodes.views import drain_plan_view, node_view
from controller.gateway.prefixes import find_node
from controller.gateway.scope import Farm

room = Room("nodes")


@room.route(Call("GET", "/v1/nodes", Permission.FARM_READ), response_model=NodeList, operation_id="list_nodes")
async def list_nodes(farm: TheFarm) -> Response:
    """Every node."""
    state, now = farm.state, farm.now().mono
    return json_response({"nodes": [node_view(state, state.nodes[name], now) for name in sorted(state.nodes)]})


@room.route(
    Call("POST", "/v1/nodes/invite", Permission.NODES_MANAGE),
    response_model=InviteAnswer,
    status_code=201,
    operation_id="invite_node",
)
async def invite(body: Annotated[InviteBody, body_of(InviteBody)], farm: TheFarm, caller: Caller) -> Response:
    """A one-use token with which a machine joins under this name. Inviting again replaces the token before it."""
    answer = await farm.joining.invite(body.name)
    await farm.ask(AddNode(NodeName(body.name), actor=caller.name))
    return json_response(answer, 201)


@room.route(
    Call("POST", "/v1/nodes/join", Permission.OPEN),
    response_model=JoinAnswer,
    operation_id="join_node",
)
async def join(body: Annotated[JoinBody, body_of(JoinBody)], farm: TheFarm) -> Response:
    """For `agentfarm-node join`: a certificate for a request that the invitation's secret proves. Needs no token."""
    return json_response(await farm.joining.join(body))


@room.route(Call("GET", "/v1/nodes/{name}", Permission.FARM_READ), response_model=NodeView, operation_id="show_node")
async def show(name: str, farm: TheFarm) -> Response:
    """One node with its replicas."""
    return _view(farm, find_node(farm.state, name))


@room.route(
    Call("POST", "/v1/nodes/{name}/cordon", Permission.NODES_MANAGE),
    response_model=NodeView,
    operation_id="cordon_node",
)
async def cordon(
    name: str, body: Annotated[ReasonBody, body_of(ReasonBody, is_optional=True)], farm: TheFarm, caller: Caller
) -> Response:
    """Place nothing new there. What runs goes on."""
    node = find_node(farm.state, name)
    return await _changed(farm, node, Cordon(node, body.reason, actor=caller.name))


@room.route(
    Call("POST", "/v1/nodes/{name}/uncordon", Permission.NODES_MANAGE),
    response_model=NodeView,
    operation_id="uncordon_node",
)
async def uncordon(name: str, farm: TheFarm, caller: Caller) -> Response:
    """Let it take replicas again; a drain ends."""
    node = find_node(farm.state, name)
    return await _changed(farm, node, Uncordon(node, actor=caller.name))


@room.route(
    Call("POST", "/v1/nodes/{name}/drain", Permission.NODES_MANAGE),
    response_model=NodeView | DrainPlanView,
    operation_id="drain_node",
)
async def drain(
    name: str,
    body: Annotated[DrainBody, body_of(DrainBody, is_optional=True)],
    farm: TheFarm,
    caller: Caller,
    plan: Annotated[bool, Query(description="Change nothing; answer with what would move where.")] = False,
    beside: Annotated[list[str] | None, Query(description="For a plan: nodes that will be drained too.")] = None,
) -> Response:
    """Move everything off. Complete when the node's `drain.is_complete` is true: its daemon has confirmed it."""
    node = find_node(farm.state, name)
    if plan:
        others = {find_node(farm.state, other) for other in beside or ()} - {node}
        return json_response(drain_plan_view(plan_drain(farm.state, [node, *sorted(others)])))
    return await _changed(farm, node, StartDrain(node, body.deadline_s, body.reason, actor=caller.name))


@room.route(Call("DELETE", "/v1/nodes/{name}", Permission.NODES_MANAGE), status_code=204, operation_id="forget_node")
async def forget(name: str, farm: TheFarm, caller: Caller) -> Response:
    """Strike a node off that is lost or never joined. Needs the whole name."""
    node = find_node(farm.state, name)
    if node != name:
        raise InvalidRequest(f"To forget {node}, write its whole name, not {name!r}.", remedy=f"Name it {node}.")
    await farm.ask(ForgetNode(node, actor=caller.name))
    await farm.joining.forget(node)
    return Response(status_code=204)


async def _changed(farm: Farm, node: NodeName, command: Command) -> Response:
    await farm.ask(command)
    return _view(farm, node)


def _view(farm: Farm, name: NodeName) -> Response:
    state = farm.state
    return json_response(node_view(state, state.nodes[name], farm.now().mono, with_replicas=True))
