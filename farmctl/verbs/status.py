"""`farmctl status`, `events`, `explain`, `version`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version as release_of
from typing import Annotated, Any, Final

import typer

from agentfarm.errors import FarmError, InvalidRequest, NotFound, Unavailable
from agentfarm.names import suggestion
from farmctl import completion
from farmctl.api.session import Session
from farmctl.exit_codes import Exit
from farmctl.verb import verb

WATCH_EVERY_S: Final = 1.0
KINDS: Final = ("task", "replica", "deployment", "product")


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    verb(app, "status", "farmctl status --watch")(status)
    verb(app, "events", "farmctl events -f")(events)
    verb(app, "explain", "farmctl explain task 1042")(explain)
    verb(app, "version", "farmctl version")(version)


def status(
    session: Session,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay, and show it again every second.")] = False,
) -> Exit:
    """The farm in one look: nodes, agents, replicas, tasks, market data."""
    if watch:
        return _watch_status(session)
    farm = session.farm.get("/v1/status")
    session.out.result(farm, lambda: _say_status(session, farm))
    return Exit.DONE


def events(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and print events as they come.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="The newest this many.")] = 50,
    after: Annotated[int | None, typer.Option(min=0, help="Only events after this id.")] = None,
    node: Annotated[str | None, typer.Option(autocompletion=completion.nodes)] = None,
    agent: Annotated[str | None, typer.Option(autocompletion=completion.agents)] = None,
    task: Annotated[int | None, typer.Option(min=1)] = None,
) -> Exit:
    """The farm's story, oldest first. With --json one event a line."""
    params = {"limit": limit, "after": after, "node": node, "agent": agent, "task": task}
    last = after or 0
    for line in session.farm.lines("/v1/events", params):
        last = _say_event(session, json.loads(line))
    while follow:
        session.again = "farmctl events -f"
        try:
            for line in session.farm.lines("/v1/events", params | {"follow": "1", "after": last}):
                last = _say_event(session, json.loads(line))
        except Unavailable as error:
            session.out.event("away", f"{error.problem} Trying again.")
        session.sleep(1.0)
    return Exit.DONE


def explain(
    session: Session,
    words: Annotated[
        list[str], typer.Argument(metavar="[KIND] ID", help="task, replica, deployment or product, and which one.",
                                  autocompletion=completion.things),
    ],
) -> Exit:  # fmt: skip
    """Why something waits, runs where it runs, or does not: every node with every reason.

    KIND may be left out: a number is a task, AGENT/SEAT a replica, a name a deployment, capitals a product.
    """
    if len(words) > 2 or (len(words) == 2 and words[0] not in KINDS):
        remedy = suggestion(words[0], KINDS) or "Write task, replica, deployment or product, then which."
        raise InvalidRequest(f"{words[0]!r} cannot be explained.", remedy=remedy)
    if len(words) == 2:
        kind, answer = words[0], session.farm.get(f"/v1/explain/{words[0]}/{words[1]}")
    elif words[0] in KINDS:
        raise InvalidRequest(f"Which {words[0]}?", remedy=f"farmctl explain {words[0]} ID")
    else:
        kind, answer = _guess(session, words[0])
    session.out.result(answer, lambda: _say_explained(session, kind, answer))
    return Exit.DONE


def version(session: Session) -> Exit:
    """The release of farmctl, and of the farm if one answers."""
    mine = release_of("agentfarm")
    try:
        farm: str | None = session.farm.get("/healthz", timeout_s=2.0)["version"]
    except FarmError:
        farm = None
    words = f"farmctl {mine}\n" + (f"farm    {farm}" if farm is not None else "no farm answers")
    session.out.result({"farmctl": mine, "farm": farm}, lambda: session.out.say(words))
    return Exit.DONE


