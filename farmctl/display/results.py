"""Results of tasks as they come and when they have come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agentfarm.errors import Unavailable
from farmctl.api.client import NoFarm, ServerEvent, problem_of
from farmctl.api.session import Session
from farmctl.exit_codes import Exit, joined

REFUSAL: Final = "Reject"
"""The agent refuses the task. The place in its code does not help."""
BREAKS_MAX: Final = 30
"""In a row, each followed by a longer wait."""


def submit_and_stream(session: Session, body: Mapping[str, Any], key: str) -> Exit:
    """Submit a task and print its output until it has ended. A broken stream continues where it broke."""
    task_id, last_id, breaks = None, "", 0
    while True:
        try:
            for event in _events(session, body, key, task_id, last_id):
                last_id, breaks = event.id or last_id, 0
                data = json.loads(event.data)
                if event.event == "problem":
                    raise problem_of(data["status"], data)
                if event.event == "end":
                    return report(session, [data])
                if event.event == "output":
                    _say_piece(session, data)
                elif event.event == "state":
                    task_id = _say_state(session, data, is_new=task_id is None)
        except NoFarm:
            if task_id is None:
                raise
            breaks += 1
        except Unavailable:
            breaks += 1
            if breaks > BREAKS_MAX:
                raise
        session.sleep(min(0.2 * (breaks + 1), 2.0))


def report(session: Session, tasks: list[Mapping[str, Any]]) -> Exit:
    """Print results; exit 0 if all succeeded, 4 if some did."""

    def say() -> None:
        for task in tasks:
            if len(tasks) > 1 or task["state"] != "succeeded":
                session.out.say(f"task {task['id']}: {task['state']}" + ("" if task["is_final"] else ", not ended yet"))
            if task["state"] == "succeeded":
                session.out.line(json.dumps(task["output"], indent=2, ensure_ascii=False))
            elif task["error"]:
                say_error(session, task["error"])

    session.out.result(tasks[0] if len(tasks) == 1 else tasks, say)
    return joined([Exit.DONE if task["state"] == "succeeded" else Exit.ERROR for task in tasks])


def say_error(session: Session, error: Mapping[str, Any]) -> None:
    """Why a task did not succeed, with the agent's own traceback."""
    session.out.say(f"{error['type']}: {error['message']}", "red")
    if error["traceback"] and error["type"] != REFUSAL:
        session.out.line(error["traceback"].rstrip())


def _events(
    session: Session, body: Mapping[str, Any], key: str, task_id: int | None, last_id: str
) -> Iterator[ServerEvent]:
    if task_id is None:
        return session.farm.post_events("/v1/tasks", body, {"stream": "1"}, key)
    return session.farm.events(f"/v1/tasks/{task_id}/events", last_id=last_id)


def _say_state(session: Session, data: Mapping[str, Any], *, is_new: bool) -> int:
    if is_new:
        session.again = f"farmctl task wait {data['id']}"
        session.out.event("task.submitted", f"task {data['id']}", id=data["id"])
    words = f"{data['state']}, attempt {data['attempt']}" if data["attempt"] > 1 else ""
    session.out.event(f"task.{data['state']}", words, **data)
    return int(data["id"])


def _say_piece(session: Session, data: Any) -> None:
    if not session.out.is_for_people:
        session.out.event("output", data=data)
    else:
        session.out.line(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False))
