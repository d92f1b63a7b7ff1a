"""Why a task waits, where it runs, or how it ended, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from starlette.responses import Response

from agentfarm.errors import InvalidRequest, NotFound
from controller.core.model import Task, TaskId
from controller.core.transition import FinishedTask
from controller.explain.tasks import TaskExplanation, explain_task
from controller.gateway.agents.models import ExplainView
from controller.gateway.agents.views import fits_view, standings_view
from controller.gateway.http.access import Call, Permission
from controller.gateway.http.answers import json_response
from controller.gateway.http.room import Room, TheFarm
from controller.gateway.prefixes import is_number
from controller.gateway.tasks.wait import look_at

room = Room("explain")


@room.route(
    Call("GET", "/v1/explain/task/{id}", Permission.TASKS_READ), response_model=ExplainView, operation_id="explain_task"
)
async def explain(task_id: Annotated[str, Path(alias="id", examples=["1042"])], farm: TheFarm) -> Response:
    """Why a task waits, where it runs, or how it ended."""
    if not is_number(task_id):
        raise InvalidRequest(f"{task_id!r} is not a task's id.", remedy="Ids are numbers: farmctl task list.")
    task = TaskId(int(task_id))
    try:
        return json_response(_explanation_view(explain_task(farm.state, task, farm.now())))
    except NotFound:
        return json_response(_ended_view(await look_at(farm, task)))


def _explanation_view(answer: TaskExplanation) -> dict[str, Any]:
    """Why a live task stands where it stands."""
    return {
        "task": answer.task,
        "agent": answer.deployment,
        "state": answer.state,
        "because": answer.because,
        "ahead": answer.ahead,
        "node": answer.node,
        "attempt": answer.attempt,
        "failures": answer.failures,
        "replicas": standings_view(answer.replicas),
        "nodes": fits_view(answer.nodes),
    }


def _ended_view(item: Task | FinishedTask) -> dict[str, Any]:
    """How a task ended, in the same shape."""
    if isinstance(item, FinishedTask):
        task, reason = item.task, _error_words(item)
    else:
        task, reason = item, ""
    return {
        "task": task.id,
        "agent": task.deployment,
        "state": item.state,
        "because": f"it has ended: {item.state}{reason}",
        "ahead": 0,
        "node": task.node,
        "attempt": task.attempt,
        "replicas": [],
        "nodes": [],
    }


def _error_words(finished: FinishedTask) -> str:
    has_error = finished.error_type or finished.error_message
    return f" ({finished.error_type}: {finished.error_message})" if has_error else ""
