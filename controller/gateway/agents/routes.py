"""Deployments over HTTP: deploy, scale, roll back, remove, and what each would do."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from agentfarm.agents.spec import AgentSpec
from agentfarm.errors import Conflict, InvalidRequest
from controller.core.commands import Deploy, DeployAnswer, Remove, Rollback, Scale
from controller.core.model import OPERATOR, DeploymentName
from controller.explain.deployments import plan_deploy, plan_replicas
from controller.gateway.agents.models import (
    DeployAnswerView,
    DeployBody,
    DeploymentList,
    DeploymentView,
    PlanView,
    RollbackBody,
    ScaleAnswerView,
    ScaleBody,
)
from controller.gateway.agents.plans import deploy_plan_view, scale_plan_view
from controller.gateway.agents.policies import policy_of
from controller.gateway.agents.views import deployment_view
from controller.gateway.http.answers import json_response
from controller.gateway.http.bodies import body_of, read_model
from controller.gateway.http.limits import ENGINE_DEADLINE_S
from controller.gateway.http.prefixes import find_deployment
from controller.gateway.scope import Farm
from controller.gateway.the_farm import TheFarm

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])

Plan = Annotated[bool, Query(description="Change nothing; answer with what would change.")]


@router.post("", response_model=DeployAnswerView | PlanView, openapi_extra=body_of(DeployBody), operation_id="deploy")
async def deploy(request: Request, farm: TheFarm, plan: Plan = False) -> Response:
    """Make a deployment, or roll a new version out. The answer comes before the rollout is done: watch `rollout`."""
    body = await read_model(request, DeployBody)
    spec = AgentSpec.from_canonical(orjson.dumps(body.spec))
    command = Deploy(
        name=DeploymentName(spec.name),
        digest=body.digest,
        spec_json=spec.canonical_json(),
        policy=policy_of(spec),
        replicas=body.replicas,
        spec_replicas=spec.replicas,
        if_generation=body.if_generation,
        actor=OPERATOR,
    )
    if plan:
        return json_response(deploy_plan_view(plan_deploy(farm.state, command)))
    if not await farm.history.has_bundle(body.digest):
        raise Conflict(
            f"The bundle {body.digest} is not here.",
            remedy=f"Upload it first: PUT /v1/bundles/{body.digest}.",
            digest=body.digest,
        )
    return await _deployed(farm, command)


@router.get("", response_model=DeploymentList, operation_id="list_deployments")
async def list_deployments(farm: TheFarm) -> Response:
    """Every deployment."""
    state = farm.state
    views = [deployment_view(state, state.deployments[name]) for name in sorted(state.deployments)]
    return json_response({"deployments": views})


@router.get("/{name}", response_model=DeploymentView, operation_id="show_deployment")
async def show(name: str, farm: TheFarm) -> Response:
    """One deployment with its replicas and versions."""
    state = farm.state
    return json_response(deployment_view(state, state.deployments[find_deployment(state, name)], with_parts=True))


@router.post(
    "/{name}/scale", response_model=ScaleAnswerView | PlanView, openapi_extra=body_of(ScaleBody),
    operation_id="scale_deployment",
)  # fmt: skip
async def scale(name: str, request: Request, farm: TheFarm, plan: Plan = False) -> Response:
    """Change how many replicas there should be."""
    body = await read_model(request, ScaleBody)
    state = farm.state
    found = find_deployment(state, name)
    if plan:
        deployment = state.deployments[found]
        policy = deployment.versions[deployment.version].policy
        return json_response(scale_plan_view(plan_replicas(state, found, policy, body.replicas)))
    command = Scale(found, body.replicas, body.if_generation, actor=OPERATOR)
    generation = await farm.engine.ask(command, deadline_s=ENGINE_DEADLINE_S)
    return json_response({"name": found, "replicas": body.replicas, "generation": generation})


@router.post(
    "/{name}/rollback", response_model=DeployAnswerView, operation_id="roll_back_deployment",
    openapi_extra=body_of(RollbackBody, is_required=False),
)  # fmt: skip
async def rollback(name: str, request: Request, farm: TheFarm) -> Response:
    """Roll an earlier version out again."""
    body = await read_model(request, RollbackBody, is_optional=True)
    return await _deployed(
        farm, Rollback(find_deployment(farm.state, name), body.to_version, body.if_generation, actor=OPERATOR)
    )


@router.delete("/{name}", status_code=204, operation_id="remove_deployment")
async def remove(name: str, farm: TheFarm) -> Response:
    """Take it away: what waits is cancelled, what runs may finish. Needs the whole name."""
    found = find_deployment(farm.state, name)
    if found != name:
        raise InvalidRequest(f"To remove {found}, write its whole name, not {name!r}.", remedy=f"Name it {found}.")
    await farm.engine.ask(Remove(found, actor=OPERATOR), deadline_s=ENGINE_DEADLINE_S)
    return Response(status_code=204)


async def _deployed(farm: Farm, command: Deploy | Rollback) -> Response:
    answer: DeployAnswer = await farm.engine.ask(command, deadline_s=ENGINE_DEADLINE_S)
    return json_response({"name": command.name} | dataclasses.asdict(answer))
