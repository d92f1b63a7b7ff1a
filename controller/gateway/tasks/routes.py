"""Tasks over HTTP: submit, look, wait, watch, cancel, retry."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import Header, Path, Query, Request
from starlette.responses import Response

from agentfarm.errors import Conflict, NotFound
from controller.core.commands import CancelTask, NewTask, SubmitTasks
from controller.core.lives import FINAL_TASK_STATES, TaskState
from controller.core.model import TaskId, TaskOptions
from controller.core.transition import FinishedTask
from controller.gateway.http import sse
from controller.gateway.http.access import BodySize, Call, Permission
from controller.gateway.http.answers import json_response
from controller.gateway.http.bodies import raw_body
from controller.gateway.http.limits import PAGE_DEFAULT, PAGE_MAX, WAIT_MAX_S
from controller.gateway.http.room import Caller, Room, TheFarm
from controller.gateway.prefixes import find_deployment
from controller.gateway.scope import Farm
from controller.gateway.tasks.batch import submit_batch
from controller.gateway.tasks.express import SUBMIT
from controller.gateway.tasks.models import BatchAnswer, BatchLine, CancelAnswer, SubmitBody, TaskPage, TaskView
from controller.gateway.tasks.submission import answer_of, answer_submitted, submit_one
from controller.gateway.tasks.views import attempt_view, current_attempt_view, summary_view, task_view
from controller.gateway.tasks.wait import look_at, no_task, task_events, wait_while_wanted

room = Room("tasks")

Id = Annotated[int, Path(alias="id", ge=1, le=2**53, examples=[1042])]
Wait = Annotated[float, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for the result.")]


@room.route(
    SUBMIT,
    response_model=TaskView,
    status_code=201,
    openapi_extra=raw_body(SubmitBody),
    operation_id="submit_task",
    responses={200: {"model": TaskView, "description": "This idempotency key was known: the earlier task."}},
)
async def submit(
    request: Request,
    farm: TheFarm,
    caller: Caller,
    wait: Wait = 0.0,
    stream: Annotated[bool, Query(description="Answer with the task's events, as /events does.")] = False,
    idempotency_key: Annotated[str | None, Header(description="Equal keys make one task.")] = None,
) -> Response:
    """Submit one task. It is durable when this answers; with `wait` the answer is its result, if that comes in time."""
    if stream:
        sse.check_room()
    done = await submit_one(farm, await request.body(), idempotency_key, caller.name)
    if stream:
        return sse.event_stream(task_events(farm, done.task), done.status, done.headers)
    return await answer_submitted(farm, done, wait, request.receive)


@room.route(
    Call("POST", "/v1/tasks/batch", Permission.TASKS_SUBMIT, BodySize.LINES),
    response_model=BatchAnswer,
    openapi_extra=raw_body(BatchLine, media_type="application/x-ndjson"),
    operation_id="submit_batch",
)
async def batch(request: Request, farm: TheFarm, caller: Caller) -> Response:
    """Submit many tasks, one JSON object a line; the answer has one line for each, in order."""
    return Response(await submit_batch(farm, request.stream(), caller.name), media_type="application/x-ndjson")


@room.route(Call("GET", "/v1/tasks", Permission.TASKS_READ), response_model=TaskPage, operation_id="list_tasks")
async def list_tasks(
    farm: TheFarm,
    state: Annotated[list[TaskState] | None, Query(description="Only these; may be repeated.")] = None,
    agent: Annotated[str | None, Query(description="Only of this agent; a unique prefix will do.")] = None,
    after: Annotated[int | None, Query(ge=1, le=2**53, description="`next_after` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT,
) -> Response:
    """Tasks, newest first, without their inputs and outputs."""
    name = _agent_filter(farm, agent) if agent is not None else None
    views = [summary_view(item) for item in await farm.history.tasks(state or (), name, after, limit)]
    more = views[-1]["id"] if len(views) == limit else None
    return json_response({"tasks": views, "next_after": more})


@room.route(Call("GET", "/v1/tasks/{id}", Permission.TASKS_READ), response_model=TaskView, operation_id="show_task")
async def show(task_id: Id, farm: TheFarm) -> Response:
    """One task with all its attempts."""
    task = TaskId(task_id)
    stored = await farm.history.task(task)
    live = farm.state.tasks.get(task)
    if stored is None and live is None:
        raise no_task(task)
    if isinstance(stored, FinishedTask):
        live = None
    view = task_view(stored if stored is not None and live is None else await look_at(farm, task))
    if stored is not None and view["input"] is None:
        view["input"] = task_view(stored)["input"]
    attempts = [attempt_view(attempt) for attempt in await farm.history.attempts(task)]
    current = current_attempt_view(live) if live is not None else None
    if current is not None and all(each["attempt"] != current["attempt"] for each in attempts):
        attempts.append(current)  # it has not ended meanwhile
    return json_response(view | {"attempts": attempts})


@room.route(
    Call("GET", "/v1/tasks/{id}/wait", Permission.TASKS_READ), response_model=TaskView, operation_id="wait_for_task"
)
async def wait_task(task_id: Id, request: Request, farm: TheFarm, timeout: Wait = 30.0) -> Response:
    """The task once it has ended, or as it stands when the time is over (`is_final` tells)."""
    return json_response(task_view(await wait_while_wanted(farm, TaskId(task_id), timeout, request.receive)))


@room.route(
    Call("GET", "/v1/tasks/{id}/events", Permission.TASKS_READ),
    operation_id="watch_task",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def watch(
    task_id: Id,
    farm: TheFarm,
    last_event_id: Annotated[str | None, Header(description="Resume after this piece of output.")] = None,
) -> Response:
    """Server-sent events: `state` when it moves, `output` for each piece, `end` with the task's view."""
    sse.check_room()
    await look_at(farm, TaskId(task_id))
    return sse.event_stream(task_events(farm, TaskId(task_id), sse.event_id(last_event_id)))


