"""Waits that come back from the journal: stored as wall times, bounded by what each can be at most.

A wall clock may have jumped since they were stored. Then a moment can come too early, which costs little, or far too
late: a backoff of a second must not become a day. Only what is left is bounded; nothing is made longer.
"""

from __future__ import annotations

from controller.core.agents.rollouts import SEAT_BACKOFF_MAX_S
from controller.core.model import FarmState, Instant


def bound_waits(state: FarmState, now: Instant) -> None:
    """Called by whoever loaded `state`, before it sets timers."""
    for task in state.tasks.values():
        if task.not_before:
            deployment = state.deployments[task.deployment]
            longest_s = deployment.versions[deployment.version].policy.backoff_max_s
            task.not_before = min(task.not_before, now.mono + longest_s)
    for replica in state.replicas.values():
        replica.not_before = min(replica.not_before, now.mono + SEAT_BACKOFF_MAX_S)
    for deployment in state.deployments.values():
        if deployment.rollout is not None:
            longest_s = deployment.versions[deployment.version].policy.healthy_deadline_s
            deployment.rollout.deadline = min(deployment.rollout.deadline, now.mono + longest_s)
    for node in state.nodes.values():
        if node.drain is not None and node.drain.deadline_s is not None:
            node.drain.deadline = min(node.drain.deadline, now.mono + node.drain.deadline_s)
