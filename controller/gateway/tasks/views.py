"""Tasks as callers read them: live ones from the state, ended ones from their last word.

These are dicts in the shape of TaskView, not models: inputs and outputs stay the JSON text they already are.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from controller.core.lives import FINAL_TASK_STATES, TaskState
from controller.core.model import Task, TaskOptions
from controller.core.transition import EndedAttempt, FinishedTask
from controller.gateway.http.answers import when

_NONE: Final = TaskOptions()


def task_view(item: Task | FinishedTask) -> dict[str, Any]:
    """A task as it stands."""
    return finished_view(item) if isinstance(item, FinishedTask) else live_view(item)


def summary_view(item: Task | FinishedTask) -> dict[str, Any]:
    """A task among others: without its input and output."""
    return task_view(item) | {"input": None, "output": None}


def live_view(task: Task) -> dict[str, Any]:
    """A task that has not ended, or has just ended: then its output is in `finished_view`."""
    options = task.options or _NONE
    return {
        "id": task.id,
        "agent": task.deployment,
        "state": task.state,
        "is_final": task.state in FINAL_TASK_STATES,
        "priority": task.priority,
        "attempt": task.attempt,
        "submitted_at": when(task.submitted_at),
        "finished_at": None,
        "node": task.node,
        "replica": task.replica,
        "version": None,
        "is_cancelling": task.is_cancelling,
        "input": fragment(task.input),
        "output": None,
        "error": None,
        "thread_id": options.thread_id,
        "idempotency_key": options.idempotency_key,
        "retry_of": options.retry_of,
        "labels": dict(options.labels),
        "products": list(options.products),
    }


def finished_view(finished: FinishedTask) -> dict[str, Any]:
    """A task's last word."""
    return live_view(finished.task) | {
        "state": finished.state,
        "is_final": True,
        "finished_at": when(finished.finished_at),
        "version": finished.version,
        "is_cancelling": False,
        "output": fragment(finished.output) if finished.state is TaskState.SUCCEEDED else None,
        "error": error_view(finished.error_type, finished.error_message, finished.error_traceback),
    }


def attempt_view(attempt: EndedAttempt) -> dict[str, Any]:
    """An attempt that has ended."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "node": attempt.node,
        "replica": attempt.replica,
        "leased_at": when(attempt.leased_at),
        "ended_at": when(attempt.ended_at),
        "error": error_view(attempt.error_type, attempt.error_message),
    }


def current_attempt_view(task: Task) -> dict[str, Any] | None:
    """The attempt a live task is in, if it is in one."""
    if task.token is None:
        return None
    return {
        "attempt": task.attempt,
        "outcome": task.state.value,
        "node": task.node,
        "replica": task.replica,
        "leased_at": when(task.leased_at),
        "ended_at": None,
        "error": None,
    }


def error_view(kind: str, message: str, traceback: str = "") -> dict[str, str] | None:
    """An error, if there is one."""
    return {"type": kind, "message": message, "traceback": traceback} if kind or message else None


def fragment(text: bytes | None) -> orjson.Fragment | None:
    """JSON text that goes out as it is."""
    return orjson.Fragment(text) if text else None
