"""Plans as operators read them, in the shape of PlanView: what a deploy or a scale would change."""

from __future__ import annotations

from typing import Any

from controller.explain.deployments import DeployPlan, ReplicaPlan
from controller.gateway.agents.explain import fits_view


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
