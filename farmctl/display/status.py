"""The farm in one look, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from farmctl.display.tables import clock, count, deployments_table, nodes_table, replicas_table

REPLICAS_SHOWN = 24


def status_view(farm: Mapping[str, Any]) -> RenderableType:
    """Nodes, agents, replicas, tasks, market data."""
    parts: list[RenderableType] = [_head(farm)]
    parts.append(nodes_table(farm["nodes"]) if farm["nodes"] else Text("No nodes: farmctl node invite NAME"))
    parts.append(Text(""))
    if farm["deployments"]:
        parts.append(deployments_table(farm["deployments"]))
        parts.append(Text(""))
        parts.append(replicas_table(farm["replicas"][:REPLICAS_SHOWN]))
        if len(farm["replicas"]) > REPLICAS_SHOWN:
            parts.append(Text(f"… and {len(farm['replicas']) - REPLICAS_SHOWN} more", style="dim"))
    else:
        parts.append(Text("No agents: farmctl deploy PATH"))
    return Group(*parts)


def _head(farm: Mapping[str, Any]) -> Text:
    tasks = farm["tasks"]
    live = [f"{count(tasks[state])} {state}" for state in ("queued", "leased", "running")]
    ended = [f"{count(tasks[state])} {state}" for state in ("succeeded", "failed", "dead", "cancelled") if tasks[state]]
    market = farm["market"]
    text = Text(f"Agent Farm {farm['version']} at {clock(farm['at'])}\n", style="bold")
    text.append("tasks   ", style="bold").append(", ".join(live + ended) + "\n", style="not bold")
    words = market["state"]
    if market["state"] != "off":
        words += f", {count(market['rows'])} rows, {market['lag_ms']} ms behind, on {', '.join(market['nodes'])}"
    text.append("market  ", style="bold").append(words + "\n", style="not bold")
    return text
