"""Tables for people: they fit 80 columns, and say first what matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

STYLES: Final = {
    "ready": "green", "running": "green", "succeeded": "green", "complete": "green", "ok": "green",
    "starting": "yellow", "pending": "yellow", "queued": "yellow", "leased": "yellow", "progressing": "yellow",
    "joining": "yellow", "unreachable": "yellow", "unhealthy": "yellow", "stopping": "yellow", "draining": "yellow",
    "cordoned": "yellow", "warning": "yellow",
    "lost": "red", "failed": "red", "dead": "red", "reverted": "red", "error": "red",
    "cancelled": "dim", "stopped": "dim", "info": "dim",
}  # fmt: skip


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", flexible: str = "") -> Table:
    """A plain table. Columns whose name begins with `>` are numbers; `flexible` names the one that may wrap."""
    made = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False,
                 show_edge=False, padding=(0, 1, 0, 0))  # fmt: skip
    for column in columns:
        name = column.removeprefix(">")
        made.add_column(name.upper(), justify="right" if column.startswith(">") else "left",
                        no_wrap=name != flexible, overflow="fold" if name == flexible else "ellipsis",
                        header_style="bold")  # fmt: skip
    for row in rows:
        made.add_row(*[cell(value) for value in row])
    return made


def cell(value: object) -> Text:
    """One value; words of state have a colour where there are colours."""
    text = "-" if value is None or value == "" else str(value)
    return Text(text, style=STYLES.get(text.split(" ")[0], ""))


def nodes_table(nodes: Iterable[Mapping[str, Any]]) -> Table:
    """Nodes."""
    return table(
        ["node", "state", ">replicas", ">running", ">free mib", "market", ">rows"],
        [
            (
                node["name"], node_state(node), node["replica_count"], node["running"],
                _measured(node, "memory_available_mib"), _measured(node, "market_state"), _rows(node),
            )
            for node in nodes
        ],
    )  # fmt: skip


def node_state(node: Mapping[str, Any]) -> str:
    """A node's state with its marks."""
    drain = node["drain"]
    if drain is not None:
        return f"{node['state']}, {'drained' if drain['is_complete'] else 'draining'}"
    return f"{node['state']}, cordoned" if node["is_cordoned"] else str(node["state"])


def deployments_table(deployments: Iterable[Mapping[str, Any]]) -> Table:
    """Deployments."""
    return table(
        ["agent", ">ver", ">run", ">want", ">queued", ">leased", "takes", "rollout"],
        [
            (
                d["name"], d["version"], d["replicas_running"], d["replicas_wanted"], d["queued"], d["leased"],
                span(d["service_s"]), rollout_words(d),
            )
            for d in deployments
        ],
    )  # fmt: skip


def rollout_words(deployment: Mapping[str, Any]) -> str:
    """Where a deployment's rollout stands."""
    rollout = deployment["rollout"]
    if deployment["is_removed"]:
        return "being removed"
    if rollout is None:
        return "-"
    return str(rollout["state"]) + (f": {rollout['reason']}" if rollout["reason"] else "")


def replicas_table(replicas: Iterable[Mapping[str, Any]]) -> Table:
    """Replicas."""
    return table(
        ["replica", ">id", "state", "node", ">ver", ">pid", ">mib", ">served", "reason"],
        [
            (
                r["name"], r["id"], "retiring" if r["is_retiring"] else r["state"], r["node"], r["version"],
                r["pid"] or None, r["private_mib"] or None, r["served"], r["reason"],
            )
            for r in replicas
        ],
    )  # fmt: skip


def tasks_table(tasks: Iterable[Mapping[str, Any]]) -> Table:
    """Tasks."""
    return table(
        [">id", "agent", "state", ">try", "submitted", "took", "node", "error"],
        [
            (
                t["id"], t["agent"], t["state"], t["attempt"] or None, clock(t["submitted_at"]), took(t), t["node"],
                t["error"]["type"] if t["error"] else None,
            )
            for t in tasks
        ],
    )  # fmt: skip


def reasons_table(nodes: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """Every node with every reason."""
    return table(
        ["node", "fits", ">score", "reasons"],
        [(n["node"], "yes" if n["fits"] else "no", n["score"], "; ".join(n["reasons"])) for n in nodes],
        title=title, flexible="reasons",
    )  # fmt: skip


def took(task: Mapping[str, Any]) -> str:
    """From submit to end, or until now."""
    if task["finished_at"] is None:
        return "-"
    return span((moment(task["finished_at"]) - moment(task["submitted_at"])).total_seconds())


def span(seconds: float | None) -> str:
    """A duration in the unit that reads best."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def clock(text: str | None) -> str:
    """The local time of day; with the date when it is not today."""
    if text is None:
        return "-"
    local = moment(text).astimezone()
    is_today = local.date() == datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")


def moment(text: str) -> datetime:
    """A time of the gateway."""
    return datetime.fromisoformat(text)


def count(number: int) -> str:
    """A number with thin groups."""
    return f"{number:,}"


def _measured(node: Mapping[str, Any], key: str) -> object:
    return node["measured"][key] if node["measured"] else None


def _rows(node: Mapping[str, Any]) -> object:
    rows = node["measured"]["market_rows"] if node["measured"] else 0
    return count(rows) if rows else None
