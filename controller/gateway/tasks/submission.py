"""One task over HTTP: read, made durable, and, where the caller wants it, waited for. What a submit means is said here.

Two doors lead here: the route with all its options (`routes.py`), and the express way of the plain call (`express.py`).
A batch reads its lines here too. The common form of a task (agent, input, key, priority) is read without pydantic;
anything unusual goes through the model, which says what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.types import Receive

from agentfarm.errors import Conflict, FarmError, InvalidRequest, NotFound
from agentfarm.limits import PRIORITY_MAX, PRIORITY_MIN
from controller.core.commands import KnownTask, NewTask, SubmitTasks
from controller.core.model import Actor, DeploymentName, FarmState, TaskId, TaskOptions
from controller.gateway.history import History
from controller.gateway.http.answers import json_response
from controller.gateway.http.json_input import read_json, write_json
from controller.gateway.http.limits import KEY_MAX_CHARS, UNKNOWN_AGENTS_MAX
from controller.gateway.http.problems import TooLarge
from controller.gateway.prefixes import find_deployment
from controller.gateway.scope import Farm
from controller.gateway.tasks.views import task_view
from controller.gateway.tasks.wait import look_at, wait_while_wanted

if TYPE_CHECKING:
    from controller.gateway.tasks.models import SubmitBody

_COMMON_BODY_KEYS: Final = frozenset({"agent", "input", "priority"})
_COMMON_KEYS: Final = _COMMON_BODY_KEYS | {"idempotency_key"}


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


async def submit_one(farm: Farm, body: bytes, key: str | None, actor: Actor) -> Submitted:
    """Read `body` and make the task durable. key: the Idempotency-Key header.

    Raises InvalidRequest, NotFound or TooLarge for the body, Conflict for a key used for other work, Unavailable.
    """
    state, key = farm.state, check_key(key)
    new = SubmissionReader(state, farm.settings.payload_max_bytes).read_body(body, key)
    answers = await farm.ask(SubmitTasks((new,), actor=actor))
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


class SubmissionReader:
    """Reads tasks for one request; agent names are looked up once each, also those that there are not."""

    def __init__(self, state: FarmState, payload_max_bytes: int) -> None:
        self._state = state
        self._payload_max_bytes = payload_max_bytes
        self._deployments: dict[str, DeploymentName] = {}
        self._unknown: dict[str, FarmError] = {}

    def read_line(self, line: bytes) -> NewTask:
        """One line of a batch. Raises InvalidRequest, NotFound or TooLarge."""
        value = read_json(line, "The line")
        if type(value) is dict and value.keys() <= _COMMON_KEYS and "agent" in value:
            task = self._read_common(value, value.get("idempotency_key"))
            if task is not None:
                return task
        return self._read_model(value, None, is_line=True)

    def read_body(self, text: bytes, idempotency_key: str | None) -> NewTask:
        """The body of a single submit; its key comes in a header."""
        value = read_json(text)
        if type(value) is dict and value.keys() <= _COMMON_BODY_KEYS and "agent" in value:
            task = self._read_common(value, idempotency_key)
            if task is not None:
                return task
        return self._read_model(value, idempotency_key)

    def _read_common(self, value: dict[str, Any], key: Any) -> NewTask | None:
        agent, priority = value["agent"], value.get("priority")
        if type(agent) is not str or not agent:
            return None
        if key is not None and (type(key) is not str or not 0 < len(key) <= KEY_MAX_CHARS):
            return None
        if priority is not None and (type(priority) is not int or not PRIORITY_MIN <= priority <= PRIORITY_MAX):
            return None
        options = None if key is None else TaskOptions(idempotency_key=key)
        return NewTask(self._deployment(agent), self._payload(value.get("input")), priority, options)

    def _read_model(self, value: Any, idempotency_key: str | None, *, is_line: bool = False) -> NewTask:
        from pydantic import ValidationError  # noqa: PLC0415 - the common form does not wait for it after a start

        from controller.gateway.http.bodies import invalid_of  # noqa: PLC0415
        from controller.gateway.tasks.models import BatchLine, SubmitBody  # noqa: PLC0415

        model = BatchLine if is_line else SubmitBody
        try:
            body = model.model_validate(value)
        except ValidationError as error:
            raise invalid_of(error, model) from None
        if isinstance(body, BatchLine):
            idempotency_key = body.idempotency_key
        return NewTask(
            self._deployment(body.agent), self._payload(body.input), body.priority, _options(body, idempotency_key)
        )

    def _deployment(self, agent: str) -> DeploymentName:
        name = self._deployments.get(agent)
        if name is None:
            name = self._deployments[agent] = self._look_up(agent)
        return name

    def _look_up(self, agent: str) -> DeploymentName:
        if (refusal := self._unknown.get(agent)) is not None:
            raise refusal.with_traceback(None)  # else it would grow by each line that raises it
        has_many = len(self._unknown) >= UNKNOWN_AGENTS_MAX
        if has_many and not any(name.startswith(agent) for name in self._state.deployments):
            raise NotFound(f"There is no agent {agent[:KEY_MAX_CHARS]!r}.", remedy="'farmctl status' lists them.")
        try:
            return find_deployment(self._state, agent)
        except FarmError as problem:
            if not has_many:
                self._unknown[agent] = problem
            raise

    def _payload(self, value: Any) -> bytes:
        payload = write_json(value)
        if len(payload) > self._payload_max_bytes:
            raise TooLarge(
                f"The input has {len(payload):,} bytes; {self._payload_max_bytes:,} are allowed.",
                remedy="Keep the data elsewhere and send where it is, or raise payload_max_bytes.",
                limit="PAYLOAD_MAX_BYTES",
                maximum=self._payload_max_bytes,
            )
        return payload


def check_key(key: str | None) -> str | None:
    """The Idempotency-Key header, if it is one."""
    if key is None:
        return None
    if not 0 < len(key) <= KEY_MAX_CHARS or "\0" in key or not key.isprintable():
        raise InvalidRequest(
            f"An idempotency key has 1 to {KEY_MAX_CHARS} printable characters.", limit="KEY_MAX_CHARS"
        )
    return key


def answer_of(answer: object) -> int:
    """A task id out of the engine's answer for one task; raises the FarmError it may be."""
    if isinstance(answer, FarmError):
        raise answer
    assert isinstance(answer, int)
    return answer


def _options(body: SubmitBody, idempotency_key: str | None) -> TaskOptions | None:
    options = TaskOptions(
        max_attempts=body.max_attempts,
        queue_timeout_s=body.queue_timeout_s,
        run_timeout_s=body.run_timeout_s,
        thread_id=body.thread_id,
        idempotency_key=idempotency_key,
        labels=tuple(sorted(body.labels.items())),
        products=tuple(dict.fromkeys(body.products)),
    )
    return None if options == _NO_OPTIONS else options


_NO_OPTIONS: Final = TaskOptions()
