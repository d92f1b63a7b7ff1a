"""Why things are as they are: every node with every reason."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from agentfarm.errors import InvalidRequest, NotFound
from controller.core.model import TaskId
from controller.explain.products import explain_product
from controller.explain.reasons import explain_deployment, explain_replica, explain_task
from controller.gateway.farm.explain_models import ExplainView
from controller.gateway.http.answers import json_response
from controller.gateway.http.prefixes import find_deployment, find_product, find_replica, is_number
from controller.gateway.market.models import ExplainProductView
from controller.gateway.scope import Farm
from controller.gateway.tasks.wait import look_at
from controller.gateway.the_farm import TheFarm

router = APIRouter(prefix="/v1/explain", tags=["explain"])


@router.get("/task/{id}", response_model=ExplainView, operation_id="explain_task")
async def task(task_id: Annotated[str, Path(alias="id", examples=["1042"])], farm: TheFarm) -> Response:
    """Why a task waits, where it runs, or how it ended."""
    if not is_number(task_id):
        raise InvalidRequest(f"{task_id!r} is not a task's id.", remedy="Ids are numbers: farmctl task list.")
    try:
        return json_response(explain_task(farm.state, TaskId(int(task_id)), farm.now()))
    except NotFound:
        return json_response(await _ended(farm, int(task_id)))


@router.get("/replica/{deployment}/{seat}", include_in_schema=False)
async def replica_by_seat(deployment: str, seat: str, farm: TheFarm) -> Response:
    return _replica(farm, f"{deployment}/{seat}")


@router.get("/replica/{id}", response_model=ExplainView, operation_id="explain_replica")
async def replica(replica_id: Annotated[str, Path(alias="id", examples=["17"])], farm: TheFarm) -> Response:
    """Why a replica is where it is, or nowhere. By id or as deployment/seat."""
    return _replica(farm, replica_id)


@router.get("/deployment/{id}", response_model=ExplainView, operation_id="explain_deployment")
async def deployment(name: Annotated[str, Path(alias="id", examples=["market-brief"])], farm: TheFarm) -> Response:
    """Every seat of a deployment, and every node with its reasons."""
    state = farm.state
    return json_response(explain_deployment(state, find_deployment(state, name), farm.now()))


@router.get("/product/{id:path}", response_model=ExplainProductView, operation_id="explain_product")
async def product(name: Annotated[str, Path(alias="id", examples=["BTC-USD"])], farm: TheFarm) -> Response:
    """Why a product is fed where it is: its copies, and every node with its reasons."""
    state = farm.state
    return json_response(explain_product(state, find_product(state, name)))


def _replica(farm: Farm, given: str) -> Response:
    state = farm.state
    return json_response(explain_replica(state, find_replica(state, given), farm.now()))


async def _ended(farm: Farm, task_id: int) -> dict[str, Any]:
    """The explanation of a task that has ended: its last word."""
    view = await look_at(farm, TaskId(task_id))
    error = view["error"]
    because = f"it has ended: {view['state']}" + (f" ({error['type']}: {error['message']})" if error else "")
    return {
        "task": task_id,
        "agent": view["agent"],
        "state": view["state"],
        "because": because,
        "ahead": 0,
        "node": view["node"],
        "attempt": view["attempt"],
        "replicas": [],
        "nodes": [],
    }
