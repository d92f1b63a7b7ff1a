"""`farmctl task …`: submit, list, show, wait, cancel, retry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from agentfarm.errors import InvalidRequest, Unavailable
from agentfarm.limits import PRIORITY_MAX, PRIORITY_MIN
from farmctl import completion
from farmctl.api.session import Session
from farmctl.batches import submit_file
from farmctl.display.results import report, say_error, submit_and_stream
from farmctl.exit_codes import Exit
from farmctl.inputs import task_input
from farmctl.verb import duration, verb

app = typer.Typer(help="Submit tasks and look after them.", no_args_is_help=True)

WAIT_STEP_S: Final = 30.0
"""One request's wait."""
LONGEST_S: Final = 365 * 86_400.0

Agent = Annotated[str, typer.Argument(help="The agent, or a unique prefix.", autocompletion=completion.agents)]
Ids = Annotated[list[int], typer.Argument(metavar="ID…", help="Ids of tasks.", autocompletion=completion.tasks, min=1)]
Id = Annotated[int, typer.Argument(metavar="ID", help="The task's id.", autocompletion=completion.tasks, min=1)]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="How long to wait, as 90s or 5m.")]


@verb(app, "submit", "farmctl task submit market-brief product=BTC-USD --wait", is_long=True)
def submit(
    session: Session,
    agent: Annotated[str | None, typer.Argument(help="The agent.", autocompletion=completion.agents)] = None,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT|-|@FILE] [KEY=VALUE …]", help="The input: JSON or text.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Wait for the result and print it.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print pieces of output as they come.")] = False,
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="FILE", help="NDJSON, one task a line; - reads stdin.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=PRIORITY_MIN, max=PRIORITY_MAX, help="Default: the agent's.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: equal keys make one task.")] = None,
    thread: Annotated[str | None, typer.Option(help="The thread whose checkpoints it continues.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    product: Annotated[
        list[str] | None, typer.Option(help="Run where this product is fed, if a replica there is free; repeatable.")
    ] = None,
    timeout: Timeout = None,
) -> Exit:
    """Submit a task; prints its id, or with --wait its result.

    INPUT is JSON, or plain text; - reads it from stdin, @FILE from a file. KEY=VALUE pairs make an object.
    """
    if batch is not None:
        return submit_file(session, batch, agent)
    if agent is None:
        raise InvalidRequest("No agent was named.", remedy="farmctl task submit AGENT [INPUT]")
    body: dict[str, Any] = {"agent": agent, "input": task_input(words or []), "labels": _labels(label or [])}
    options = (("priority", priority), ("thread_id", thread), ("products", product))
    body |= {name: value for name, value in options if value is not None}
    limit = duration(timeout) or LONGEST_S
    key = key or str(uuid.uuid4())
    if stream:
        return submit_and_stream(session, body, key)
    first_wait = min(WAIT_STEP_S, limit) if wait else None
    task = session.farm.post("/v1/tasks", body, {"wait": first_wait}, key=key, timeout_s=WAIT_STEP_S + 15)
    session.again = f"farmctl task wait {task['id']}"
    session.out.event("task.submitted", id=task["id"])
    if wait:
        return report(session, [_wait_one(session, task, limit)])
    session.out.result(task, lambda: session.out.say(f"task {task['id']}"))
    return Exit.DONE


@verb(app, "list", "farmctl task list --state dead --agent market-brief")
def list_tasks(
    session: Session,
    state: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only of this agent.", autocompletion=completion.agents)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 20,
    after: Annotated[int | None, typer.Option(help="Only older ones than this id.")] = None,
) -> None:
    """List tasks, newest first."""
    page = session.farm.get("/v1/tasks", {"state": state, "agent": agent, "limit": limit, "after": after})

    def say() -> None:
        from farmctl.display.tables import tasks_table  # noqa: PLC0415 - rich, for people only

        if not page["tasks"]:
            session.out.say("No tasks.")
            return
        session.out.say(tasks_table(page["tasks"]))
        if page["next_after"]:
            session.out.say(f"Older ones: --after {page['next_after']}", "dim")

    session.out.result(page, say)


@verb(app, "show", "farmctl task show 1042")
def show(session: Session, task_id: Id) -> None:
    """Show one task: input, result, error, every attempt."""
    task = session.farm.get(f"/v1/tasks/{task_id}")
    session.out.result(task, lambda: _say_task(session, task))


