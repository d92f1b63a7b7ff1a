"""`farmctl node …`, and cordon, uncordon at the top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from farmctl import completion
from farmctl.api.session import Session
from farmctl.exit_codes import Exit
from farmctl.verb import verb

app = typer.Typer(help="Nodes: look at them, invite them, take them out of service.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The node, or a unique prefix.", autocompletion=completion.nodes)]
Names = Annotated[list[str], typer.Argument(metavar="NODE…", help="Nodes.", autocompletion=completion.nodes)]
Reason = Annotated[str, typer.Option("--reason", help="Shown to everyone who looks at the node.")]


def add_to(top: typer.Typer) -> None:
    """Register the verbs that stand at the top too."""
    for place, prefix in ((top, "farmctl"), (app, "farmctl node")):
        verb(place, "cordon", f"{prefix} cordon node-2 --reason 'new disk'")(cordon)
        verb(place, "uncordon", f"{prefix} uncordon node-2")(uncordon)


@verb(app, "list", "farmctl node list")
def list_nodes(session: Session) -> None:
    """List nodes."""
    answer = session.farm.get("/v1/nodes")

    def say() -> None:
        from farmctl.display.tables import nodes_table  # noqa: PLC0415 - rich, for people only

        if answer["nodes"]:
            session.out.say(nodes_table(answer["nodes"]))
        else:
            session.out.say("No nodes. Invite one: farmctl node invite NAME")

    session.out.result(answer, say)


@verb(app, "show", "farmctl node show node-2")
def show(session: Session, name: Name) -> None:
    """Show one node: what it has, what it measured, what runs on it, and how a drain goes."""
    node = session.farm.get(f"/v1/nodes/{name}")
    session.out.result(node, lambda: _say_node(session, node))


@verb(app, "invite", "farmctl node invite node-4")
def invite(
    session: Session, name: Annotated[str, typer.Argument(help="The new node's name: lower-case letters, digits, -.")]
) -> None:
    """Make a token with which one machine joins under this name, once, within 15 minutes."""
    answer = session.farm.post("/v1/nodes/invite", {"name": name})

    def say() -> None:
        from farmctl.display.tables import clock  # noqa: PLC0415 - rich, for people only

        session.out.say(f"Run this on {name} before {clock(answer['expires_at'])}:")
        session.out.line(f"agentfarm-node join {answer['token']}")

    session.out.result(answer, say)


@verb(app, "forget", "farmctl node forget node-4")
def forget(session: Session, name: Name) -> None:
    """Strike off a node that is lost or never joined. Needs its whole name."""
    session.farm.delete(f"/v1/nodes/{name}")
    session.out.result({"name": name, "is_forgotten": True}, lambda: session.out.say(f"{name} is struck off."))


def cordon(session: Session, names: Names, reason: Reason = "") -> Exit:
    """Place nothing new on nodes. What runs there goes on."""
    views = [session.farm.post(f"/v1/nodes/{name}/cordon", {"reason": reason}) for name in names]
    _say_marks(session, views, "takes no new replicas")
    return Exit.DONE


def uncordon(session: Session, names: Names) -> Exit:
    """Let nodes take replicas again; a drain of them ends."""
    views = [session.farm.post(f"/v1/nodes/{name}/uncordon") for name in names]
    _say_marks(session, views, "takes replicas again")
    return Exit.DONE


def _say_marks(session: Session, views: list[Mapping[str, Any]], words: str) -> None:
    def say() -> None:
        for view in views:
            session.out.say(f"{view['name']} {words}.")

    session.out.result({"nodes": views}, say)


def _say_node(session: Session, node: Mapping[str, Any]) -> None:
    from farmctl.display.tables import count, node_state, replicas_table  # noqa: PLC0415 - rich, for people only

    measured = node["measured"] or {}
    labels = " ".join(f"{key}={value}" for key, value in node["labels"].items())
    facts = [
        ("state", node_state(node)), ("cordoned", node["cordon_reason"] if node["is_cordoned"] else ""),
        ("heard", f"{node['heard_s_ago']} s ago" if node["heard_s_ago"] is not None else "never"),
        ("cpu", f"{node['cpu_millicores']} millicores, {measured.get('cpu_used_millicores', 0)} used"),
        ("memory", f"{node['memory_mib']} MiB for agents, {measured.get('memory_available_mib', 0)} available"),
        ("gpus", node["gpus"] or ""), ("disk", f"{measured.get('disk_free_mib', 0)} MiB free"),
        ("labels", labels), ("can", " ".join(node["capabilities"])), ("products", " ".join(node["products"])),
        ("market", f"{measured['market_state']}, {count(measured['market_rows'])} rows"
         if measured.get("market_state") else ""),
        ("daemon", node["daemon_version"]),
    ]  # fmt: skip
    session.out.say(node["name"], "bold")
    for name, value in facts:
        if value != "":
            session.out.say(f"  {name:<10} {value}")
    drain = node["drain"]
    if drain is not None:
        state = "complete: nothing of the farm runs here" if drain["is_complete"] else f"{drain['seconds_left']} s left"
        session.out.say(f"  {'drain':<10} {state}" + (" (forced)" if drain["is_forced"] else ""))
        for sentence in drain["blocked_by"]:
            session.out.say(f"             {sentence}")
    if node["replicas"]:
        session.out.say(replicas_table(node["replicas"]))