@room.route(
    Call("POST", "/v1/tasks/{id}/cancel", Permission.TASKS_SUBMIT),
    response_model=CancelAnswer,
    operation_id="cancel_task",
)
async def cancel(task_id: Id, farm: TheFarm, caller: Caller) -> Response:
    """Cancel: a queued task ends at once, a running one when its node says that nothing works on it any more."""
    try:
        state = await farm.ask(CancelTask(TaskId(task_id), actor=caller.name))
    except NotFound:
        state = (await look_at(farm, TaskId(task_id))).state
        if state is not TaskState.CANCELLED:
            raise _has_ended(task_id, state) from None
    return json_response({"id": task_id, "state": state})


@room.route(
    Call("POST", "/v1/tasks/{id}/retry", Permission.TASKS_SUBMIT),
    response_model=TaskView,
    status_code=201,
    operation_id="retry_task",
)
async def retry(task_id: Id, farm: TheFarm, caller: Caller) -> Response:
    """A new task with the input and options of one that has ended; its `retry_of` names the old one."""
    old = await look_at(farm, TaskId(task_id))
    if old.state not in FINAL_TASK_STATES:
        raise Conflict(f"Task {task_id} is {old.state}; only a task that has ended can be retried.",
                       remedy="Wait for it, or cancel it first.", state=str(old.state))  # fmt: skip
    task = as_retry(await farm.history.submission(TaskId(task_id)), task_id)
    answers = await farm.ask(SubmitTasks((task,), actor=caller.name))
    new_id = answer_of(answers[0])
    return json_response(task_view(await look_at(farm, TaskId(new_id))), 201, {"Location": f"/v1/tasks/{new_id}"})


def as_retry(old: NewTask, task_id: int) -> NewTask:
    """The same work as a new task: the old one's key is spent, everything else holds."""
    options = replace(old.options or TaskOptions(), idempotency_key=None, retry_of=task_id)
    return replace(old, options=options)


def _agent_filter(farm: Farm, agent: str) -> str:
    """The agent meant; one that was removed may still be asked for by its whole name."""
    try:
        return find_deployment(farm.state, agent)
    except NotFound:
        return agent


def _has_ended(task_id: int, state: TaskState) -> Conflict:
    return Conflict(f"Task {task_id} is {state} already.", remedy="'farmctl task show' tells how it ended.",
                    state=str(state))  # fmt: skip
