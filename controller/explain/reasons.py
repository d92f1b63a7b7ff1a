"""Why things are as they are, and what would follow: read-only questions to the state, answered in plain JSON values.

Every answer names every node with all its reasons, not just the first that failed and not just a count.
"""

from __future__ import annotations

from typing import Any

from agentfarm.errors import NotFound
from controller.core.agents.placement import Offer, Wish, place, refusals, score
from controller.core.agents.seats import offer
from controller.core.lives import ReplicaState, TaskState
from controller.core.model import (
    Deployment,
    DeploymentName,
    FarmState,
    Instant,
    NodeName,
    Policy,
    Replica,
    ReplicaId,
    Task,
    TaskId,
)
from controller.core.tasks.dispatch import is_open, room_at
from controller.core.tasks.recall import parked
from controller.core.turn import Turn
from controller.explain.products import plan_products


def explain_nodes(state: FarmState, deployment: DeploymentName, policy: Policy) -> list[dict[str, Any]]:
    """For each node: whether one more such replica fits, its score (lower is better), or all the reasons why not."""
    return _explain_offers([offer(state, state.nodes[name]) for name in sorted(state.nodes)], deployment, policy)


def _explain_offers(offers: list[Offer], deployment: DeploymentName, policy: Policy) -> list[dict[str, Any]]:
    rows = []
    for seen in offers:
        reasons = refusals(policy, seen)
        rows.append(
            {
                "node": seen.node,
                "fits": not reasons,
                "score": None if reasons else round(score(deployment, policy, seen), 3),
                "reasons": [str(reason) for reason in reasons],
            }
        )
    return rows


def explain_task(state: FarmState, task_id: TaskId, now: Instant) -> dict[str, Any]:
    """Where a live task stands, what it waits for, and what each replica could do for it. Raises NotFound."""
    task = state.tasks.get(task_id)
    if task is None:
        raise NotFound(f"Task {task_id} is not live: it has ended, or never was.", remedy="See: farmctl task show.")
    deployment = state.deployments[task.deployment]
    turn = Turn(state, now)
    replicas = [_replica_row(turn, deployment, state.replicas[r]) for r in sorted(deployment.replicas)]
    return {
        "task": task.id,
        "agent": task.deployment,
        "state": task.state.value,
        "because": _why_task(turn, task, deployment, replicas),
        "ahead": _ahead(state, task, deployment) if task.state is TaskState.QUEUED else 0,
        "node": task.node,
        "attempt": task.attempt,
        "failures": task.failures,
        "replicas": replicas,
        "nodes": [] if replicas else explain_nodes(state, deployment.name, turn.policy(deployment)),
    }


def explain_replica(state: FarmState, replica_id: ReplicaId, now: Instant) -> dict[str, Any]:
    """Why a replica is where it is, or nowhere. Raises NotFound."""
    replica = state.replicas.get(replica_id)
    if replica is None:
        raise NotFound(f"There is no replica {replica_id}.")
    deployment = state.deployments[replica.deployment]
    policy = deployment.versions[replica.version].policy
    because = {
        ReplicaState.PENDING: "no node can seat it now",
        ReplicaState.STARTING: "its node prepares it: bundle, environment, import",
        ReplicaState.STOPPING: f"it finishes {len(replica.tokens)} attempts, then stops",
    }.get(replica.state, replica.state.value)
    if replica.state is ReplicaState.PENDING and replica.not_before > now.mono:
        because = f"earlier replicas of this seat failed; the next try is in {replica.not_before - now.mono:.0f} s"
    return {
        "replica": replica.id,
        "agent": replica.deployment,
        "seat": replica.seat,
        "version": replica.version,
        "state": replica.state.value,
        "because": because,
        "reason": replica.reason,
        "detail": replica.detail,
        "node": replica.node,
        "nodes": explain_nodes(state, deployment.name, policy),
    }


def explain_deployment(state: FarmState, name: DeploymentName, now: Instant) -> dict[str, Any]:
    """Every seat of a deployment and every node with its reasons. Raises NotFound."""
    deployment = state.deployments.get(name)
    if deployment is None:
        raise NotFound(f"No agent {name!r} is deployed.", known=sorted(state.deployments))
    turn = Turn(state, now)
    return {
        "agent": name,
        "because": _why_deployment(state, deployment),
        "wanted": deployment.replicas_wanted,
        "version": deployment.version,
        "queued": deployment.queued,
        "leased": deployment.leased,
        "replicas": [_replica_row(turn, deployment, state.replicas[r]) for r in sorted(deployment.replicas)],
        "nodes": explain_nodes(state, name, turn.policy(deployment)),
    }


def plan_replicas(state: FarmState, name: DeploymentName, policy: Policy, wanted: int) -> dict[str, Any]:
    """What bringing a deployment to `wanted` replicas would do: seats to add or remove, and where new ones would go.

    `nodes` tells of each node as it would be then, so that it says why seats were refused.
    """
    deployment = state.deployments.get(name)
    seats = {state.replicas[r].seat for r in deployment.replicas} if deployment is not None else set()
    added = [seat for seat in range(wanted) if seat not in seats]
    offers = [offer(state, state.nodes[node]) for node in sorted(state.nodes)]
    placements = place([Wish(ReplicaId(seat), name, policy) for seat in added], offers)
    return {
        "agent": name,
        "before": deployment.replicas_wanted if deployment is not None else 0,
        "after": wanted,
        "placed": [{"seat": seat, "node": placements.chosen[ReplicaId(seat)]} for seat in added
                   if ReplicaId(seat) in placements.chosen],
        "refused": [int(seat) for seat in placements.refused],
        "removed": sorted(seat for seat in seats if seat >= wanted),
        "nodes": _explain_offers(offers, name, policy),
    }  # fmt: skip