@verb(app, "wait", "farmctl task wait 1042 1043 --timeout 5m", is_long=True)
def wait_for(session: Session, ids: Ids, timeout: Timeout = None) -> Exit:
    """Wait until tasks have ended; exit 0 if all succeeded."""
    session.again = f"farmctl task wait {' '.join(map(str, ids))}"
    limit = duration(timeout) or LONGEST_S
    until = session.mono() + limit
    tasks = []
    for task_id in ids:
        task = session.farm.get(f"/v1/tasks/{task_id}")
        tasks.append(_wait_one(session, task, max(0.0, until - session.mono())))
    return report(session, tasks)


@verb(app, "cancel", "farmctl task cancel 1042")
def cancel(session: Session, ids: Ids) -> None:
    """Cancel tasks. A running one ends when its node says that nothing works on it any more."""
    answers = [session.farm.post(f"/v1/tasks/{task_id}/cancel") for task_id in ids]

    def say() -> None:
        for answer in answers:
            is_over = answer["state"] == "cancelled"
            session.out.say(f"task {answer['id']}: {'cancelled' if is_over else 'its attempt is being stopped'}")

    session.out.result(answers, say)


@verb(app, "retry", "farmctl task retry 1042 --wait", is_long=True)
def retry(
    session: Session,
    ids: Ids,
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Wait for the results.")] = False,
    timeout: Timeout = None,
) -> Exit:
    """Submit tasks that have ended once more, as new tasks."""
    made = [session.farm.post(f"/v1/tasks/{task_id}/retry") for task_id in ids]
    session.again = f"farmctl task wait {' '.join(str(task['id']) for task in made)}"
    if wait:
        until = session.mono() + (duration(timeout) or LONGEST_S)
        return report(session, [_wait_one(session, task, max(0.0, until - session.mono())) for task in made])

    def say() -> None:
        for task in made:
            session.out.say(f"task {task['id']} (retry of {task['retry_of']})")

    session.out.result(made, say)
    return Exit.DONE


def _wait_one(session: Session, task: Mapping[str, Any], limit_s: float) -> Mapping[str, Any]:
    """The task once it has ended, or as it is when the time is over. It also waits for a farm that is away a while."""
    until = session.mono() + limit_s
    while not task["is_final"] and (left := until - session.mono()) > 0:
        step = min(WAIT_STEP_S, left)
        try:
            task = session.farm.get(f"/v1/tasks/{task['id']}/wait", {"timeout": step}, timeout_s=step + 15)
        except Unavailable as error:
            session.out.event("away", f"{error.problem} Still waiting.")
            session.sleep(min(1.0, left))
    session.out.event("task.ended" if task["is_final"] else "task.waited", id=task["id"], state=task["state"])
    return task


def _say_task(session: Session, task: Mapping[str, Any]) -> None:
    from farmctl.display.tables import clock, table, took  # noqa: PLC0415 - rich, for people only

    out = session.out
    facts = [("agent", task["agent"]), ("state", task["state"]), ("priority", task["priority"]),
             ("submitted", clock(task["submitted_at"])), ("took", took(task)), ("node", task["node"]),
             ("replica", task["replica"]), ("version", task["version"]), ("thread", task["thread_id"]),
             ("retry of", task["retry_of"]), ("key", task["idempotency_key"]),
             ("products", " ".join(task["products"])),
             ("labels", " ".join(f"{k}={v}" for k, v in task["labels"].items()))]  # fmt: skip
    out.say(f"task {task['id']}", "bold")
    for name, value in facts:
        if value not in (None, "", "-"):
            out.say(f"  {name:<10} {value}")
    out.say("input", "bold")
    out.line(json.dumps(task["input"], indent=2, ensure_ascii=False))
    if task["state"] == "succeeded":
        out.say("output", "bold")
        out.line(json.dumps(task["output"], indent=2, ensure_ascii=False))
    if task["error"]:
        say_error(session, task["error"])
    rows = [(a["attempt"], a["outcome"], a["node"], a["replica"], clock(a.get("leased_at")),
             a["error"]["message"] if a.get("error") else None) for a in task["attempts"] or ()]  # fmt: skip
    if rows:
        out.say(table([">attempt", "outcome", "node", ">replica", "leased", "error"], rows, flexible="error"))


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{pair!r} is not a label.", remedy="Write --label KEY=VALUE.")
        labels[name] = value
    return labels
