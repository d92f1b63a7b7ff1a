"""Why replicas and deployments are as they are, over HTTP: every seat, and every node with every reason."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from starlette.responses import Response

from controller.explain.deployments import DeploymentExplanation, explain_deployment
from controller.explain.replicas import ReplicaExplanation, explain_replica
from controller.gateway.agents.models import ExplainView
from controller.gateway.agents.views import fits_view, standings_view
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import json_response
from controller.gateway.http.room import Room, TheFarm
from controller.gateway.prefixes import find_deployment, find_replica
from controller.gateway.scope import Farm

room = Room("explain")


@room.route(Call("GET", "/v1/explain/replica/{deployment}/{seat}", Permission.FARM_READ), include_in_schema=False)
async def replica_by_seat(deployment: str, seat: str, farm: TheFarm) -> Response:
    """The same by the replica's other name."""
    return _replica(farm, f"{deployment}/{seat}")


@room.route(
    Call("GET", "/v1/explain/replica/{id}", Permission.FARM_READ),
    response_model=ExplainView,
    operation_id="explain_replica",
)
async def replica(replica_id: Annotated[str, Path(alias="id", examples=["17"])], farm: TheFarm) -> Response:
    """Why a replica is where it is, or nowhere. By id or as deployment/seat."""
    return _replica(farm, replica_id)


@room.route(
    Call("GET", "/v1/explain/deployment/{id}", Permission.FARM_READ),
    response_model=ExplainView,
    operation_id="explain_deployment",
)
async def deployment(name: Annotated[str, Path(alias="id", examples=["market-brief"])], farm: TheFarm) -> Response:
    """Every seat of a deployment, and every node with its reasons."""
    state = farm.state
    answer = explain_deployment(state, find_deployment(state, name), farm.now())
    return json_response(_deployment_view(answer))


def _replica(farm: Farm, name: str) -> Response:
    state = farm.state
    return json_response(_replica_view(explain_replica(state, find_replica(state, name), farm.now())))


def _replica_view(answer: ReplicaExplanation) -> dict[str, Any]:
    """Why a replica is where it is."""
    return {
        "replica": answer.replica,
        "agent": answer.deployment,
        "seat": answer.seat,
        "version": answer.version,
        "state": answer.state,
        "because": answer.because,
        "reason": answer.reason,
        "detail": answer.detail,
        "node": answer.node,
        "nodes": fits_view(answer.nodes),
    }


def _deployment_view(answer: DeploymentExplanation) -> dict[str, Any]:
    """Every seat of a deployment, and every node."""
    return {
        "agent": answer.deployment,
        "because": answer.because,
        "wanted": answer.replicas_wanted,
        "version": answer.version,
        "queued": answer.queued,
        "leased": answer.leased,
        "replicas": standings_view(answer.replicas),
        "nodes": fits_view(answer.nodes),
    }
