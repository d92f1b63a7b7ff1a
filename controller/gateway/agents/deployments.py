"""Deployments over HTTP: deploy, scale, roll back, remove, and what each would do."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import orjson
from fastapi import Query
from starlette.responses import Response

from agentfarm.agents.spec import AgentSpec
from agentfarm.errors import Conflict, InvalidRequest
from controller.core.commands import Deploy, DeployAnswer, Remove, Rollback, Scale
from controller.core.model import DeploymentName
from controller.core.policy import Policy, Resources
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
from controller.gateway.agents.views import deploy_plan_view, deployment_view, scale_plan_view
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import json_response
from controller.gateway.http.room import Caller, Room, TheFarm, body_of
from controller.gateway.prefixes import find_deployment
from controller.gateway.scope import Farm

room = Room("deployments")

Plan = Annotated[bool, Query(description="Change nothing; answer with what would change.")]


@room.route(
    Call("POST", "/v1/deployments", Permission.AGENTS_DEPLOY),
    response_model=DeployAnswerView | PlanView,
    operation_id="deploy",
)
async def deploy(
    body: Annotated[DeployBody, body_of(DeployBody)], farm: TheFarm, caller: Caller, plan: Plan = False
) -> Response:
    """Make a deployment, or roll a new version out. The answer comes before the rollout is done: watch `rollout`."""
    spec = AgentSpec.from_canonical(orjson.dumps(body.spec))
    command = Deploy(
        name=DeploymentName(spec.name),
        digest=body.digest,
        spec_json=spec.canonical_json(),
        policy=policy_of(spec),
        replicas=body.replicas,
        spec_replicas=spec.replicas,
        if_generation=body.if_generation,
        actor=caller.name,
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


@room.route(
    Call("GET", "/v1/deployments", Permission.FARM_READ), response_model=DeploymentList, operation_id="list_deployments"
)
async def list_deployments(farm: TheFarm) -> Response:
    """Every deployment."""
    state = farm.state
    views = [deployment_view(state, state.deployments[name]) for name in sorted(state.deployments)]
    return json_response({"deployments": views})


@room.route(
    Call("GET", "/v1/deployments/{name}", Permission.FARM_READ),
    response_model=DeploymentView,
    operation_id="show_deployment",
)
async def show(name: str, farm: TheFarm) -> Response:
    """One deployment with its replicas and versions."""
    state = farm.state
    return json_response(deployment_view(state, state.deployments[find_deployment(state, name)], with_parts=True))


@room.route(
    Call("POST", "/v1/deployments/{name}/scale", Permission.AGENTS_DEPLOY),
    response_model=ScaleAnswerView | PlanView,
    operation_id="scale_deployment",
)
async def scale(
    name: str, body: Annotated[ScaleBody, body_of(ScaleBody)], farm: TheFarm, caller: Caller, plan: Plan = False
) -> Response:
    """Change how many replicas there should be."""
    state = farm.state
    deployed = find_deployment(state, name)
    if plan:
        deployment = state.deployments[deployed]
        policy = deployment.versions[deployment.version].policy
        return json_response(scale_plan_view(plan_replicas(state, deployed, policy, body.replicas)))
    command = Scale(deployed, body.replicas, body.if_generation, actor=caller.name)
    generation = await farm.ask(command)
    return json_response({"name": deployed, "replicas": body.replicas, "generation": generation})


@room.route(
    Call("POST", "/v1/deployments/{name}/rollback", Permission.AGENTS_DEPLOY),
    response_model=DeployAnswerView,
    operation_id="roll_back_deployment",
)
async def rollback(
    name: str, body: Annotated[RollbackBody, body_of(RollbackBody, is_optional=True)], farm: TheFarm, caller: Caller
) -> Response:
    """Roll an earlier version out again."""
    return await _deployed(
        farm, Rollback(find_deployment(farm.state, name), body.to_version, body.if_generation, actor=caller.name)
    )


@room.route(
    Call("DELETE", "/v1/deployments/{name}", Permission.AGENTS_DEPLOY),
    status_code=204,
    operation_id="remove_deployment",
)
async def remove(name: str, farm: TheFarm, caller: Caller) -> Response:
    """Take it away: what waits is cancelled, what runs may finish. Needs the whole name."""
    deployed = find_deployment(farm.state, name)
    if deployed != name:
        raise InvalidRequest(
            f"To remove {deployed}, write its whole name, not {name!r}.", remedy=f"Name it {deployed}."
        )
    await farm.ask(Remove(deployed, actor=caller.name))
    return Response(status_code=204)


def policy_of(spec: AgentSpec) -> Policy:
    """The part of a spec on which the core decides."""
    return Policy(
        resources=Resources(spec.resources.cpu_millicores, spec.resources.memory_mib, spec.resources.gpus),
        concurrency=spec.concurrency,
        priority=spec.priority,
        max_attempts=spec.retries.max_attempts,
        backoff_s=spec.retries.backoff_s,
        backoff_max_s=spec.retries.backoff_max_s,
        queue_timeout_s=spec.timeouts.queue_s,
        run_timeout_s=spec.timeouts.run_s,
        exclusive=spec.exclusive,
        strategy=spec.placement.strategy,
        constraints=tuple(sorted(spec.placement.labels.items())),
        capabilities=spec.placement.capabilities,
        products=spec.placement.products,
        healthy_deadline_s=spec.timeouts.healthy_s,
    )


async def _deployed(farm: Farm, command: Deploy | Rollback) -> Response:
    answer: DeployAnswer = await farm.ask(command)
    return json_response({"name": command.name} | dataclasses.asdict(answer))
