"""The farm in one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from controller.core.lives import NodeState, TaskState
from controller.core.model import FarmState, Instant
from controller.gateway.agents.views import deployment_view, replica_view
from controller.gateway.farm.models import MarketView, StatusView
from controller.gateway.http.answers import when
from controller.gateway.nodes.views import node_view

if TYPE_CHECKING:
    from controller.journal.queries.reader import StoredEvent


def farm_version() -> str:
    """The release that runs."""
    try:
        return version("agentfarm")
    except PackageNotFoundError:
        return "0+unknown"


VERSION: Final = farm_version()


def status_view(state: FarmState, now: Instant, ended: Mapping[TaskState, int]) -> StatusView:
    """Nodes, deployments, replicas, tasks by state, market. `ended`: how many tasks ended how."""
    at = when(now.wall)
    assert at is not None
    replicas = sorted(state.replicas.values(), key=lambda replica: (replica.deployment, replica.seat, replica.id))
    return StatusView(
        version=VERSION,
        epoch=state.epoch,
        at=at,
        nodes=[node_view(state, state.nodes[name], now.mono) for name in sorted(state.nodes)],
        deployments=[deployment_view(state, state.deployments[name]) for name in sorted(state.deployments)],
        replicas=[replica_view(replica) for replica in replicas],
        tasks=task_counts(state, ended),
        market=_market(state),
    )


def event_view(stored: StoredEvent) -> dict[str, Any]:
    """One fact of the farm's story, in the shape of EventView."""
    event = stored.event
    return {
        "id": stored.id,
        "at": when(event.at),
        "kind": event.kind,
        "severity": event.severity,
        "message": event.message,
        "node": event.node,
        "deployment": event.deployment,
        "replica": event.replica,
        "task": event.task,
        "data": event.data,
        "actor": event.actor,
    }


def task_counts(state: FarmState, ended: Mapping[TaskState, int]) -> dict[str, int]:
    """Tasks by state, every state named."""
    counts = {item.value: ended.get(item, 0) for item in TaskState}
    running = Counter(state.tasks[task].state for task in state.by_token.values() if task in state.tasks)
    counts["queued"] = sum(deployment.queued for deployment in state.deployments.values())
    counts["leased"], counts["running"] = running[TaskState.LEASED], running[TaskState.RUNNING]
    return counts


def _market(state: FarmState) -> MarketView:
    nodes = [state.nodes[name] for name in sorted(state.nodes)]
    feeding = [(node, node.measured) for node in nodes if node.measured is not None and node.measured.market_state]
    reporting = [pair for pair in feeding if pair[0].state is NodeState.READY] or feeding
    return MarketView(
        state=reporting[0][1].market_state if reporting else "off",
        rows=sum(measured.market_rows for _, measured in feeding),
        nodes=[node.name for node, _ in feeding],
        products=sorted({product for node, _ in feeding for product in node.products | node.assigned}),
        lag_ms=max((measured.market_lag_ms for _, measured in reporting), default=0),
    )