def plan_drain(state: FarmState, names: list[NodeName]) -> dict[str, Any]:
    """What draining these nodes would move, where to, and what would find no place. Raises NotFound."""
    for name in names:
        if name not in state.nodes:
            raise NotFound(f"There is no node {name!r}.", known=sorted(state.nodes))
    drained = set(names)
    products = plan_products(state, drained)
    offers: list[Offer] = [offer(state, node) for node in state.nodes.values() if node.name not in drained]
    for seen in offers:
        seen.products |= {row["product"] for row in products if row["to"] == seen.node}
    moving = [state.replicas[r] for name in names for r in sorted(state.nodes[name].replicas)]
    wishes = [Wish(r.id, r.deployment, state.deployments[r.deployment].versions[r.version].policy)
              for r in moving if not r.is_retiring]  # fmt: skip
    chosen = place(wishes, offers).chosen
    rows = [
        {
            "replica": r.id, "agent": r.deployment, "seat": r.seat, "from": r.node, "to": chosen.get(r.id),
            "attempts": len(r.tokens), "action": "stop" if r.is_retiring else "move",
        }
        for r in moving
    ]  # fmt: skip
    fits = all(wish.replica in chosen for wish in wishes)
    fits = fits and all(row["to"] is not None or row["action"] == "stop" for row in products)
    return {"nodes": names, "replicas": rows, "products": products, "fits": fits}


# ------------------------------------------------------------------ words


def _replica_row(turn: Turn, deployment: Deployment, replica: Replica) -> dict[str, Any]:
    size = room_at(turn.state, deployment, replica, turn.now.mono)
    if replica.is_retiring:
        verdict = "retiring: takes no new task"
    elif replica.state is not ReplicaState.RUNNING:
        verdict = f"not running: {replica.state.value}" + (f" ({replica.reason})" if replica.reason else "")
    elif not is_open(turn, replica):
        verdict = f"its node {replica.node} cannot be reached"
    elif len(replica.tokens) >= size:
        verdict = f"full: holds {len(replica.tokens)} of {size}" + _busy_with(turn, replica)
    else:
        verdict = f"free: holds {len(replica.tokens)} of {size}"
    return {
        "replica": replica.id,
        "seat": replica.seat,
        "version": replica.version,
        "node": replica.node,
        "state": replica.state.value,
        "verdict": verdict,
    }


def _busy_with(turn: Turn, replica: Replica) -> str:
    """What a replica has been at for longer than what is parked at it should wait."""
    stalled_s = turn.now.mono - replica.progressed_at
    if not replica.tokens or stalled_s < turn.state.limits.prefetch_horizon_s or not replica.progressed_at:
        return ""
    oldest = turn.state.by_token[min(replica.tokens)]
    return f", at work on task {oldest}; nothing has ended there for {stalled_s:.1f} s"


def _why_leased(turn: Turn, task: Task) -> str:
    state = turn.state
    replica = state.replicas.get(task.replica) if task.replica is not None else None
    place = f"attempt {task.attempt} is at replica {task.replica} on {task.node}"
    if replica is None or task.token is None or task.token not in parked(turn, replica):
        return place
    first = state.by_token[min(replica.tokens)]
    stalled_s = turn.now.mono - replica.progressed_at
    words = f"{place}, where it waits behind task {first}: nothing has ended there for {stalled_s:.1f} s"
    return words + ("; the replica was asked to give it back" if replica.recalled_at > replica.progressed_at else "")


def _why_task(turn: Turn, task: Task, deployment: Deployment, replicas: list[dict[str, Any]]) -> str:
    now = turn.now
    if task.is_cancelling:
        return "it was asked to stop; its node has not confirmed yet"
    if task.state is not TaskState.QUEUED:
        return _why_leased(turn, task)
    if task.not_before > now.mono:
        return f"it failed {task.failures} times; the next attempt is in {task.not_before - now.mono:.1f} s"
    if deployment.is_halted:
        return f"version {deployment.version} of {deployment.name} cannot run"
    if not replicas:
        return f"{deployment.name} has no replica" + (": scaled to 0" if not deployment.replicas_wanted else "")
    if all(not row["verdict"].startswith(("free", "full")) for row in replicas):
        return "no replica can take work"
    return "every replica is busy"


def _why_deployment(state: FarmState, deployment: Deployment) -> str:
    rollout = deployment.rollout
    if deployment.is_halted and rollout is not None:
        return f"version {rollout.to_version} cannot run: {rollout.reason}"
    pending = [r for r in deployment.replicas if state.replicas[r].state is ReplicaState.PENDING]
    if pending:
        return f"{len(pending)} of {deployment.replicas_wanted} replicas find no node"
    if rollout is not None and rollout.state == "progressing":
        return f"version {rollout.to_version} is being rolled out"
    if rollout is not None and rollout.state == "reverted":
        return f"version {rollout.to_version} was taken back: {rollout.reason}"
    return "every seat is taken"


def _ahead(state: FarmState, task: Task, deployment: Deployment) -> int:
    """How many tasks of its deployment go first."""
    ahead = 0
    for priority, queue in deployment.queues.items():
        if priority > task.priority:
            ahead += len(queue)
        elif priority == task.priority:
            for other in queue:
                if other == task.id:
                    break
                ahead += other in state.tasks
    return ahead
