"""Deployments and replicas as operators see them, and plans: what a deploy or a scale would change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from controller.core.lives import ReplicaState
from controller.core.model import Deployment, FarmState, Replica, Rollout, Version
from controller.explain.deployments import DeployPlan, ReplicaPlan
from controller.explain.nodes import NodeFit
from controller.explain.replicas import ReplicaStanding
from controller.gateway.agents.models import DeploymentView, ReplicaView, RolloutView, VersionView
from controller.gateway.http.answers import when


def replica_view(replica: Replica) -> ReplicaView:
    """One replica."""
    return ReplicaView(
        id=replica.id,
        name=f"{replica.deployment}/{replica.seat}",
        deployment=replica.deployment,
        seat=replica.seat,
        version=replica.version,
        state=replica.state,
        node=replica.node,
        is_retiring=replica.is_retiring,
        reason=replica.reason,
        detail=replica.detail,
        restarts=replica.restarts,
        pid=replica.pid,
        private_mib=replica.private_mib,
        ready_ms=replica.ready_ms,
        since=when(replica.since),
        running=len(replica.tokens),
        served=replica.served + replica.served_lately,
    )


def deployment_view(state: FarmState, deployment: Deployment, *, with_parts: bool = False) -> DeploymentView:
    """One deployment; with_parts: its replicas and versions too."""
    replicas = [state.replicas[replica] for replica in sorted(deployment.replicas)]
    running = {r.seat for r in replicas if r.state is ReplicaState.RUNNING and not r.is_retiring}
    return DeploymentView(
        name=deployment.name,
        version=deployment.version,
        generation=deployment.generation,
        replicas_wanted=deployment.replicas_wanted,
        replicas_running=len(running),
        queued=deployment.queued,
        leased=deployment.leased,
        service_s=round(deployment.service_s, 6) if deployment.service_s is not None else None,
        is_removed=deployment.is_removed,
        is_halted=deployment.is_halted,
        rollout=_rollout_view(deployment.rollout),
        replicas=[replica_view(replica) for replica in replicas] if with_parts else None,
        versions=_version_views(deployment) if with_parts else None,
    )


def _rollout_view(rollout: Rollout | None) -> RolloutView | None:
    if rollout is None:
        return None
    return RolloutView(
        state=rollout.state,
        from_version=rollout.from_version,
        to_version=rollout.to_version,
        started_at=when(rollout.started_at),
        reason=rollout.reason,
        detail=rollout.detail,
    )


def _version_views(deployment: Deployment) -> list[VersionView]:
    newest_first = sorted(deployment.versions.values(), key=lambda version: -version.number)
    return [_version_view(version, deployment.version) for version in newest_first]


def _version_view(version: Version, current: int) -> VersionView:
    return VersionView(
        version=version.number,
        digest=version.digest,
        created_at=when(version.created_at),
        is_current=version.number == current,
        spec=orjson.loads(version.spec_json) if version.spec_json else None,
    )


# ------------------------------------------------------------------ nodes and seats in explanations and plans


def standings_view(replicas: Iterable[ReplicaStanding]) -> list[dict[str, Any]]:
    """What each replica could do now."""
    return [
        {
            "replica": each.replica,
            "seat": each.seat,
            "version": each.version,
            "node": each.node,
            "state": each.state,
            "verdict": each.sentence,
        }
        for each in replicas
    ]


def fits_view(nodes: Iterable[NodeFit]) -> list[dict[str, Any]]:
    """Every node, with every reason."""
    return [
        {"node": each.node, "fits": each.fits, "score": each.score, "reasons": [str(reason) for reason in each.reasons]}
        for each in nodes
    ]


def scale_plan_view(plan: ReplicaPlan) -> dict[str, Any]:
    """What a scale would do."""
    return _replica_plan_view(plan) | {"replaced": [], "is_changed": True}


def deploy_plan_view(plan: DeployPlan) -> dict[str, Any]:
    """What a deploy would do."""
    return _replica_plan_view(plan.replicas) | {
        "version_before": plan.version_before,
        "version_after": plan.version_after,
        "replaced": plan.replaced,
        "is_changed": plan.is_changed,
        "code_changed": plan.is_code_changed,
        "spec_changes": [{"key": each.key, "before": each.before, "after": each.after} for each in plan.spec_changes],
    }


def _replica_plan_view(plan: ReplicaPlan) -> dict[str, Any]:
    return {
        "agent": plan.deployment,
        "before": plan.before,
        "after": plan.after,
        "placed": [{"seat": each.seat, "node": each.node} for each in plan.placed],
        "refused": plan.refused,
        "removed": plan.removed,
        "nodes": fits_view(plan.nodes),
    }
