"""One task over HTTP: read, submitted, and, where the caller wants it, waited for.

Two doors lead here: the route with all its options (`routes/tasks.py`), and the express way of the plain call
(`express.py`). What a submit means is said once, here.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive

from agentfarm.errors import Conflict
from controller.core.commands import KnownTask, NewTask, SubmitTasks
from controller.core.model import OPERATOR, TaskId
from controller.gateway.history import History
from controller.gateway.http.answers import json_response
from controller.gateway.http.json_input import read_json
from controller.gateway.http.limits import ENGINE_DEADLINE_S
from controller.gateway.scope import Farm
from controller.gateway.tasks.submission import SubmissionReader, answer_of, check_key
from controller.gateway.tasks.views import task_view
from controller.gateway.tasks.wait import look_at, wait_while_wanted


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that is durable. is_new: False when its idempotency key was known."""

    task: TaskId
    is_new: bool

    @property
    def status(self) -> int:
        """Of the HTTP answer."""
        return 201 if self.is_new else 200

    @property
    def headers(self) -> dict[str, str]:
        """Of the HTTP answer."""
        return {"Location": f"/v1/tasks/{self.task}"}


async def submit_one(farm: Farm, body: bytes, key: str | None) -> Submitted:
    """Read `body` and make the task durable. key: the Idempotency-Key header.

    Raises InvalidRequest, NotFound or TooLarge for the body, Conflict for a key used for other work, Unavailable.
    """
    state, key = farm.state, check_key(key)
    new = SubmissionReader(state, farm.settings.payload_max_bytes).read_body(body, key)
    answers = await farm.engine.ask(SubmitTasks((new,), actor=OPERATOR), deadline_s=ENGINE_DEADLINE_S)
    task = answer_of(answers[0])
    if isinstance(task, KnownTask):
        await refuse_other_work(farm.history, task, new)
    return Submitted(TaskId(task), is_new=not isinstance(task, KnownTask))


async def answer_submitted(farm: Farm, done: Submitted, wait_s: float, receive: Receive) -> Response:
    """The task as it stands, or as it ended within `wait_s`; no longer than the caller stays."""
    item = await (wait_while_wanted(farm, done.task, wait_s, receive) if wait_s else look_at(farm, done.task))
    return json_response(task_view(item), done.status, done.headers)


async def refuse_other_work(history: History, task: KnownTask, new: NewTask) -> None:
    """Raises Conflict when the task that was submitted under this key before has another agent or input."""
    old = await history.submission(TaskId(task))
    if old.deployment != new.deployment or read_json(old.input) != read_json(new.input):
        key = new.options.idempotency_key if new.options is not None else None
        raise Conflict(
            f"The idempotency key {key!r} was used before, for task {task} with another agent or input.",
            remedy="Use a new key for a new task.",
            task=int(task),
        )