def _guess(session: Session, word: str) -> tuple[str, Any]:
    """The kind of thing a word names, and its explanation."""
    name = "deployment" if word == word.lower() else "product"  # no agent's name has capitals
    kinds = ["task", "replica"] if word.isdigit() else ["replica"] if "/" in word else [name]
    for kind in kinds:
        try:
            return kind, session.farm.get(f"/v1/explain/{kind}/{word}")
        except NotFound:
            if kind == kinds[-1] and len(kinds) == 1:
                raise
    raise NotFound(f"There is no task and no replica {word}.", remedy="'farmctl status' shows what there is.")


def _watch_status(session: Session) -> Exit:
    session.again = "farmctl status --watch"
    if not session.out.is_for_people or not session.out.console.is_terminal:
        while True:
            farm = session.farm.get("/v1/status")
            if session.out.is_json:
                session.out.json_line(farm)
            else:
                _say_status(session, farm)
            session.sleep(WATCH_EVERY_S)
    from rich.live import Live  # noqa: PLC0415 - for people only
    from rich.text import Text  # noqa: PLC0415 - for people only

    from farmctl.display.status import status_view  # noqa: PLC0415 - for people only

    with Live(console=session.out.console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                live.update(status_view(session.farm.get("/v1/status")), refresh=True)
            except Unavailable as error:
                live.update(Text(f"{error.problem} Trying again.", style="yellow"), refresh=True)
            session.sleep(WATCH_EVERY_S)


def _say_status(session: Session, farm: Mapping[str, Any]) -> None:
    from farmctl.display.status import status_view  # noqa: PLC0415 - for people only

    session.out.say(status_view(farm))


def _say_event(session: Session, event: Mapping[str, Any]) -> int:
    if session.out.is_json:
        session.out.json_line(event)
    else:
        from rich.text import Text  # noqa: PLC0415 - for people only

        from farmctl.display.tables import STYLES, clock  # noqa: PLC0415 - for people only

        kind = Text(f"{event['kind']:<22}", style=STYLES.get(event["severity"], ""))
        actor = event.get("actor", "")
        by = Text(f" (by {actor})" if actor not in ("", "farm", f"node/{event.get('node')}") else "", style="dim")
        line = Text(f"{clock(event['at'])} ") + kind + Text(f" {event['message']}") + by
        session.out.console.print(line, soft_wrap=True)
    return int(event["id"])


def _say_explained(session: Session, kind: str, answer: Mapping[str, Any]) -> None:
    from farmctl.display.tables import reasons_table, table  # noqa: PLC0415 - for people only

    out = session.out
    if kind == "product":
        _say_product(session, answer)
        return
    names = {"task": f"task {answer.get('task')} of {answer['agent']}", "deployment": answer["agent"],
             "replica": f"replica {answer['agent']}/{answer.get('seat')}"}  # fmt: skip
    state = f" is {answer['state']}" if "state" in answer else ""
    out.say(f"{names[kind]}{state}: {answer['because']}", "bold")
    if answer.get("ahead"):
        out.say(f"{answer['ahead']} tasks go before it")
    if answer.get("detail"):
        out.say(answer["detail"].rstrip())
    if answer.get("replicas"):
        rows = [(f"{answer['agent']}/{r['seat']}", r["replica"], r["state"], r["node"], r["version"], r["verdict"])
                for r in answer["replicas"]]  # fmt: skip
        out.say(table(["replica", ">id", "state", "node", ">ver", "verdict"], rows, flexible="verdict"))
    if answer["nodes"]:
        out.say(reasons_table(answer["nodes"], "one more replica"))


def _say_product(session: Session, answer: Mapping[str, Any]) -> None:
    from farmctl.display.tables import reasons_table, table  # noqa: PLC0415 - rich, for people only

    session.out.say(f"product {answer['product']}: {answer['because']}", "bold")
    rows = [(n["node"], n["state"], n["reason"]) for n in answer["copies_now"]]
    if rows:
        session.out.say(table(["node", "state", "reason"], rows, flexible="reason"))
    session.out.say(reasons_table(answer["nodes"], "one more copy"))
