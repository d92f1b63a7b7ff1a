"""`farmctl drain`: empty nodes. A node is empty only when its daemon has confirmed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from agentfarm.errors import CannotPlace, InvalidRequest, Unavailable
from farmctl import completion
from farmctl.api.session import Session
from farmctl.exit_codes import Exit, joined
from farmctl.verb import duration, verb

LOOK_EVERY_S: Final = 0.25
AGENTS_EXPLAINED_MAX: Final = 3
GRACE_S: Final = 60.0
"""After the deadline, for daemons to stop what was forced off and to confirm it."""

Names = Annotated[list[str], typer.Argument(metavar="NODE…", help="Nodes.", autocompletion=completion.nodes)]
Deadline = Annotated[str, typer.Option("--deadline", metavar="TIME", help="What running work gets to end by itself.")]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Watch this long at most.")]


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    verb(app, "drain", "farmctl drain node-2 --deadline 5m", is_long=True)(drain)


def drain(
    session: Session,
    names: Names,
    deadline: Deadline = "5m",
    reason: Annotated[str, typer.Option(help="Shown to everyone who looks at the nodes.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also when the rest cannot take what runs there.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Watch until the nodes are empty.")] = True,
    timeout: Timeout = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would move where, and change nothing.")] = False,
) -> Exit:
    """Move everything off nodes: cordon them, start replicas elsewhere, let running work finish.

    Complete when each node's daemon has confirmed that no process of the farm remains. Exit 2 if the other nodes
    cannot take what would move (nothing was changed then), 3 if the deadline was hit and work was forced off.
    """
    deadline_s = duration(deadline) or 0.0
    if deadline_s <= 0:
        raise InvalidRequest("The deadline must be longer than nothing.", remedy="For example --deadline 30s.")
    made = session.farm.post(f"/v1/nodes/{names[0]}/drain", None, {"plan": "1", "beside": names[1:] or None})
    session.out.event("plan", plan=made)
    _say_plan(session, made)
    if plan:
        if session.out.is_json:
            session.out.result(made)
        return Exit.DONE if made["fits"] else Exit.CANNOT_PLACE
    if not made["fits"] and not force:
        stuck = [f"{row['agent']}/{row['seat']}" for row in made["replicas"] if _is_stuck(row)]
        stuck += [row["product"] for row in made["products"] if _is_stuck(row)]
        _say_why(session, made)
        raise CannotPlace(
            f"The other nodes cannot take {', '.join(stuck[:8])}; nothing was changed.",
            remedy="Make room, or drain with --force: then they wait, what they run is interrupted, and products"
            " are given up at the deadline.",
            stuck=stuck,
        )
    body = {"deadline_s": deadline_s, "reason": reason}
    nodes = [session.farm.post(f"/v1/nodes/{name}/drain", body)["name"] for name in made["nodes"]]
    session.again = f"farmctl node show {nodes[0]}"
    if not wait:
        session.out.result({"nodes": nodes, "is_complete": False}, lambda: session.out.say("The drain has begun."))
        return Exit.DONE
    views = _watch(session, nodes, duration(timeout) or deadline_s + GRACE_S)
    codes = [_verdict(view) for view in views]
    session.out.result({"nodes": views, "exit": int(joined(codes))}, lambda: _say_end(session, views))
    return joined(codes)


def _watch(session: Session, names: list[str], timeout_s: float) -> list[Mapping[str, Any]]:
    """The nodes' views when all are empty, or when the time is over."""
    until, shown = session.mono() + timeout_s, dict.fromkeys(names, "")
    views: list[Mapping[str, Any]] = []
    while True:
        try:
            views = [session.farm.get(f"/v1/nodes/{name}") for name in names]
        except Unavailable as error:
            session.out.event("away", f"{error.problem} Still watching.")
        for view in views:
            words = _progress(view)
            if words != shown[view["name"]]:
                shown[view["name"]] = words
                session.out.event("drain.progress", words, node=view["name"], drain=view["drain"],
                                  replicas=view["replica_count"])  # fmt: skip
        if views and all(_is_settled(view) for view in views):
            return views
        if session.mono() >= until:
            return views
        session.sleep(LOOK_EVERY_S)


def _is_settled(view: Mapping[str, Any]) -> bool:
    return view["drain"] is None or bool(view["drain"]["is_complete"])


def _progress(view: Mapping[str, Any]) -> str:
    drain = view["drain"]
    if drain is None:
        return f"{view['name']}: its drain was ended by somebody"
    if drain["is_complete"]:
        return f"{view['name']}: empty, its daemon confirms"
    held = "; ".join(drain["blocked_by"][:3]) or f"{view['replica_count']} replicas left"
    return f"{view['name']}: {held}" + (" (forced)" if drain["is_forced"] else "")


def _verdict(view: Mapping[str, Any]) -> Exit:
    drain = view["drain"]
    if drain is None:
        return Exit.PRECONDITION
    if not drain["is_complete"]:
        return Exit.ERROR
    return Exit.FORCED if drain["is_forced"] else Exit.DONE


def _say_plan(session: Session, made: Mapping[str, Any]) -> None:
    if not session.out.is_for_people:
        return
    from farmctl.display.tables import table  # noqa: PLC0415 - rich, for people only

    if not made["replicas"] and not made["products"]:
        session.out.say(f"Nothing runs on {', '.join(made['nodes'])}.")
        return
    rows = [
        (f"{row['agent']}/{row['seat']}", row["from"], row["to"] or ("-" if row["action"] == "stop" else "nowhere"),
         row["attempts"], row["action"])
        for row in made["replicas"]
    ]  # fmt: skip
    if rows:
        session.out.say(table(["replica", "from", "to", ">running", "step"], rows))
    moves = [(row["product"], row["from"], row["to"] or ("-" if row["action"] == "stop" else "nowhere"), row["action"])
             for row in made["products"]]  # fmt: skip
    if moves:
        session.out.say(table(["product", "from", "to", "step"], moves))


def _is_stuck(row: Mapping[str, Any]) -> bool:
    return row["to"] is None and row["action"] != "stop"


def _say_why(session: Session, made: Mapping[str, Any]) -> None:
    """For each agent that finds no place: every node with every reason."""
    if not session.out.is_for_people:
        return
    from farmctl.display.tables import reasons_table  # noqa: PLC0415 - rich, for people only

    for agent in sorted({row["agent"] for row in made["replicas"] if _is_stuck(row)})[:AGENTS_EXPLAINED_MAX]:
        nodes = session.farm.get(f"/v1/explain/deployment/{agent}")["nodes"]
        rest = [
            node if node["node"] not in made["nodes"] else node | {"fits": False, "score": None, "reasons": ["drained"]}
            for node in nodes
        ]
        session.out.say(reasons_table(rest, f"where {agent} could go"))


def _say_end(session: Session, views: list[Mapping[str, Any]]) -> None:
    for view in views:
        drain = view["drain"]
        if drain is None:
            session.out.say(f"{view['name']}: the drain was ended by somebody (uncordon).")
        elif not drain["is_complete"]:
            session.out.say(f"{view['name']} is not empty yet:")
            for sentence in drain["blocked_by"]:
                session.out.say(f"  {sentence}")
        else:
            forced = "; the deadline was hit, so running work was interrupted and queued again" * drain["is_forced"]
            session.out.say(f"{view['name']} is empty: no process of the farm remains there{forced}.")
