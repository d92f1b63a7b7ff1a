"""Nodes as operators see them. A drain is complete when the core says so, and it says so on the daemon's word."""

from __future__ import annotations

from dataclasses import asdict

from controller.core.model import FarmState, Node, Replica
from controller.explain.products import drain_blockers
from controller.gateway.agents.views import replica_view
from controller.gateway.http.times import when
from controller.gateway.nodes.models import DrainView, MeasuredView, NodeView

BLOCKERS_MAX = 20  # sentences of a drain's view


def node_view(state: FarmState, node: Node, now_mono: float, *, with_replicas: bool = False) -> NodeView:
    """One node. `now_mono`: seconds of the controller's monotonic clock."""
    replicas = [state.replicas[replica] for replica in sorted(node.replicas)]
    return NodeView(
        name=node.name,
        state=node.state,
        is_cordoned=node.is_cordoned,
        cordon_reason=node.cordon_reason,
        drain=_drain_view(state, node, replicas, now_mono),
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


def _drain_view(state: FarmState, node: Node, replicas: list[Replica], now_mono: float) -> DrainView | None:
    drain = node.drain
    if drain is None:
        return None
    return DrainView(
        started_at=when(drain.started_at),
        seconds_left=0.0 if drain.is_complete else round(max(0.0, drain.deadline - now_mono), 1),
        reason=drain.reason,
        is_forced=drain.is_forced,
        is_complete=drain.is_complete,
        blocked_by=[] if drain.is_complete else _blockers(state, node, replicas)[:BLOCKERS_MAX],
    )


def _blockers(state: FarmState, node: Node, replicas: list[Replica]) -> list[str]:
    return [_blocker(state, replica) for replica in replicas[:BLOCKERS_MAX]] + drain_blockers(state, node)


def _blocker(state: FarmState, replica: Replica) -> str:
    name = f"{replica.deployment}/{replica.seat}"
    heir = _heir(state, replica)
    if replica.is_retiring and replica.tokens:
        return f"{name} finishes {len(replica.tokens)} running {'task' if len(replica.tokens) == 1 else 'tasks'}"
    if replica.is_retiring:
        return f"{name} is {replica.state.value}"
    if heir is None or heir.node is None:
        return f"{name} has no other node yet"
    return f"{name} waits for its successor on {heir.node}, which is {heir.state.value}"


def _heir(state: FarmState, replica: Replica) -> Replica | None:
    """The newer occupant of the same seat, if there is one."""
    siblings = (state.replicas[other] for other in state.deployments[replica.deployment].replicas)
    newer = [other for other in siblings if other.seat == replica.seat and other.id > replica.id]
    return max(newer, key=lambda other: other.id, default=None)
