"""`farmctl logs`: the lines of one replica, or of every replica of an agent."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from agentfarm.errors import FarmError, NotFound, Unavailable
from farmctl import completion
from farmctl.api.client import FarmClient, problem_of
from farmctl.api.session import Session
from farmctl.exit_codes import Exit, joined
from farmctl.verb import verb

FOLLOWED_MAX: Final = 32
"""Replicas read at once."""
LOOK_EVERY_S: Final = 0.2

Line = tuple[str, str | FarmError | None]
"""(replica, a line; or why there are no more; or None at the end)"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    verb(app, "logs", "farmctl logs market-brief -f")(logs)


def logs(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="REPLICA|AGENT", help="A replica's id, AGENT/SEAT, or an agent.",
                                        autocompletion=completion.replicas)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and print lines as they come.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, max=10_000, help="Begin with the last this many.")] = 100,
) -> Exit:  # fmt: skip
    """Print what replicas wrote. With --json one object a line."""
    replicas = _replicas(session, what)
    session.again = f"farmctl logs {what} -f"
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    params = {"tail": tail, "follow": "1" if follow else None}
    clients = [FarmClient(session.farm.connection) for _ in replicas[1:]]
    for replica, client in zip(replicas, [session.farm, *clients], strict=True):
        threading.Thread(target=_read, args=(client, replica, params, lines), daemon=True).start()
    return _print(session, replicas, lines)


def _replicas(session: Session, what: str) -> list[Mapping[str, Any]]:
    if what.isdigit() or "/" in what:
        return [session.farm.get(f"/v1/replicas/{what}")]
    replicas = session.farm.get("/v1/replicas", {"agent": what})["replicas"]
    placed = [replica for replica in replicas if replica["node"] is not None]
    if not placed:
        raise NotFound(f"{what} has no replica on a node.", remedy=f"Why: farmctl explain {what}")
    return placed[:FOLLOWED_MAX]


def _read(client: FarmClient, replica: Mapping[str, Any], params: Mapping[str, Any], lines: Any) -> None:
    """On a thread of its own: put every line of one replica into the queue, and then its end."""
    name = replica["name"]
    try:
        for event in client.events(f"/v1/replicas/{replica['id']}/log", params):
            if event.event == "line":
                lines.put((name, event.data))
            elif event.event == "problem":
                import json  # noqa: PLC0415 - for a problem only

                problem = json.loads(event.data)
                lines.put((name, problem_of(problem["status"], problem)))
                return
        lines.put((name, None))
    except FarmError as error:
        lines.put((name, error))
    except Exception as error:  # a thread must not die in silence: its reader waits
        lines.put((name, Unavailable(f"The log of {name} broke off: {error}.")))


def _print(session: Session, replicas: list[Mapping[str, Any]], lines: queue.SimpleQueue[Line]) -> Exit:
    left = len(replicas)
    has_names = len(replicas) > 1
    codes = []
    while left:
        try:
            name, line = lines.get(timeout=LOOK_EVERY_S)  # in steps, so that Ctrl-C is heard
        except queue.Empty:
            continue
        if isinstance(line, str):
            if session.out.is_json:
                session.out.json_line({"replica": name, "line": line})
            else:
                session.out.line(f"{name}  {line}" if has_names else line)
            continue
        left -= 1
        codes.append(Exit.DONE if line is None else Exit.ERROR)
        if line is not None:
            session.out.problem(line)
    return joined(codes)
