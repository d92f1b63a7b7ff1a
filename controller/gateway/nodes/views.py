"""Nodes as operators see them. A drain is complete when the core says so, and it says so on the daemon's word."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from controller.core.model import FarmState, Node
from controller.explain.drains import DrainPlan, drain_blockers
from controller.gateway.agents.views import replica_view
from controller.gateway.http.answers import when
from controller.gateway.nodes.models import DrainView, MeasuredView, NodeView

BLOCKERS_MAX: Final = 20
"""Sentences of a drain's view."""


def node_view(state: FarmState, node: Node, now_mono: float, *, with_replicas: bool = False) -> NodeView:
    """One node. `now_mono`: seconds of the controller's monotonic clock."""
    replicas = [state.replicas[replica] for replica in sorted(node.replicas)]
    return NodeView(
        name=node.name,
        state=node.state,
        is_cordoned=node.is_cordoned,
        cordon_reason=node.cordon_reason,
        drain=_drain_view(state, node, now_mono),
        heard_s_ago=round(max(0.0, now_mono - node.last_heard), 3) if node.last_heard else None,
        cpu_millicores=node.cpu_millicores,
        memory_mib=node.memory_mib,
        gpus=node.gpus,
        labels=node.labels,
        capabilities=sorted(node.capabilities),
        products=sorted(node.products | node.assigned),
        assigned=sorted(node.assigned),
        takes_products=node.takes_products,
        market_source=node.market_source,
        metrics_address=node.metrics_address,
        daemon_version=node.daemon_version,
        measured=MeasuredView(**asdict(node.measured)) if node.measured is not None else None,
        replica_count=len(replicas),
        running=sum(len(replica.tokens) for replica in replicas),
        replicas=[replica_view(replica) for replica in replicas] if with_replicas else None,
    )


def _drain_view(state: FarmState, node: Node, now_mono: float) -> DrainView | None:
    drain = node.drain
    if drain is None:
        return None
    return DrainView(
        started_at=when(drain.started_at),
        seconds_left=0.0 if drain.is_complete else round(max(0.0, drain.deadline - now_mono), 1),
        reason=drain.reason,
        is_forced=drain.is_forced,
        is_complete=drain.is_complete,
        blocked_by=[] if drain.is_complete else drain_blockers(state, node, BLOCKERS_MAX),
    )


def drain_plan_view(plan: DrainPlan) -> dict[str, Any]:
    """What a drain would move where, in the shape of DrainPlanView."""
    return {
        "nodes": plan.nodes,
        "replicas": [
            {
                "replica": move.replica,
                "agent": move.deployment,
                "seat": move.seat,
                "from": move.origin,
                "to": move.target,
                "attempts": move.attempts,
                "action": move.action,
            }
            for move in plan.replicas
        ],
        "products": [
            {"product": move.product, "from": move.origin, "to": move.target, "action": move.action}
            for move in plan.products
        ],
        "fits": plan.fits,
    }
