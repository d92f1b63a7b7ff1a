"""Tasks as HTTP callers write and read them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from agentfarm.limits import ATTEMPTS_MAX, DURATION_MAX_S, PRIORITY_MAX, PRIORITY_MIN, PRODUCT_NAME_CHARS_MAX
from controller.core.lives import TaskState
from controller.gateway.http.limits import (
    KEY_MAX_CHARS,
    LABEL_MAX_CHARS,
    LABELS_MAX,
    TASK_PRODUCTS_MAX,
)
from controller.gateway.http.models import EXAMPLE_TIME, Body, ProblemView, View

Key = Annotated[str, StringConstraints(min_length=1, max_length=KEY_MAX_CHARS)]
Label = Annotated[str, StringConstraints(max_length=LABEL_MAX_CHARS)]


class SubmitBody(Body):
    """A task to be done. Only `agent` must be given."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "market-brief", "input": {"product": "BTC-USD"}, "priority": 1}]}
    )

    agent: str = Field(min_length=1, max_length=KEY_MAX_CHARS, description="Its name, or a unique prefix of it.")
    input: Any = Field(default=None, description="Any JSON; the agent's own.")
    priority: int | None = Field(default=None, ge=PRIORITY_MIN, le=PRIORITY_MAX, description="Default: the agent's.")
    max_attempts: int | None = Field(default=None, ge=1, le=ATTEMPTS_MAX)
    queue_timeout_s: float | None = Field(default=None, gt=0, le=DURATION_MAX_S, description="Longest wait to begin.")
    run_timeout_s: float | None = Field(
        default=None, gt=0, le=DURATION_MAX_S, description="Longest run of one attempt."
    )
    thread_id: Key | None = Field(default=None, description="The thread whose checkpoints the run continues.")
    labels: dict[Label, Label] = Field(default_factory=dict, max_length=LABELS_MAX)
    products: list[Annotated[str, StringConstraints(min_length=1, max_length=PRODUCT_NAME_CHARS_MAX)]] = Field(
        default_factory=list, max_length=TASK_PRODUCTS_MAX,
        description="Market products it reads: a replica whose node holds all of them is preferred.",
    )  # fmt: skip


class BatchLine(SubmitBody):
    """One line of a batch submit."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "market-brief", "input": {}, "idempotency_key": "brief-1"}]}
    )

    idempotency_key: Key | None = None


class BatchAnswer(View):
    """One line of the answer to a batch submit: the new task's id, or why there is none."""

    index: int = Field(examples=[0])
    id: int | None = Field(default=None, examples=[1042])
    problem: ProblemView | None = None


class ErrorView(View):
    """Why a task or an attempt did not succeed."""

    type: str = Field(examples=["ValueError"])
    message: str = Field(examples=["no trades for XYZ-USD"])
    traceback: str = ""


class AttemptView(View):
    """One try at a task."""

    attempt: int = Field(examples=[1])
    outcome: str = Field(description="An outcome, or `leased` or `running`.", examples=["lost"])
    node: str | None = Field(default=None, examples=["node-2"])
    replica: int | None = Field(default=None, examples=[17])
    leased_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    ended_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    error: ErrorView | None = None


class TaskView(View):
    """A task as it stands."""

    id: int = Field(examples=[1042])
    agent: str = Field(examples=["market-brief"])
    state: TaskState = Field(examples=["succeeded"])
    is_final: bool = Field(description="Whether the state can never change again.", examples=[True])
    priority: int = Field(examples=[0])
    attempt: int = Field(description="Attempts begun.", examples=[1])
    submitted_at: datetime = Field(examples=[EXAMPLE_TIME])
    finished_at: datetime | None = Field(default=None, examples=[EXAMPLE_TIME])
    node: str | None = Field(default=None, examples=["node-2"])
    replica: int | None = Field(default=None, examples=[17])
    version: int | None = Field(default=None, description="The agent's version that ended it.", examples=[3])
    is_cancelling: bool = False
    input: Any = None
    output: Any = None
    error: ErrorView | None = None
    thread_id: str | None = None
    idempotency_key: str | None = None
    retry_of: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    products: list[str] = Field(default_factory=list, examples=[["BTC-USD"]])
    attempts: list[AttemptView] | None = Field(default=None, description="Every try, oldest first; in single views.")


class TaskPage(View):
    """Some tasks, newest first."""

    tasks: list[TaskView]
    next_after: int | None = Field(default=None, description="Give it as `after` for the next page; null at the end.")


class CancelAnswer(View):
    """What a cancel brought about: `cancelled`, or the state while the attempt is being stopped."""

    id: int = Field(examples=[1042])
    state: TaskState = Field(examples=["cancelled"])
